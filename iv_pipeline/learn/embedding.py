"""UMAP in its two halves, the fuzzy graph of a neighbor graph and its layout; and places for other rows.

Apart, they allow for what the whole does not: one fuzzy graph for several layouts, one layout of the fuzzy graphs
of several descriptors, added up, and rows that take no part in a layout, placed among their neighbors.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from iv_pipeline.learn.precision import to_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iv_pipeline.learn.neighbors import NeighborGraph

LONG_ROWS = 50_000
"""Up to here 200 rounds of optimization, beyond it 100."""
PLACED_ROWS = 4_096
"""Rows that are placed at once."""
MEDIAN_ROUNDS = 20
SAME_PLACE = 1e-3
"""Distance in an embedding below which two places count as one; its width is about ten."""
BISECTIONS = 64
LEAST_SCALE = 1e-3
"""Share of the mean distance below which no scale of a neighborhood falls, as in UMAP."""
START_WIDTH = 10.0
"""Width that a layout starts from, as in UMAP."""
COARSE = 2.0**-12
"""Grid of edge weights and starting coordinates; rounding errors upstream are smaller than it."""


def load_libraries() -> None:
    """Import what compiles and scikit-learn, whose parts import each other, before several threads do so at once.

    Of two threads that import modules in a circle one may be given half a module: Python rather risks that than a
    deadlock.
    """
    for name in ("iv_pipeline.learn.layout", "sklearn.cluster", "sklearn.metrics"):
        importlib.import_module(name)


def fuzzy_graph(graph: NeighborGraph, n_neighbors: int) -> coo_array:
    """How surely rows are neighbors: UMAP's fuzzy simplicial set.

    Parameters
    ----------
    graph
        Neighbors of the rows; a row that is its own neighbor has no edge there.
    n_neighbors
        Rows of a neighborhood, the row itself counted, as in UMAP; the nearest of the graph.

    Returns
    -------
    scipy.sparse.coo_array
        Symmetric, shape ``(n_rows, n_rows)``, float32, multiples of `COARSE` in (0, 1].

    Notes
    -----
    McInnes, Healy, Melville 2018, algorithms 2 and 3, as `umap.umap_.fuzzy_simplicial_set` has them: there the
    scales are float32, and their compilation takes 10 s in every process.
    """
    k = min(n_neighbors - 1, graph.n_neighbors)
    indices, distances = graph.indices[:, :k], graph.distances[:, :k].astype(np.float64)
    own = np.arange(graph.n_rows)[:, None]
    excess = np.maximum(distances - _nearest_apart(distances), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(excess > 0, np.exp(-excess / _scales(excess, distances)), 1)
    rows = np.broadcast_to(own, indices.shape)
    edges = indices != own
    one_way = csr_array((weights[edges], (rows[edges], indices[edges])), shape=2 * (graph.n_rows,))
    both = (one_way + one_way.T - one_way * one_way.T).tocoo()
    both.data = to_grid(both.data, COARSE)
    both.eliminate_zeros()
    return both


def _nearest_apart(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the nearest neighbor that is not in the same place, 0 if all are, shape ``(n_rows, 1)``."""
    apart: NDArray[np.float64] = np.where(distances > 0, distances, np.inf).min(axis=1, keepdims=True)
    apart[np.isinf(apart)] = 0
    return apart


