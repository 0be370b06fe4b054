"""2-D and 3-D maps: UMAP's layout of the shared neighbor graph.

Of many rows a quarter, the landmarks, are laid out, and the others placed between those of their neighbors that
are landmarks: on 416,314 rows this keeps more neighbors together than a layout of all, in a fifth of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.engine import map_ordered
from iv_pipeline.learn.embedding import (
    PLACED_ROWS,
    fuzzy_graph,
    geometric_median,
    lay_out,
    nearness,
    start_from,
)
from iv_pipeline.learn.neighbors import NeighborGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_LANDMARKS = 100_000
LANDMARK_SHARE = 0.25
"""Of 50 neighbors of a row, 12 are landmarks then: about as many as a map keeps together."""


def umap_layouts(
    X: NDArray[np.float32],
    graph: NeighborGraph,
    dimensions: tuple[int, ...] = (2, 3),
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    n_epochs: int | None = None,
    seed: int = 0,
) -> list[NDArray[np.float32]]:
    """Coordinates of all rows, once for each number of dimensions, from one fuzzy graph.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``; its first columns, the leading components, start the layout.
    graph
        Neighbors of the rows of `X`.
    dimensions
        Of the maps.
    n_neighbors
        Neighbors that the map keeps together; the nearest of the graph.
    min_dist
        Least distance of points on the map.
    n_epochs
        Rounds of optimization; None as in `iv_pipeline.learn.embedding.lay_out`.
    seed
        Of the optimization.

    Returns
    -------
    list of numpy.ndarray
        Shape ``(n_rows, d)``, float32, for each `d` in `dimensions`.
    """
    landmarks = choose_landmarks(len(X), seed)
    indices, distances = nearest_landmarks(graph, landmarks, n_neighbors - 1)
    own = np.arange(len(landmarks), dtype=np.int32)[:, None]
    # a row that is its own neighbor has no edge in UMAP's graph: so much for neighbors that are missing
    among = np.where(indices[landmarks] < 0, own, indices[landmarks])
    laid_out = NeighborGraph(among, distances[landmarks], graph.recall)
    fuzzy = fuzzy_graph(laid_out, n_neighbors)

    def draw(i: int) -> NDArray[np.float32]:
        start = start_from(X[landmarks], dimensions[i], seed)
        return lay_out(fuzzy, start, min_dist=min_dist, n_epochs=n_epochs, seed=seed)

    layouts = list(map_ordered(draw, len(dimensions)))  # a layout takes one core
    return [place_between(layout, landmarks, indices, distances, graph) for layout in layouts]


def choose_landmarks(n_rows: int, seed: int = 0) -> NDArray[np.int64]:
    """Rows to lay out, ascending: a share of `LANDMARK_SHARE`, at least `LEAST_LANDMARKS` or all."""
    n_landmarks = max(LEAST_LANDMARKS, int(LANDMARK_SHARE * n_rows))
    if n_landmarks >= n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).permutation(n_rows)[:n_landmarks])


def nearest_landmarks(
    graph: NeighborGraph, landmarks: NDArray[np.int64], n_neighbors: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The nearest landmarks of every row that are among its neighbors.

    Parameters
    ----------
    graph
        Neighbors of every row.
    landmarks
        Rows, ascending, shape ``(n_landmarks,)``.
    n_neighbors
        Landmarks wanted of each row; at most as many as the graph has neighbors.

    Returns
    -------
    indices
        Numbers of the landmarks, nearest first, −1 where there are no more, int32, shape
        ``(n_rows, n_neighbors)``.
    distances
        To them; where there are no more, that of the farthest neighbor.
    """
    n_neighbors = min(n_neighbors, graph.n_neighbors)
    if len(landmarks) == graph.n_rows:
        return graph.indices[:, :n_neighbors], graph.distances[:, :n_neighbors]
    number = np.full(graph.n_rows, -1, np.int32)
    number[landmarks] = np.arange(len(landmarks), dtype=np.int32)
    indices = np.empty((graph.n_rows, n_neighbors), np.int32)
    distances = np.empty((graph.n_rows, n_neighbors), np.float32)
    for begin in range(0, graph.n_rows, PLACED_ROWS):
        rows = slice(begin, begin + PLACED_ROWS)
        numbers, far = number[graph.indices[rows]], graph.distances[rows]
        first = np.argsort(numbers < 0, axis=1, kind="stable")[:, :n_neighbors]
        indices[rows] = np.take_along_axis(numbers, first, axis=1)
        distances[rows] = np.where(indices[rows] < 0, far[:, -1:], np.take_along_axis(far, first, axis=1))
    return indices, distances


def place_between(
    layout: NDArray[np.float32],
    landmarks: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    graph: NeighborGraph,
) -> NDArray[np.float32]:
    """All rows: landmarks where they were laid out, others at the geometric median of their nearest landmarks.

    Rows without a landmark among their neighbors go to the mean place of those neighbors, or of all landmarks.

    Parameters
    ----------
    layout
        Of the landmarks, shape ``(n_landmarks, n_dimensions)``.
    landmarks
        Rows, ascending.
    indices, distances
        From `nearest_landmarks`.
    graph
        Neighbors of every row.
    """
    others = np.setdiff1d(np.arange(graph.n_rows), landmarks, assume_unique=True)
    places = np.empty((graph.n_rows, layout.shape[1]), np.float32)
    places[landmarks] = layout
    if not len(others):
        return places

    def place(chunk: int) -> NDArray[np.float32]:
        rows = others[chunk * PLACED_ROWS : (chunk + 1) * PLACED_ROWS]
        known = indices[rows] >= 0
        weight = np.where(known, nearness(distances[rows]), 0)
        weight[~known.any(axis=1)] = 1  # placed below
        return geometric_median(layout[indices[rows]], weight)

    places[others] = np.concatenate(list(map_ordered(place, -(-len(others) // PLACED_ROWS))))
    lost = np.flatnonzero((indices < 0).all(axis=1) & ~np.isin(np.arange(graph.n_rows), landmarks))
    places[lost] = np.nan
    middle = layout.mean(axis=0)
    for row in lost:  # a few in a million
        around = places[graph.indices[row]]
        around = around[np.isfinite(around).all(axis=1)]
        places[row] = around.mean(axis=0) if len(around) else middle
    return places
