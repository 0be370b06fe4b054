"""Stage `clustered`, on request: labels on the scaled vectors without PCA."""

import json

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.neighbors import winner_of
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.clustering import ALGORITHMS, Space, fit_clusters
from iv_pipeline.learn.numbering import number_by_size
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, table_from_arrays


@stage(group="clustering", kinds=("scikitlearn", "arrow"), heavy=True)
def clustered(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scaled: VectorTable,
    clustering_trials: pd.DataFrame,
) -> Result:
    """A sample of images clustered on their scaled vectors, without PCA: what the reduction changes."""
    config = settings.config
    scaler = winner_of(clustering_trials)["scaler"]
    rng = np.random.default_rng(config.seed)
    rows = np.sort(rng.permutation(scaled.n_rows)[: config.clustered.rows])
    X = scaled.vectors(scaler).take(rows)
    usable = finite_rows(X)
    rows, X = rows[usable], X[usable]
    space = Space(X, config.seed, config.neighbors.n_neighbors, config.neighbors.min_samples)
    columns: dict[str, object] = {IMAGE_PATH: scaled.column(IMAGE_PATH).take(rows), scaler: X}
    counts = {}
    for trial in clustering_trials[clustering_trials["kept"]].to_dict("records"):
        clustering = fit_clusters(ALGORITHMS[trial["algorithm"]], space, json.loads(trial["tried"]))
        columns[f"label_{trial['algorithm']}"] = number_by_size(clustering.labels)
        counts[f"n_clusters_{trial['algorithm']}"] = clustering.n_clusters
        context.log.info("clustered · %s · %d clusters", trial["algorithm"], clustering.n_clusters)
    return Result(table_from_arrays(columns), lambda: {"scaler": scaler, **counts})