def _scales(excess: NDArray[np.float64], distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale of each row at which its similarities add up to the logarithm of its neighborhood, by bisection.

    Parameters
    ----------
    excess
        Distances beyond the nearest neighbor, shape ``(n_rows, n_neighbors)``.
    distances
        Distances themselves: a scale is at least `LEAST_SCALE` of their mean.

    Returns
    -------
    numpy.ndarray
        Shape ``(n_rows, 1)``.
    """
    target = np.log2(excess.shape[1] + 1)
    low, scale = np.zeros((len(excess), 1)), np.ones((len(excess), 1))
    high = np.full_like(scale, np.inf)
    for _ in range(BISECTIONS):
        too_wide = np.exp(-excess / scale).sum(axis=1, keepdims=True) > target
        high, low = np.where(too_wide, scale, high), np.where(too_wide, low, scale)
        scale = np.where(np.isfinite(high), (low + high) / 2, 2 * low)
    mean = distances.mean(axis=1, keepdims=True)
    least = LEAST_SCALE * np.where(mean > 0, mean, distances.mean())
    scales: NDArray[np.float64] = np.maximum(scale, least)
    return scales


def lay_out(
    fuzzy: Any, start: NDArray[np.float32], *, min_dist: float, n_epochs: int | None = None, seed: int = 0
) -> NDArray[np.float32]:
    """UMAP's layout of a fuzzy graph from a start (see `iv_pipeline.learn.layout`).

    Parameters
    ----------
    fuzzy
        Symmetric sparse matrix, shape ``(n_rows, n_rows)``; only the ratios of its entries matter.
    start
        Shape ``(n_rows, n_dimensions)``, float32.
    min_dist
        Least distance of points.
    n_epochs
        Rounds of optimization; None for 200 up to `LONG_ROWS` rows and 100 beyond: on 52,000 rows the second
        hundred took the share of 50 neighbors that stay neighbors from 12.3 to 12.9 %, in twice the time.
    seed
        Of the optimization.

    Returns
    -------
    numpy.ndarray
        Shape of `start`, float32.
    """
    from iv_pipeline.learn.layout import fit_similarity, optimize_layout

    a, b = fit_similarity(min_dist)
    fuzzy = fuzzy.tocoo()
    fuzzy.sum_duplicates()
    n_epochs = n_epochs or (200 if len(start) < LONG_ROWS else 100)
    return optimize_layout(start, fuzzy, a=a, b=b, n_epochs=n_epochs, seed=seed)


def start_from(X: NDArray[np.float32], n_dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    """The leading columns, each scaled to the width that UMAP starts from, with a little noise.

    Leading principal components are as good a start as a spectral embedding (Kobak, Linderman 2021) and take no
    time.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``; columns that it lacks are filled with noise.
    n_dimensions
        Columns of the start.
    seed
        Of the noise.
    """
    rng = np.random.default_rng(seed)
    start = np.zeros((len(X), n_dimensions))
    width = min(n_dimensions, X.shape[1])
    start[:, :width] = X[:, :width]
    spread = np.ptp(start, axis=0)
    start = START_WIDTH * (start - start.min(axis=0)) / np.where(spread > 0, spread, 1)
    rounded: NDArray[np.float64] = to_grid(start, COARSE) + rng.normal(scale=1e-4, size=start.shape)
    return rounded.astype(np.float32)


def nearness(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse squares of the distances of each row, adding up to 1 (Shepard 1968); shape of `distances`."""
    scaled = distances / np.maximum(
        distances.mean(axis=1, keepdims=True, dtype=np.float64), np.finfo(np.float32).tiny
    )
    weight = 1 / np.maximum(np.square(scaled, dtype=np.float64), 1e-12)
    weight /= weight.sum(axis=1, keepdims=True)
    near: NDArray[np.float32] = weight.astype(np.float32)
    return near


def geometric_median(points: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row, the place from which the weighted distances to its points add up to least (Weiszfeld 1937).

    A mean would put a row whose neighbors lie in two clusters between them, where there may be a third.

    Parameters
    ----------
    points
        Shape ``(n_rows, n_points, n_dimensions)``.
    weight
        Shape ``(n_rows, n_points)``, not negative, not all 0 in any row.

    Returns
    -------
    numpy.ndarray
        After `MEDIAN_ROUNDS` from the mean, shape ``(n_rows, n_dimensions)``, float32.
    """
    points, weight = points.astype(np.float64), weight.astype(np.float64)
    pull = weight / weight.sum(axis=1, keepdims=True)
    place = (pull[:, None, :] @ points)[:, 0]
    for _ in range(MEDIAN_ROUNDS):
        distance = np.linalg.norm(points - place[:, None, :], axis=2)
        pull = weight / np.maximum(distance, SAME_PLACE)
        pull /= pull.sum(axis=1, keepdims=True)
        place = (pull[:, None, :] @ points)[:, 0]
    median: NDArray[np.float32] = place.astype(np.float32)
    return median
