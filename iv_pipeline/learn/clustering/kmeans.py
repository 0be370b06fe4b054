"""KMeans and MiniBatchKMeans, scikit-learn's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from iv_pipeline.engine import BatchedMatrix, map_rows
from iv_pipeline.learn.clustering.base import Clustering, PrototypeModel, Space, require_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DETERMINISTIC_THREADS = 2
"""Lloyd's partial sums are added in the order in which threads finish: two of them add up the same either way."""

SAMPLE_ROWS = 50_000
"""Up to here scikit-learn fits all rows at once; beyond, it finds the start on so many and batches do the rest."""


class KMeans:
    """Lloyd's algorithm from several k-means++ starts."""

    name = "kmeans"

    def grid(self, n_clusters: tuple[int, ...]) -> list[dict[str, Any]]:
        """Every number of clusters."""
        return [{"n_clusters": k} for k in n_clusters]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cluster the rows of `space`."""
        from sklearn.cluster import KMeans as Estimator

        n_clusters = parameters["n_clusters"]
        require_rows(space, n_clusters)
        centroids: NDArray[Any] | None = space.start(n_clusters)
        if centroids is None:
            with threadpool_limits(DETERMINISTIC_THREADS, user_api="openmp"):
                estimator = Estimator(n_clusters, n_init=4, random_state=space.seed).fit(sample_rows(space))
            centroids = estimator.cluster_centers_
            if space.n_rows <= SAMPLE_ROWS:
                return _from_centroids(space, centroids, {"n_clusters": n_clusters})
        centroids = lloyd(space.batches, centroids)
        return _from_centroids(space, centroids, {"n_clusters": n_clusters})


def sample_rows(space: Space) -> NDArray[np.float32]:
    """All rows if they are at most `SAMPLE_ROWS`, so many of them otherwise."""
    if space.n_rows <= SAMPLE_ROWS:
        return space.X
    rows = np.random.default_rng(space.seed).choice(space.n_rows, SAMPLE_ROWS, replace=False)
    return space.X[np.sort(rows)]


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
    """
    current = centroids.astype(np.float32)
    tolerance = None
    for _ in range(max_iter):
        count = np.zeros(len(current))
        total = np.zeros(current.shape)
        square = 0.0
        for part_count, part_total, part_square in map_rows(partial(_assign, current), matrix):
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
    centroids: NDArray[np.float32], rows: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Rows of each cluster, their sums, and the sum of all squares, of one batch."""
    distance = np.square(centroids).sum(axis=1) - 2 * rows @ centroids.T
    one_hot = csr_array(
        (np.ones(len(rows)), distance.argmin(axis=1), np.arange(len(rows) + 1)), shape=distance.shape
    )
    return (
        one_hot.sum(axis=0),
        one_hot.T @ rows.astype(np.float64),
        float(np.square(rows, dtype=np.float64).sum()),
    )


class MiniBatchKMeans:
    """Stochastic k-means: as good a guess in less time."""

    name = "minibatchkmeans"

    def grid(self, n_clusters: tuple[int, ...]) -> list[dict[str, Any]]:
        """The naming budget."""
        return [{"n_clusters": max(n_clusters)}]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cluster the rows of `space`."""
        from sklearn.cluster import MiniBatchKMeans as Estimator

        n_clusters = parameters["n_clusters"]
        require_rows(space, n_clusters)
        start = space.start(n_clusters)
        how: dict[str, Any] = {"n_init": 3} if start is None else {"n_init": 1, "init": start}
        with threadpool_limits(DETERMINISTIC_THREADS, user_api="openmp"):
            estimator = Estimator(n_clusters, batch_size=2048, random_state=space.seed, **how).fit(space.X)
        return _from_centroids(space, estimator.cluster_centers_, {"n_clusters": n_clusters})


def _from_centroids(space: Space, centroids: NDArray[Any], parameters: dict[str, Any]) -> Clustering:
    model = PrototypeModel(centroids.astype(np.float32), np.arange(len(centroids), dtype=np.int32))
    labels, confidence = space.predict(model)
    return Clustering(labels, confidence, parameters, model)
