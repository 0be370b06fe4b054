"""The k-nearest-neighbour graph that density clustering, outliers and projections share.

FAISS searches it: exactly up to `EXACT_ROWS` rows, beyond that through an inverted file, whose recall against
exact search on a sample of rows is measured and kept with the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import n_workers
from iv_pipeline.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

EXACT_ROWS = 20_000
"""Up to here all pairs are compared: less than building an index would cost, and no recall to lose."""
RECALL_QUERIES = 1_000
RECALL_AIM = 0.96
TRAINING_ROWS_PER_CELL = 50
PROBES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Cells to look into, tried in this order until the recall aim is met."""


@dataclass(frozen=True)
class NeighborGraph:
    """Nearest neighbours of every row, itself not counted.

    Attributes
    ----------
    indices
        Shape ``(n_rows, n_neighbors)``, int32, nearest first.
    distances
        Euclidean, shape ``(n_rows, n_neighbors)``, float32.
    recall
        Share of the true neighbours found, measured on a sample of rows; 1.0 for exact search.
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]
    recall: float

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.indices)

    @property
    def n_neighbors(self) -> int:
        """Neighbours of each row."""
        return int(self.indices.shape[1])

    def core_distances(self, min_samples: int) -> NDArray[np.float32]:
        """Distance to the neighbour number `min_samples` (the row itself not counted), shape ``(n_rows,)``."""
        return self.distances[:, min(min_samples, self.n_neighbors) - 1]


def neighbor_graph(X: NDArray[np.float32], n_neighbors: int, seed: int = 0) -> NeighborGraph:
    """Find the nearest neighbours of every row.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``, float32, finite.
    n_neighbors
        Neighbours of each row, itself not counted; fewer if there are not as many rows.
    seed
        Of the inverted file's cells and the rows whose recall is measured.

    Raises
    ------
    InputError
        If there are fewer than two rows.
    """
    if len(X) < 2:
        raise InputError(f"neighbours need two usable rows, here {len(X)} are usable")
    n_neighbors = min(n_neighbors, len(X) - 1)
    if len(X) <= EXACT_ROWS:
        indices = nearest(X, X, n_neighbors + 1)
        kept = _without_self(indices, np.arange(len(X)))
        return _with_distances(X, kept, recall=1.0)
    search, recall = _fit_inverted_file(X, n_neighbors, seed)
    return _with_distances(X, _without_self(search(X), np.arange(len(X))), recall)


def nearest(queries: NDArray[np.float32], points: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """The `k` points nearest to each query by exact search, shape ``(n_queries, k)``, nearest first."""
    import faiss

    faiss.omp_set_num_threads(n_workers())
    # float32 norms cancel where points lie far from the origin: move it to their middle
    middle = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, indices = faiss.knn(
        np.ascontiguousarray(queries - middle), np.ascontiguousarray(points - middle), min(k, len(points))
    )
    found: NDArray[np.int32] = indices.astype(np.int32)
    return found


def _fit_inverted_file(
    X: NDArray[np.float32], n_neighbors: int, seed: int
) -> tuple[Callable[[NDArray[np.float32]], NDArray[np.int32]], float]:
    """A search that probes as many cells as the recall aim takes, and its recall@15 on sampled rows."""
    import faiss

    faiss.omp_set_num_threads(n_workers())
    n_rows, n_features = X.shape
    rng = np.random.default_rng(seed)
    n_cells = int(2 * np.sqrt(n_rows))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(n_features), n_features, n_cells)
    index.cp.seed = seed + 1
    index.cp.niter = 10
    training = rng.choice(n_rows, min(n_rows, n_cells * TRAINING_ROWS_PER_CELL), replace=False)
    training.sort()
    index.train(X[training])
    index.add(X)

    def search(queries: NDArray[np.float32]) -> NDArray[np.int32]:
        found: NDArray[np.int32] = index.search(queries, n_neighbors + 1)[1].astype(np.int32)
        return found

    sample = np.sort(rng.choice(n_rows, RECALL_QUERIES, replace=False))
    judged = min(15, n_neighbors)
    truth = _without_self(nearest(X[sample], X, judged + 1), sample)
    recall = 0.0
    for probes in PROBES:
        index.nprobe = probes
        found = _without_self(search(X[sample]), sample)[:, :judged]
        recall = float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))
        if recall >= RECALL_AIM:
            break
    return search, recall


def _without_self(indices: NDArray[np.int32], rows: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Drop each row from its own neighbours, or the farthest one where duplicates crowded it out."""
    is_self = indices == rows[:, None]
    drop = np.where(is_self.any(axis=1), is_self.argmax(axis=1), indices.shape[1] - 1)
    keep = np.ones(indices.shape, dtype=bool)
    keep[np.arange(len(indices)), drop] = False
    return indices[keep].reshape(len(indices), -1)


def _with_distances(X: NDArray[np.float32], indices: NDArray[np.int32], recall: float) -> NeighborGraph:
    """Distances from differences, not from norms and products, so that duplicates are exactly 0 apart."""
    indices = _fill_gaps(indices)
    distances = np.empty(indices.shape, np.float32)
    chunk = max(1, 2**24 // (indices.shape[1] * X.shape[1]))
    for start in range(0, len(X), chunk):
        rows = slice(start, start + chunk)
        difference = X[indices[rows]] - X[rows, None]
        distances[rows] = np.sqrt(np.einsum("nkd,nkd->nk", difference, difference))
    order = np.argsort(distances, axis=1, kind="stable")
    return NeighborGraph(
        np.take_along_axis(indices, order, axis=1), np.take_along_axis(distances, order, axis=1), recall
    )


def _fill_gaps(indices: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where the probed cells held too few points (marked −1), repeat the farthest neighbour that was found."""
    missing = indices < 0
    if not missing.any():
        return indices
    last = np.maximum((~missing).sum(axis=1) - 1, 0)
    farthest = indices[np.arange(len(indices)), last]
    return np.where(missing, np.maximum(farthest, 0)[:, None], indices).astype(np.int32)
