"""Near points by way of cells: k-means cells, and products of matrices between a cell and all that look into it.

Each query looks into the cells whose centroids are nearest to it. Queries that lie close to each other are
searched together: those that look into the same cell meet its points in one matrix product, which runs at the
speed of the processor, where an inverted file that goes query by query runs at the speed of memory. How many
cells it takes follows from a sample: of the true neighbors of its rows it is known in which cells they lie.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import blas_threads, map_ordered, n_workers

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL_ROWS = 200
"""Rows of a cell on average: few enough that cells are small, enough for fast products."""
GROUP_ROWS = 8_000
"""Rows of a group of cells on average; k-means makes groups first, then the cells within each."""
TRAINING_ROWS = 200
"""Rows of a group that its place is learnt from."""
TRAINING_ROUNDS = 8
BLOCK_QUERIES = 8_192
"""Queries of one group that are searched together."""
FIRST_POINTS = 600
"""Points of the cells nearest to a query's own, whose best bound what is worth keeping of the others."""
HORIZON_SHARE = 0.998
"""Of the neighbors in the probed cells, the share whose cells a block of queries has within its horizon."""
NEARER_PART = 4
"""One of so many parts of a query's cells is looked into first."""
SETTLING_ROUNDS = 1
"""Rounds in which rows move to the nearest of all cells near their group, and cells to their middle."""
SETTLING_CELLS = 1_000
PRODUCT_ENTRIES = 2**23
"""Distances that are looked at at once: a cell of equal points can be any size."""
DIFFERENCE_BYTES = 2**24
CANCELED_SHARE = 0.01
"""Share of a query's square below which a squared distance is made of the difference: too many digits canceled."""


@dataclass(frozen=True)
class Reach:
    """How far to look.

    Attributes
    ----------
    n_probes
        Cells that each query looks into.
    horizon
        Cells near a block of queries among which each query finds its own.
    """

    n_probes: int
    horizon: int


