"""KMeans and MiniBatchKMeans, scikit-learn's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from iv_pipeline.learn.clustering.base import Clustering, PrototypeModel, Space
from iv_pipeline.learn.clustering.lloyd import lloyd
from iv_pipeline.learn.precision import product_dtype

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

    def grid(self, n_clusters: int) -> list[dict[str, Any]]:
        """The naming budget."""
        return [{"n_clusters": n_clusters}]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cluster the rows of `space`."""
        from sklearn.cluster import KMeans as Estimator

        n_clusters = parameters["n_clusters"]
        centroids: NDArray[Any] | None = space.start(n_clusters)
        if centroids is None:
            with threadpool_limits(DETERMINISTIC_THREADS, user_api="openmp"):
                estimator = Estimator(n_clusters, n_init=4, random_state=space.seed).fit(sample_rows(space))
            centroids = estimator.cluster_centers_
            if space.n_rows <= SAMPLE_ROWS:
                return _from_centroids(space, centroids, {"n_clusters": n_clusters})
        centroids = lloyd(space.batches, centroids)
        return _from_centroids(space, centroids, {"n_clusters": n_clusters})


def sample_rows(space: Space) -> NDArray[np.float64]:
    """All rows if they are at most `SAMPLE_ROWS`, so many of them otherwise; float64, against near ties."""
    if space.n_rows <= SAMPLE_ROWS:
        return space.X.astype(np.float64)
    rows = np.random.default_rng(space.seed).choice(space.n_rows, SAMPLE_ROWS, replace=False)
    return space.X[np.sort(rows)].astype(np.float64)


class MiniBatchKMeans:
    """Stochastic k-means: as good a guess in less time."""

    name = "minibatchkmeans"

    def grid(self, n_clusters: int) -> list[dict[str, Any]]:
        """The naming budget."""
        return [{"n_clusters": n_clusters}]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cluster the rows of `space`."""
        from sklearn.cluster import MiniBatchKMeans as Estimator

        n_clusters = parameters["n_clusters"]
        start = space.start(n_clusters)
        how: dict[str, Any] = {"n_init": 3} if start is None else {"n_init": 1, "init": start}
        with threadpool_limits(DETERMINISTIC_THREADS, user_api="openmp"):
            estimator = Estimator(n_clusters, batch_size=2048, random_state=space.seed, **how)
            estimator.fit(space.X.astype(product_dtype(space.n_rows), copy=False))
        return _from_centroids(space, estimator.cluster_centers_, {"n_clusters": n_clusters})


def _from_centroids(space: Space, centroids: NDArray[Any], parameters: dict[str, Any]) -> Clustering:
    model = PrototypeModel(centroids.astype(np.float32), np.arange(len(centroids), dtype=np.int32))
    labels, confidence = space.predict(model)
    return Clustering(labels, confidence, parameters, model)
