"""Stage `neighbors`: the neighbor graph of the components under the winning scaler."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.neighbors import NeighborGraph, neighbor_graph
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, table_from_arrays

LEAST_RECALL = 0.95


@stage(
    group="clustering",
    kinds=("faiss", "arrow"),
    heavy=True,
    checks={"recall": f"Were at least {LEAST_RECALL:.0%} of the true neighbors found?"},
    code_version="3",
)
def neighbors(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scaled_pca: VectorTable,
    clustering_trials: pd.DataFrame,
) -> Result:
    """Nearest neighbors of every image in components under the winning scaler; unusable rows have none (−1)."""
    scaler = winner_of(clustering_trials)["scaler"]
    X = scaled_pca.vectors(scaler).to_array()
    usable = np.flatnonzero(finite_rows(X))
    graph = neighbor_graph(X[usable], settings.config.neighbors.n_neighbors, settings.config.seed)
    indices = np.full((len(X), graph.n_neighbors), -1, np.int32)
    distances = np.full((len(X), graph.n_neighbors), np.nan, np.float32)
    indices[usable] = usable[graph.indices]
    distances[usable] = graph.distances
    paths = scaled_pca.column(IMAGE_PATH)
    table = table_from_arrays({IMAGE_PATH: paths, "indices": indices, "distances": distances})
    return Result(
        table,
        lambda: {
            "scaler": scaler,
            "n_neighbors": graph.n_neighbors,
            "recall": graph.recall,
            "cells": graph.n_cells,
            "cells_looked_into": graph.n_probes,
            "median_distance": float(np.median(graph.distances)),
            "distances": dg.MetadataValue.md(_describe(graph)),
        },
        lambda: [Check("recall", graph.recall >= LEAST_RECALL, {"recall": graph.recall})],
    )


def _describe(graph: NeighborGraph) -> str:
    """How far neighbors are: the spread of the distance to some of them."""
    numbers = [k for k in (1, 5, 15, 50) if k <= graph.n_neighbors]
    distances = pd.DataFrame({f"neighbor {k}": graph.distances[:, k - 1] for k in numbers})
    return str(distances.describe().T[["min", "25%", "50%", "75%", "max"]].to_markdown(floatfmt=".4g"))


def winner_of(trials: pd.DataFrame) -> "pd.Series[str]":
    """The trial that won."""
    return trials[trials["won"]].iloc[0]


def graph_of(table: VectorTable, usable: np.ndarray) -> NeighborGraph:
    """The graph of the usable rows alone, renumbered, as this stage stored it."""
    indices = table.vectors("indices").to_array()
    distances = table.vectors("distances").to_array()
    if usable.all():
        return NeighborGraph(indices, distances, recall=np.nan)
    number = np.cumsum(usable, dtype=np.int32) - 1
    return NeighborGraph(number[indices[usable]].astype(np.int32), distances[usable], recall=np.nan)
