"""Lloyd's algorithm over batches of rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from iv_pipeline.engine import BatchedMatrix, map_rows
from iv_pipeline.learn.precision import product_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray


def lloyd(matrix: BatchedMatrix, centroids: NDArray[Any], max_iter: int = 100) -> NDArray[np.float32]:
    """Lloyd's algorithm over batches: memory does not grow with the rows, and sums do not depend on threads.

    Parameters
    ----------
    matrix
        Shape ``(n_rows, n_features)``, finite.
    centroids
        Where to start, shape ``(n_clusters, n_features)``. A cluster that loses all its rows stays where it is.
    max_iter
        Rounds at most; as in scikit-learn, it ends when the centroids move by less than 1e-4 of the variance.

    Returns
    -------
    numpy.ndarray
        Centroids, shape ``(n_clusters, n_features)``, float32.
    """
    current = centroids.astype(np.float32)
    dtype = product_dtype(matrix.shape[0])
    tolerance = None
    for _ in range(max_iter):
        count = np.zeros(len(current))
        total = np.zeros(current.shape)
        square = 0.0
        for part_count, part_total, part_square in map_rows(partial(_assign, current.astype(dtype)), matrix):
            count += part_count
            total += part_total
            square += part_square
        if tolerance is None:
            mean = total.sum(axis=0) / count.sum()
            variance = (square / count.sum() - np.square(mean).sum()) / current.shape[1]
            tolerance = 1e-4 * max(variance, 0.0)
        moved = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], current)
        shift = float(np.square(moved - current).sum())
        current = moved.astype(np.float32)
        if shift <= tolerance:
            break
    return current


def _assign(
    centroids: NDArray[np.floating[Any]], rows: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Rows of each cluster, their sums, and the sum of all squares, of one batch."""
    points = rows.astype(np.float64)
    distance = points.astype(centroids.dtype, copy=False) @ (-2 * centroids.T)
    distance += np.square(centroids).sum(axis=1)
    one_hot = csr_array(
        (np.ones(len(rows)), distance.argmin(axis=1), np.arange(len(rows) + 1)), shape=distance.shape
    )
    return one_hot.sum(axis=0), one_hot.T @ points, float(np.square(points).sum())
