"""Heaps of the nearest points that have been found so far, one for each query; compiled.

A heap is a row of distances whose first is the largest, and each no smaller than its two children. A point that is
nearer than the first takes its place and sinks. Selecting while products of matrices are looked at costs a
comparison for each point, where a threshold, a list of hits and a partial sort of them cost four passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)  # blocks of queries are searched on several threads
def push_nearer(
    squared: NDArray[np.float32],
    queries: NDArray[np.int64],
    start: int,
    distances: NDArray[np.float32],
    positions: NDArray[np.int64],
) -> None:
    """Put points into the heaps of those queries to which they are nearer than the farthest there.

    Parameters
    ----------
    squared
        Squared distances between queries and points, up to a constant for each query, shape
        ``(n_queries, n_points)``.
    queries
        Rows of the heaps, shape ``(n_queries,)``.
    start
        Position of the first point; the others follow.
    distances, positions
        The heaps, shape ``(n_heaps, k)``; changed.
    """
    for i in range(len(queries)):
        query = queries[i]
        farthest = distances[query, 0]
        for j in range(squared.shape[1]):
            if squared[i, j] < farthest:
                _replace_first(distances[query], positions[query], squared[i, j], start + j)
                farthest = distances[query, 0]


@numba.njit(cache=True, nogil=True)
def _replace_first(
    distances: NDArray[np.float32], positions: NDArray[np.int64], distance: float, position: int
) -> None:
    """Replace the largest of one heap, and let what replaces it sink to its place."""
    k = len(distances)
    place = 0
    while True:
        child = 2 * place + 1
        if child >= k:
            break
        if child + 1 < k and distances[child + 1] > distances[child]:
            child += 1
        if distances[child] <= distance:
            break
        distances[place], positions[place] = distances[child], positions[child]
        place = child
    distances[place], positions[place] = distance, position
