"""Stage `projection`: 2-D and 3-D maps of the images."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.neighbors import graph_of
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.duplicates import first_equal
from iv_pipeline.learn.projection import umap_layouts
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.report import plots
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

COORDINATES = ("x2", "y2", "x3", "y3", "z3")


@stage(group="results", kinds=("umap", "parquet"), heavy=True, code_version="4")
def projection(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    clusters: VectorTable,
    neighbors: VectorTable,
) -> Result:
    """Coordinates of every image on a 2-D and a 3-D map, NaN for unusable rows."""
    config = settings.config
    X = clusters.vectors(clusters.vector_columns[0]).to_array()
    usable = finite_rows(X)
    flat, solid = umap_layouts(
        X[usable],
        graph_of(neighbors, usable),
        n_neighbors=config.projection.n_neighbors,
        min_dist=config.projection.min_dist,
        n_epochs=config.projection.n_epochs,
        seed=config.seed,
    )
    coordinates = np.full((len(X), len(COORDINATES)), np.nan, np.float32)
    coordinates[usable] = np.hstack([flat, solid])[first_equal(X[usable])]  # UMAP moves equal rows apart
    frame = pd.DataFrame(coordinates, columns=list(COORDINATES))
    frame.insert(0, IMAGE_PATH, clusters.column(IMAGE_PATH).to_pandas())
    cluster = clusters.column("cluster").to_numpy()
    picture = plots.map_2d(flat, cluster[usable])
    return Result(frame, lambda: {"map": dg.MetadataValue.md(plots.inline(picture))})
