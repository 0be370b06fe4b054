"""Stage `hierarchy`: the density hierarchy that HDBSCAN, DBSCAN and GLOSH are read off."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.neighbors import graph_of, winner_of
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.hierarchy import Hierarchy, build_hierarchy
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.tables import VectorTable


@stage(group="clustering", kinds=("scipy", "hdbscan"), heavy=True, code_version="2")
def hierarchy(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scaled_pca: VectorTable,
    clustering_trials: pd.DataFrame,
    neighbors: VectorTable,
) -> Result:
    """Single linkage of the mutual-reachability graph of all usable images."""
    X = scaled_pca.vectors(winner_of(clustering_trials)["scaler"]).to_array()
    usable = finite_rows(X)
    built = build_hierarchy(X[usable], graph_of(neighbors, usable), settings.config.neighbors.min_samples)
    return Result(
        {"core_distances": built.core_distances, "linkage": built.linkage},
        lambda: {
            "rows": len(built.core_distances),
            "median_core_distance": float(np.median(built.core_distances)),
            "longest_link": float(built.linkage[-1, 2]),
        },
    )


def hierarchy_of(arrays: dict[str, np.ndarray]) -> Hierarchy:
    """The hierarchy as this stage stored it."""
    return Hierarchy(arrays["core_distances"], arrays["linkage"])
