"""Near points by way of cells: k-means cells, and a product of matrices between each cell and those near it.

The queries of one cell look into the same cells, so that their distances are one matrix product, which runs at
the speed of the processor where an inverted file that looks query by query runs at the speed of memory. How many
cells it takes follows from a sample: of the true neighbours of its rows it is known in which cells they lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import blas_threads, map_ordered, n_workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

CELL_ROWS = 400
"""Rows of a cell on average: enough for fast products, few enough that cells are small."""
TRAINING_ROWS_PER_CELL = 40
TRAINING_ROUNDS = 6
QUERY_ROWS = 512
"""Queries multiplied at once; their distances to a block of points fit a core's cache."""
FIRST_POINTS = 1_600
"""Points of the nearest cells, whose best bound what is worth looking at in the others."""
BLOCK_POINTS = 1_200
ASSIGN_ROWS = 8192
DIFFERENCE_BYTES = 2**24


@dataclass(frozen=True)
class Cells:
    """Points sorted by the cell that they lie in.

    Attributes
    ----------
    middle
        Subtracted from everything, shape ``(n_features,)``, float32: norms of points far from the origin cancel.
    centroids
        Of the cells, shape ``(n_cells, n_features)``, float32.
    starts
        Where each cell begins among the points, and where the last one ends, shape ``(n_cells + 1,)``, int64.
    rows
        Row that each point was, shape ``(n_points,)``, int32.
    points
        Sorted, with their squared norm behind, shape ``(n_points, n_features + 1)``, float32.
    """

    middle: NDArray[np.float32]
    centroids: NDArray[np.float32]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    points: NDArray[np.float32]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.centroids)

    def assign(self, X: NDArray[np.float32]) -> NDArray[np.int32]:
        """The cell of each row, that of the nearest centroid, shape ``(n_rows,)``."""
        return _assign(X, self.middle, self.centroids)

    def near(self, cell: int) -> NDArray[np.int64]:
        """All cells by the distance of their centroids from that of `cell`, itself first."""
        distance = np.square(self.centroids - self.centroids[cell]).sum(axis=1)
        return np.argsort(distance, kind="stable")

    def probes_for(self, X: NDArray[np.float32], neighbors: NDArray[np.integer[Any]], share: float) -> int:
        """How many cells hold a share of the true neighbours of some rows.

        Parameters
        ----------
        X
            The rows, shape ``(n_rows, n_features)``.
        neighbors
            Rows of their true neighbours among the points, shape ``(n_rows, k)``.
        share
            To be found.
        """
        cells = np.empty(len(self.rows), np.int32)
        cells[self.rows] = np.repeat(np.arange(self.n_cells), np.diff(self.starts))
        home = self.assign(X)
        ranks = np.empty(neighbors.shape, np.int64)
        for own in np.unique(home):
            place = np.empty(self.n_cells, np.int64)
            place[self.near(own)] = np.arange(self.n_cells)
            ranks[home == own] = place[cells[neighbors[home == own]]]
        return int(np.sort(ranks, axis=None)[int(np.ceil(share * ranks.size)) - 1]) + 1

    def search(
        self, X: NDArray[np.float32], k: int, n_probes: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The `k` nearest points of each row that lie in the cells near its own.

        Parameters
        ----------
        X
            Shape ``(n_rows, n_features)``, float32, finite.
        k
            At most the number of points.
        n_probes
            Cells to look into; more where those hold fewer than `k` points.

        Returns
        -------
        indices
            Rows of the points, nearest first, shape ``(n_rows, k)``, int32.
        distances
            Euclidean, from differences, so that equal points are exactly 0 apart; float32.
        """
        indices = np.empty((len(X), k), np.int32)
        distances = np.empty((len(X), k), np.float32)
        home = self.assign(X)
        order = np.argsort(home, kind="stable")
        ends = np.searchsorted(home[order], np.arange(self.n_cells + 1))
        groups = [
            (cell, order[begin : min(begin + QUERY_ROWS, ends[cell + 1])])
            for cell in range(self.n_cells)
            for begin in range(ends[cell], ends[cell + 1], QUERY_ROWS)
        ]

        def search(i: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            cell, queries = groups[i]
            return self._search_together(X[queries] - self.middle, cell, k, n_probes)

        with blas_threads(1):  # groups are searched side by side
            for (_, queries), (found, apart) in zip(groups, map_ordered(search, len(groups)), strict=True):
                indices[queries] = self.rows[found]
                distances[queries] = apart
        return indices, distances

    def _search_together(
        self, queries: NDArray[np.float32], cell: int, k: int, n_probes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and distances of the points nearest to queries that share a cell."""
        near = self.near(cell)
        sizes = np.cumsum(self.starts[near + 1] - self.starts[near])
        enough = int(np.searchsorted(sizes, k)) + 1
        first = max(enough, min(n_probes, int(np.searchsorted(sizes, FIRST_POINTS)) + 1))
        # |q - p|² less |q|² is one product: (-2 q, 1) · (p, |p|²)
        doubled = np.hstack([-2 * queries, np.ones((len(queries), 1), np.float32)])
        positions, points = self._gather(near[:first])
        squared = doubled @ points.T
        best = np.argpartition(squared, k - 1, axis=1)[:, :k]
        bound = np.take_along_axis(squared, best, axis=1)
        best = positions[best]
        limit = bound.max(axis=1, keepdims=True)
        hits = [_below(doubled, limit, *self._gather(block)) for block in self._blocks(near[first:n_probes])]
        if hits:
            best = _best_of(best, bound, hits)
        return _by_difference(queries, self.points, best)

    def _blocks(self, cells: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Cells in runs of about `BLOCK_POINTS` points."""
        sizes = np.cumsum(self.starts[cells + 1] - self.starts[cells])
        return iter(np.split(cells, np.flatnonzero(np.diff(sizes // BLOCK_POINTS)) + 1) if len(cells) else [])

    def _gather(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and points of some cells."""
        spans = [(self.starts[c], self.starts[c + 1]) for c in cells]
        positions = np.concatenate([np.arange(*span) for span in spans])
        return positions, np.concatenate([self.points[slice(*span)] for span in spans])


def fit_cells(X: NDArray[np.float32], seed: int = 0) -> Cells:
    """Sort rows into cells of about `CELL_ROWS`.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``, float32, finite.
    seed
        Of the cells' centroids.
    """
    import faiss

    faiss.omp_set_num_threads(n_workers())
    n_rows, n_features = X.shape
    n_cells = max(1, n_rows // CELL_ROWS)
    middle = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(n_rows, min(n_rows, n_cells * TRAINING_ROWS_PER_CELL), replace=False))
    kmeans = faiss.Kmeans(
        n_features, n_cells, niter=TRAINING_ROUNDS, seed=seed + 1, min_points_per_centroid=1
    )
    kmeans.train(X[chosen] - middle)
    centroids = np.asarray(kmeans.centroids, np.float32)
    home = _assign(X, middle, centroids)
    order = np.argsort(home, kind="stable").astype(np.int32)
    points = np.empty((n_rows, n_features + 1), np.float32)
    for begin in range(0, n_rows, ASSIGN_ROWS):
        part = slice(begin, begin + ASSIGN_ROWS)
        points[part, :-1] = X[order[part]] - middle
        points[part, -1] = np.square(points[part, :-1]).sum(axis=1)
    starts = np.searchsorted(home[order], np.arange(n_cells + 1))
    return Cells(middle, centroids, starts, order, points)


def _assign(
    X: NDArray[np.float32], middle: NDArray[np.float32], centroids: NDArray[np.float32]
) -> NDArray[np.int32]:
    norms = np.square(centroids).sum(axis=1)
    doubled = np.ascontiguousarray(-2 * centroids.T)

    def assign(i: int) -> NDArray[np.int32]:
        rows = X[i * ASSIGN_ROWS : (i + 1) * ASSIGN_ROWS] - middle
        return np.asarray((rows @ doubled + norms).argmin(axis=1), np.int32)

    with blas_threads(1):
        parts = list(map_ordered(assign, -(-len(X) // ASSIGN_ROWS)))
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _below(
    doubled: NDArray[np.float32],
    limit: NDArray[np.float32],
    positions: NDArray[np.int64],
    points: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Queries, positions and squared distances of the pairs nearer than each query's limit."""
    squared = doubled @ points.T
    hits = np.flatnonzero(squared < limit)
    queries, columns = np.divmod(hits, len(points))
    return queries, positions[columns], squared.ravel()[hits]


def _best_of(
    best: NDArray[np.int64],
    bound: NDArray[np.float32],
    hits: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]],
) -> NDArray[np.int64]:
    """The best positions of each query, among those that it has and those that were hit."""
    queries, positions, squared = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    order = np.argsort(queries, kind="stable")
    queries = queries[order]
    counts = np.bincount(queries, minlength=len(best))
    column = np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts, counts)
    k = best.shape[1]
    width = k + int(counts.max(initial=0))
    candidates = np.zeros((len(best), width), np.int64)
    values = np.full((len(best), width), np.inf, np.float32)
    candidates[:, :k], values[:, :k] = best, bound
    candidates[queries, k + column], values[queries, k + column] = positions[order], squared[order]
    kept = np.argpartition(values, k - 1, axis=1)[:, :k]
    return np.take_along_axis(candidates, kept, axis=1)


def _by_difference(
    queries: NDArray[np.float32], points: NDArray[np.float32], found: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What was found, nearest first by the length of differences."""
    apart = np.empty(found.shape, np.float32)
    chunk = max(1, DIFFERENCE_BYTES // (4 * found.shape[1] * points.shape[1]))
    for begin in range(0, len(queries), chunk):
        part = slice(begin, begin + chunk)
        difference = points[found[part], :-1] - queries[part, None]
        apart[part] = np.sqrt(np.einsum("nkd,nkd->nk", difference, difference))
    order = np.argsort(apart, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(apart, order, axis=1)