@dataclass(frozen=True)
class Cells:
    """Points sorted by the cell that they lie in.

    Attributes
    ----------
    middle
        Subtracted from everything, shape ``(n_features,)``, float32: norms of points far from the origin cancel.
    groups
        Centroids of the groups, shape ``(n_groups, n_features)``, float32.
    group_starts
        Where the cells of each group begin, and where the last ends, shape ``(n_groups + 1,)``, int64.
    centroids
        Of the cells, shape ``(n_cells, n_features)``, float32.
    starts
        Where the points of each cell begin, and where the last ends, shape ``(n_cells + 1,)``, int64.
    rows
        Row that each point was, shape ``(n_points,)``, int32.
    points
        Sorted, with their squared norm behind, shape ``(n_points, n_features + 1)``, float32.
    """

    middle: NDArray[np.float32]
    groups: NDArray[np.float32]
    group_starts: NDArray[np.int64]
    centroids: NDArray[np.float32]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    points: NDArray[np.float32]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.centroids)

    def assign(self, X: NDArray[np.float32]) -> NDArray[np.int32]:
        """The cell of each row, the nearest of those near its group, shape ``(n_rows,)``."""
        X = X - self.middle
        return _settle(X, _members(X, self.groups), self.groups, self.centroids)

    def reach_for(self, X: NDArray[np.float32], neighbors: NDArray[np.integer[Any]], share: float) -> Reach:
        """How far to look for a share of the true neighbors of some rows.

        Parameters
        ----------
        X
            The rows, shape ``(n_rows, n_features)``.
        neighbors
            Rows of their true neighbors among the points, shape ``(n_rows, k)``.
        share
            To be found.
        """
        cells = np.empty(len(self.rows), np.int32)
        cells[self.rows] = np.repeat(np.arange(self.n_cells), np.diff(self.starts))
        wanted = cells[neighbors]
        own = _ranks(X - self.middle, self.centroids, wanted)
        n_probes = _quantile(own, share)
        group = np.searchsorted(self.group_starts, self.assign(X), side="right") - 1
        of_group = _ranks(self.groups[group], self.centroids, wanted)
        return Reach(n_probes, max(n_probes, _quantile(of_group[own < n_probes], HORIZON_SHARE)))

    def search(
        self, X: NDArray[np.float32], k: int, reach: Reach
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The `k` nearest points of each row that lie in the cells near it.

        Parameters
        ----------
        X
            Shape ``(n_rows, n_features)``, float32, finite.
        k
            At most the number of points.
        reach
            How far to look; farther where the nearest cells hold fewer than `k` points.

        Returns
        -------
        indices
            Rows of the points, nearest first, shape ``(n_rows, k)``, int32.
        distances
            Euclidean, float32; those of near points are of differences, so that equal points are exactly 0 apart.
        """
        indices = np.empty((len(X), k), np.int32)
        distances = np.empty((len(X), k), np.float32)
        home = self.assign(X)
        order = np.argsort(home, kind="stable")
        ends = np.searchsorted(home[order], self.group_starts)
        blocks = [
            order[begin : min(begin + BLOCK_QUERIES, end)]
            for start, end in itertools.pairwise(ends)
            for begin in range(start, end, BLOCK_QUERIES)
        ]

        def search(i: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            return self._search_block(X[blocks[i]] - self.middle, home[blocks[i]], k, reach)

        with blas_threads(1):  # blocks are searched side by side
            for queries, (found, apart) in zip(blocks, map_ordered(search, len(blocks)), strict=True):
                indices[queries] = self.rows[found]
                distances[queries] = apart
        return indices, distances

    def _search_block(
        self, queries: NDArray[np.float32], home: NDArray[np.int32], k: int, reach: Reach
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and distances of the points nearest to queries of one group, sorted by cell."""
        # |q - p|² less |q|² is one product: (-2 q, 1) · (p, |p|²)
        doubled = np.hstack([-2 * queries, np.ones((len(queries), 1), np.float32)])
        group = np.searchsorted(self.group_starts, home[0], side="right") - 1
        near = self._enough(_by_distance(self.groups[group], self.centroids), k, reach.horizon)
        near = np.concatenate([near, np.setdiff1d(home, near)])  # each query's own cell in any case
        best = np.zeros((len(queries), k), np.int64)
        bound = np.full((len(queries), k), np.inf, np.float32)
        nearer, probed = _nearest_few(queries, self.centroids[near], reach.n_probes)
        for own in np.unique(home):
            part = np.arange(*np.searchsorted(home, [own, own + 1]))
            order = _by_distance(self.centroids[own], self.centroids[near])
            first = order[: len(self._enough(near[order], max(k, FIRST_POINTS), 1))]
            for cell in near[first]:
                self._look_into(cell, doubled, part, bound, best)
            nearer[np.ix_(part, first)] = probed[np.ix_(part, first)] = False
        for probes in (nearer, probed):  # what the nearer ones bring spares most of what the others hold
            for cell, those in zip(near, np.ascontiguousarray(probes.T), strict=True):
                self._look_into(cell, doubled, np.flatnonzero(those), bound, best)
        return self._sorted(queries, best, bound)

    def _look_into(
        self,
        cell: np.int64,
        doubled: NDArray[np.float32],
        queries: NDArray[np.int64],
        bound: NDArray[np.float32],
        best: NDArray[np.int64],
    ) -> None:
        """Put the points of a cell into the heaps `bound` and `best` of the queries that look into it."""
        from iv_pipeline.learn.heaps import push_nearer  # numba takes a second to import

        start, end = self.starts[cell : cell + 2]
        if len(queries) and start < end:
            for part in _chunks(queries, end - start):
                push_nearer(doubled[part] @ self.points[start:end].T, part, start, bound, best)

    def _sorted(
        self, queries: NDArray[np.float32], best: NDArray[np.int64], bound: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions of the best of each query, nearest first, and how far they are.

        Where most of a squared distance from norms and products has canceled, it is that of the difference.
        """
        norm = np.square(queries).sum(axis=1, keepdims=True)
        squared = np.maximum(bound + norm, 0)
        canceled = np.argwhere(squared < CANCELED_SHARE * norm)
        step = max(1, DIFFERENCE_BYTES // queries[0].nbytes)
        for begin in range(0, len(canceled), step):
            row, column = canceled[begin : begin + step].T
            difference = self.points[best[row, column], :-1] - queries[row]
            squared[row, column] = np.einsum("nd,nd->n", difference, difference)
        order = np.argsort(squared, axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1), np.sqrt(np.take_along_axis(squared, order, axis=1))

    def _enough(self, cells: NDArray[np.int64], n_points: int, n_cells: int) -> NDArray[np.int64]:
        """The first of `cells`: at least `n_cells` of them, and so many that they hold `n_points` points."""
        sizes = np.cumsum(self.starts[cells + 1] - self.starts[cells])
        return cells[: max(n_cells, int(np.searchsorted(sizes, n_points)) + 1)]


def fit_cells(X: NDArray[np.float32], seed: int = 0) -> Cells:
    """Sort rows into groups of about `GROUP_ROWS`, and into cells of about `CELL_ROWS` within each.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``, float32, finite.
    seed
        Of the centroids.
    """
    n_rows = len(X)
    middle = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    n_groups = max(1, n_rows // GROUP_ROWS)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(n_rows, min(n_rows, n_groups * TRAINING_ROWS), replace=False))
    groups = _centroids(X[chosen] - middle, n_groups, seed)
    X = X - middle
    members = _members(X, groups)
    parts = [_centroids(X[rows], max(1, len(rows) // CELL_ROWS), seed) for rows in members]
    group_starts = np.cumsum([0, *map(len, parts)])
    centroids = np.concatenate(parts)
    for _ in range(SETTLING_ROUNDS):
        centroids = _means(X, _settle(X, members, groups, centroids), centroids)
    home = _settle(X, members, groups, centroids)
    rows = np.argsort(home, kind="stable").astype(np.int32)
    starts = np.searchsorted(home[rows], np.arange(len(centroids) + 1))
    points = np.empty((n_rows, X.shape[1] + 1), np.float32)

    def fill(i: int) -> None:
        part = slice(i * BLOCK_QUERIES, (i + 1) * BLOCK_QUERIES)
        points[part, :-1] = X[rows[part]]
        points[part, -1] = np.square(points[part, :-1]).sum(axis=1)

    list(map_ordered(fill, -(-n_rows // BLOCK_QUERIES)))
    return Cells(middle, groups, group_starts, centroids, starts, rows, points)


def _members(X: NDArray[np.float32], groups: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """The rows of each group, ascending."""
    group = _nearest(X, groups)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.searchsorted(group[order], np.arange(1, len(groups))))


def _settle(
    X: NDArray[np.float32],
    members: list[NDArray[np.int64]],
    groups: NDArray[np.float32],
    centroids: NDArray[np.float32],
) -> NDArray[np.int32]:
    """The cell of each row: the nearest of the `SETTLING_CELLS` nearest to its group."""
    home = np.empty(len(X), np.int32)

    def settle(g: int) -> None:
        near = _by_distance(groups[g], centroids)[:SETTLING_CELLS]
        for rows in np.split(members[g], range(BLOCK_QUERIES, len(members[g]), BLOCK_QUERIES)):
            home[rows] = near[_squared(X[rows], centroids[near]).argmin(axis=1)]

    with blas_threads(1):
        list(map_ordered(settle, len(members)))
    return home


def _means(
    X: NDArray[np.float32], home: NDArray[np.int32], otherwise: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The mean of the rows of each cell; what it was where there are none."""
    order = np.argsort(home, kind="stable")
    starts = np.searchsorted(home[order], np.arange(len(otherwise) + 1))

    def mean(cell: int) -> NDArray[np.float32]:
        rows = order[starts[cell] : starts[cell + 1]]
        middle: NDArray[np.float32] = X[rows].mean(axis=0) if len(rows) else otherwise[cell]
        return middle

    return np.stack(list(map_ordered(mean, len(otherwise))))


def _centroids(X: NDArray[np.float32], n: int, seed: int) -> NDArray[np.float32]:
    """`n` centroids of k-means; the origin where there is nothing."""
    if n >= len(X):
        return X.copy() if len(X) else np.zeros((1, X.shape[1]), np.float32)
    import faiss

    faiss.omp_set_num_threads(n_workers())
    kmeans = faiss.Kmeans(
        X.shape[1],
        n,
        niter=TRAINING_ROUNDS,
        seed=seed + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=2**30,
    )
    kmeans.train(np.ascontiguousarray(X))
    return np.asarray(kmeans.centroids, np.float32)


def _nearest(X: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int32]:
    """The nearest centroid of each row, shape ``(n_rows,)``."""

    def nearest(i: int) -> NDArray[np.int32]:
        rows = X[i * BLOCK_QUERIES : (i + 1) * BLOCK_QUERIES]
        return np.asarray(_squared(rows, centroids).argmin(axis=1), np.int32)

    with blas_threads(1):
        parts = list(map_ordered(nearest, -(-len(X) // BLOCK_QUERIES)))
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _chunks(queries: NDArray[Any], n_points: int) -> list[NDArray[Any]]:
    """Queries in parts whose distances to so many points have at most `PRODUCT_ENTRIES` entries."""
    step = max(1, PRODUCT_ENTRIES // n_points)
    return [queries[begin : begin + step] for begin in range(0, len(queries), step)]


def _squared(points: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances, less the square of each point, which no comparison of centroids needs."""
    squared: NDArray[np.float32] = points @ (-2 * centroids.T)
    squared += np.square(centroids).sum(axis=1)
    return squared


def _by_distance(point: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.argsort(np.square(centroids - point).sum(axis=1), kind="stable")


def _nearest_few(
    queries: NDArray[np.float32], centroids: NDArray[np.float32], n: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which centroids are nearest to each query, and which come next up to `n`, ``(n_queries, n_centroids)``."""
    squared = _squared(queries, centroids)
    n = min(n, len(centroids))
    few = max(n // NEARER_PART, 1)
    limits = np.partition(squared, [few - 1, n - 1], axis=1)[:, [few - 1, n - 1], None]
    nearer = squared <= limits[:, 0]
    return nearer, (squared <= limits[:, 1]) & ~nearer


def _ranks(
    points: NDArray[np.float32], centroids: NDArray[np.float32], wanted: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """How many centroids are nearer to each point than the wanted ones are, shape of `wanted`."""
    ranks = np.empty(wanted.shape, np.int64)
    for begin in range(0, len(points), 64):
        part = slice(begin, begin + 64)
        place = (
            _squared(points[part], centroids).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        )
        ranks[part] = np.take_along_axis(place, wanted[part], axis=1)
    return ranks


def _quantile(ranks: NDArray[np.int64], share: float) -> int:
    """So many cells that a share of the ranks lies among them."""
    return int(np.sort(ranks, axis=None)[int(np.ceil(share * ranks.size)) - 1]) + 1


def sorted_by_difference(
    queries: NDArray[np.float32],
    points: NDArray[np.float32],
    found: NDArray[np.integer[Any]],
    dtype: type[np.floating[Any]] = np.float32,
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """What was found for each query, nearest first, and how far it is.

    Distances are lengths of differences: those from norms and products are not exactly 0 between equal points.

    Parameters
    ----------
    queries
        Shape ``(n_queries, n_features)``.
    points
        Shape ``(n_points, n_features)``.
    found
        Positions of points, shape ``(n_queries, k)``.
    dtype
        Type of the differences; distances are float32.
    """
    apart = np.empty(found.shape, np.float32)
    row_bytes = max(1, np.dtype(dtype).itemsize * found.shape[1] * points.shape[1])
    chunk = max(1, DIFFERENCE_BYTES // row_bytes)
    for begin in range(0, len(queries), chunk):
        part = slice(begin, begin + chunk)
        difference = np.subtract(points[found[part]], queries[part, None], dtype=dtype)
        apart[part] = np.sqrt(np.einsum("nkd,nkd->nk", difference, difference))
    order = np.argsort(apart, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(apart, order, axis=1)
