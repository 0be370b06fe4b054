"""UMAP in its two halves, the fuzzy graph of a neighbour graph and its layout; and places for other rows.

Apart, they allow for what the whole does not: one fuzzy graph for several layouts, one layout of the fuzzy graphs
of several descriptors, added up, and rows that take no part in a layout, placed among their neighbours.
"""

from __future__ import annotations

import importlib
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.learn.precision import to_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iv_pipeline.learn.neighbors import NeighborGraph

LONG_ROWS = 50_000
"""Up to here 200 rounds of optimisation, beyond it 100."""
PLACED_ROWS = 4_096
"""Rows that are placed at once."""
MEDIAN_ROUNDS = 20
SAME_PLACE = 1e-3
"""Distance in an embedding below which two places count as one; its width is about ten."""
_ONE_AT_A_TIME = Lock()
"""Numba's plainest threading layer must not be entered by two threads at once."""
START_WIDTH = 10.0
"""Width that a layout starts from, as in UMAP."""
COARSE = 2.0**-12
"""Grid of edge weights and of starts: differences by rounding on the way there must not reach the optimization."""


def load_libraries() -> None:
    """Import UMAP and scikit-learn, which import each other's parts, before several threads do so at once.

    Of two threads that import modules in a circle one may be given half a module: Python rather risks that than a
    deadlock.
    """
    for name in ("umap.umap_", "sklearn.cluster"):
        importlib.import_module(name)


def fuzzy_graph(X: NDArray[np.float32], graph: NeighborGraph, n_neighbors: int) -> Any:
    """How surely rows are neighbours: UMAP's fuzzy simplicial set.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``.
    graph
        Neighbours of the rows of `X`.
    n_neighbors
        Rows of a neighbourhood, the row itself counted, as in UMAP; the nearest of the graph.

    Returns
    -------
    scipy.sparse.coo_matrix
        Symmetric, shape ``(n_rows, n_rows)``, float32, multiples of `COARSE` in [0, 1].

    Notes
    -----
    McInnes, Healy, Melville 2018.
    """
    from umap.umap_ import fuzzy_simplicial_set

    k = min(n_neighbors - 1, graph.n_neighbors)
    own = np.arange(graph.n_rows, dtype=np.int32)[:, None]
    indices = np.hstack([own, graph.indices[:, :k]])
    distances = np.hstack([np.zeros((graph.n_rows, 1), np.float32), graph.distances[:, :k]])
    with _ONE_AT_A_TIME:
        fuzzy, _, _ = fuzzy_simplicial_set(
            X, k + 1, np.random.RandomState(0), "euclidean", knn_indices=indices, knn_dists=distances
        )
    fuzzy = fuzzy.tocoo()
    fuzzy.data = to_grid(fuzzy.data, COARSE)
    fuzzy.eliminate_zeros()
    return fuzzy


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
        Rounds of optimisation; None for 200 up to `LONG_ROWS` rows and 100 beyond: on 52,000 rows the second
        hundred took the share of 50 neighbours that stay neighbours from 12.3 to 12.9 %, in twice the time.
    seed
        Of the optimisation.

    Returns
    -------
    numpy.ndarray
        Shape of `start`, float32.
    """
    from umap.umap_ import find_ab_params

    from iv_pipeline.learn.layout import optimize_layout

    a, b = (
        round(float(value), 6) for value in find_ab_params(1.0, min_dist)
    )  # fitted, to fewer digits than these
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

    A mean would put a row whose neighbours lie in two clusters between them, where there may be a third.

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
