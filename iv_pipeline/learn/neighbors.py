"""The k-nearest-neighbor graph that density clustering, outliers and projections share.

Up to `EXACT_ROWS` rows it is found exactly; beyond that by way of cells (`iv_pipeline.learn.cells`), as many of
which are looked into as the recall takes. Recall against exact search on other rows is measured at every run
and kept with the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import n_workers
from iv_pipeline.errors import InputError
from iv_pipeline.learn.cells import Cells, Reach, fit_cells, sorted_by_difference
from iv_pipeline.learn.precision import REPRODUCIBLE_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT_ROWS = REPRODUCIBLE_ROWS
"""Up to here all pairs are compared: less than building cells would cost, and no recall to lose."""
SPARE_NEIGHBORS = 8
"""Candidates beyond those asked for that float32 distances are ranked by; float64 distances rank them anew."""
RECALL_QUERIES = 1_000
"""Rows whose exact neighbors say how many cells to look into, and as many that say how well it went."""
RECALL_NEIGHBORS = 15
RECALL_AIM = 0.965


@dataclass(frozen=True)
class NeighborGraph:
    """Nearest neighbors of every row, itself not counted.

    Attributes
    ----------
    indices
        Shape ``(n_rows, n_neighbors)``, int32, nearest first.
    distances
        Euclidean, shape ``(n_rows, n_neighbors)``, float32.
    recall
        Share of the `RECALL_NEIGHBORS` nearest neighbors found, measured on a sample of rows; 1.0 for exact
        search.
    n_cells, n_probes
        Cells, and how many of them each row looked into; 1 and 1 for exact search.
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]
    recall: float
    n_cells: int = 1
    n_probes: int = 1

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.indices)

    @property
    def n_neighbors(self) -> int:
        """Neighbors of each row."""
        return int(self.indices.shape[1])

    def core_distances(self, min_samples: int) -> NDArray[np.float32]:
        """Distance to the neighbor number `min_samples` (the row itself not counted), shape ``(n_rows,)``."""
        return self.distances[:, min(min_samples, self.n_neighbors) - 1]


def neighbor_graph(X: NDArray[np.float32], n_neighbors: int, seed: int = 0) -> NeighborGraph:
    """Find the nearest neighbors of every row.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``, float32, finite.
    n_neighbors
        Neighbors of each row, itself not counted; fewer if there are not as many rows.
    seed
        Of the cells and of the rows whose recall is measured.

    Raises
    ------
    InputError
        If there are fewer than two rows.
    """
    if len(X) < 2:
        raise InputError(f"neighbors need two usable rows, here {len(X)} are usable")
    n_neighbors = min(n_neighbors, len(X) - 1)
    if len(X) <= EXACT_ROWS:
        return _exact_graph(X, n_neighbors)
    cells, reach, (judged, truth) = tune_cells(X, seed)
    indices, distances = cells.search(X, n_neighbors + 1, reach)
    kept = _not_self(indices, np.arange(len(X)))
    indices, distances = indices[kept].reshape(len(X), -1), distances[kept].reshape(len(X), -1)
    recall = recall_of(truth, indices[judged])
    return NeighborGraph(indices, distances, recall, cells.n_cells, reach.n_probes)


