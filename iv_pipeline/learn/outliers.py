"""Outlier scores of a descriptor: four methods, made comparable, and their ensemble.

Neighbor-based methods read the shared graph, whose neighborhoods are wide on purpose: twenty overexposed
frames are each other's neighbors, and only a neighborhood larger than the clump sees that they are far away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import ArrayBatches, BatchedMatrix, map_rows
from iv_pipeline.learn.hierarchy import extract_hdbscan

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.ensemble import IsolationForest

    from iv_pipeline.learn.hierarchy import Hierarchy
    from iv_pipeline.learn.neighbors import NeighborGraph

METHODS = ("isolation_forest", "knn_distance", "lof", "glosh")
HALF_SCORE_DEVIATIONS = 3.0
"""Robust standard deviations above the median at which a score reaches one half."""


def score_outliers(
    X: NDArray[np.float32],
    graph: NeighborGraph,
    hierarchy: Hierarchy,
    seed: int = 0,
    stored: BatchedMatrix | None = None,
) -> dict[str, NDArray[np.float32]]:
    """A score in [0, 1] of each row by each of `METHODS`, and their mean as ``score``.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``, float32, finite.
    graph, hierarchy
        Of the rows of `X`.
    seed
        Of the isolation forest.
    stored
        The rows of `X` where they are stored, so that workers elsewhere need not be sent them.

    Returns
    -------
    dict of str to numpy.ndarray
        Each of shape ``(n_rows,)``, float32.
    """
    min_cluster_size = max(5, graph.n_neighbors // 2)
    raw = {
        "isolation_forest": isolation_scores(X, seed, stored),
        "knn_distance": graph.distances.mean(axis=1, dtype=np.float64),
        "lof": local_outlier_factor(graph),
        "glosh": extract_hdbscan(hierarchy, min_cluster_size)[1],
    }
    scores = {name: unify(raw[name]) for name in METHODS}
    return {**scores, "score": np.stack(list(scores.values())).mean(axis=0)}


def isolation_scores(
    X: NDArray[np.float32], seed: int = 0, stored: BatchedMatrix | None = None
) -> NDArray[np.float64]:
    """How few random splits isolate a row (Liu, Ting, Zhou 2008), in (0, 1], shape ``(n_rows,)``."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=100, random_state=seed).fit(X)
    scores = map_rows(partial(_isolate, forest), stored or ArrayBatches(X))
    return np.asarray(np.concatenate(list(scores)), np.float64)


def _isolate(forest: IsolationForest, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = -forest.score_samples(rows) if len(rows) else np.empty(0)
    return scores


def local_outlier_factor(graph: NeighborGraph) -> NDArray[np.float64]:
    """Local outlier factor (Breunig et al. 2000) with the graph's neighborhoods, shape ``(n_rows,)``.

    As in `sklearn.neighbors.LocalOutlierFactor`, with the sign turned: about 1 inside a cluster, larger outside.
    """
    k_distance = graph.distances[:, -1]
    reach = np.maximum(graph.distances, k_distance[graph.indices])
    density = 1 / (reach.mean(axis=1, dtype=np.float64) + 1e-10)
    factor: NDArray[np.float64] = density[graph.indices].mean(axis=1) / density
    return factor


@dataclass(frozen=True)
class Unifier:
    """Scores of any scale as scores in [0, 1) that methods share, in the same order.

    Robust deviations `z` above the median map to ``z / (z + 3)``, so that 0 is "not above the middle" and one
    half "three deviations out"; unlike Gaussian scaling (Kriegel et al. 2011) it never saturates.

    Attributes
    ----------
    middle, spread
        Median and robust standard deviation of the scores that it was fitted on.
    """

    middle: float
    spread: float

    @classmethod
    def fit(cls, raw: NDArray[np.floating[Any]]) -> Unifier:
        """Learn the scale of `raw`, shape ``(n_rows,)``."""
        values = np.asarray(raw, np.float64)
        middle = float(np.median(values))
        spread = float(1.4826 * np.median(np.abs(values - middle)))
        return cls(middle, spread if spread > 0 else float(values.std()) or 1.0)

    def __call__(self, raw: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Scores of the shape of `raw`."""
        with np.errstate(over="ignore"):  # a spread next to nothing puts all else infinitely far out
            z = np.maximum((np.asarray(raw, np.float64) - self.middle) / self.spread, 0)
        unified: NDArray[np.float32] = (1 - HALF_SCORE_DEVIATIONS / (z + HALF_SCORE_DEVIATIONS)).astype(
            np.float32
        )
        return unified


def unify(raw: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Scores of any scale as scores in [0, 1), by their own scale (see `Unifier`)."""
    return Unifier.fit(raw)(raw)


def flag(scores: NDArray[np.float32], contamination: float) -> NDArray[np.bool_]:
    """The highest scores, up to the share `contamination`, shape ``(n_rows,)``; ties at the edge are left out."""
    n_flagged = int(contamination * len(scores))
    if n_flagged == 0:
        return np.zeros(len(scores), dtype=bool)
    edge = np.partition(scores, len(scores) - n_flagged - 1)[len(scores) - n_flagged - 1]
    return np.asarray(scores > edge)