def tune_cells(
    X: NDArray[np.float32], seed: int = 0
) -> tuple[Cells, Reach, tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Cells of the rows, how far to look, and rows with their exact neighbors to judge it by.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``, float32, finite; more rows than `RECALL_NEIGHBORS`.
    seed
        Of the cells and of the rows.

    Returns
    -------
    cells
        Of all rows.
    reach
        Of `RECALL_AIM` of the neighbors of sampled rows.
    judges
        Other rows, and their `RECALL_NEIGHBORS` nearest neighbors.
    """
    cells = fit_cells(X, seed)
    n_each = min(RECALL_QUERIES, len(X) // 2)
    rows = np.random.default_rng(seed).choice(len(X), 2 * n_each, replace=False)
    found = nearest(X[rows], X, min(RECALL_NEIGHBORS + 1, len(X)))
    truth = without_self(found, rows)
    reach = cells.reach_for(X[rows[:n_each]], truth[:n_each], RECALL_AIM)
    return cells, reach, (rows[n_each:], truth[n_each:])


class NeighborSearch:
    """Nearest points of rows that are none of the points: exact for few points, by way of cells for many.

    Parameters
    ----------
    X
        The points, shape ``(n_points, n_features)``, float32, finite.
    seed
        Of the cells and of the points that say how many to look into.
    reproducible
        Whether to measure few points in float64, so that near ties do not depend on the processor; it takes ten
        times as long.
    """

    def __init__(self, X: NDArray[np.float32], seed: int = 0, *, reproducible: bool = True) -> None:
        self._n_points = len(X)
        self._points = X if len(X) <= EXACT_ROWS and reproducible else None
        if len(X) <= EXACT_ROWS:
            self._cells = fit_cells(X, seed)
            self._reach = Reach(self._cells.n_cells, self._cells.n_cells)
        else:
            self._cells, self._reach, _ = tune_cells(X, seed)

    def __call__(self, X: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Indices and distances of the points nearest to each row, ``(n_rows, min(k, n_points))``."""
        k = min(k, self._n_points)
        if self._points is None:
            return self._cells.search(X, k, self._reach)
        found, _ = self._cells.search(X, min(k + SPARE_NEIGHBORS, self._n_points), self._reach)
        return _nearest_of(found, X, self._points, k)


def nearest(queries: NDArray[np.float32], points: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """The `k` points nearest to each query by exact search, shape ``(n_queries, k)``, nearest first."""
    return _search(queries, points, k)[0]


def _search(
    queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Indices and distances of the `k` points nearest to each query, by exact search."""
    import faiss

    faiss.omp_set_num_threads(n_workers())
    # float32 norms cancel where points lie far from the origin: move it to their middle
    middle = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, indices = faiss.knn(
        np.ascontiguousarray(queries - middle),
        np.ascontiguousarray(points - middle),
        min(k + SPARE_NEIGHBORS, len(points)),
    )
    return _nearest_of(indices.astype(np.int32), queries, points, k)


def _nearest_of(
    candidates: NDArray[np.int32], queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The nearest `k` of some candidates of each query by distances in float64, of equally near ones the first."""
    ordered = np.sort(candidates, axis=1)  # the order of near ties depends on the processor
    found, apart = sorted_by_difference(queries, points, ordered, np.float64)
    return found[:, :k], apart[:, :k]


def recall_of(truth: NDArray[np.integer[Any]], found: NDArray[np.integer[Any]]) -> float:
    """Share of the true neighbors among as many that were found."""
    judged = found[:, : truth.shape[1]]
    judged_truth = truth[:, : judged.shape[1]]
    return float(np.mean([np.isin(t, f).mean() for t, f in zip(judged_truth, judged, strict=True)]))


def _exact_graph(X: NDArray[np.float32], n_neighbors: int) -> NeighborGraph:
    indices, distances = _search(X, X, n_neighbors + 1)
    kept = _not_self(indices, np.arange(len(X)))
    return NeighborGraph(indices[kept].reshape(len(X), -1), distances[kept].reshape(len(X), -1), recall=1.0)


def without_self(indices: NDArray[Any], rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """What was found for each row but the row itself, or but the farthest where duplicates crowded it out."""
    return indices[_not_self(indices, rows)].reshape(len(indices), -1)


def _not_self(indices: NDArray[np.int32], rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """All but each row itself, or but the farthest one where duplicates crowded it out."""
    is_self = indices == rows[:, None]
    drop = np.where(is_self.any(axis=1), is_self.argmax(axis=1), indices.shape[1] - 1)
    keep = np.ones(indices.shape, dtype=bool)
    keep[np.arange(len(indices)), drop] = False
    return keep
