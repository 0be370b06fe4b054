"""KMeans and MiniBatchKMeans, scikit-learn's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from iv_pipeline.learn.clustering.base import Clustering, PrototypeModel, Space, require_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DETERMINISTIC_THREADS = 2
"""Lloyd's partial sums are added in the order in which threads finish: two of them add up the same either way."""


class KMeans:
    """Lloyd's algorithm from several k-means++ starts."""

    name = "kmeans"

    def grid(self, n_clusters: tuple[int, ...]) -> list[dict[str, Any]]:
        """Every number of clusters."""
        return [{"n_clusters": k} for k in n_clusters]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cluster the rows of `space`; more starts where rows are few and starts are cheap."""
        from sklearn.cluster import KMeans as Estimator

        n_clusters = parameters["n_clusters"]
        require_rows(space, n_clusters)
        n_init = 4 if space.n_rows <= 50_000 else 1
        with threadpool_limits(DETERMINISTIC_THREADS, user_api="openmp"):
            estimator = Estimator(n_clusters, n_init=n_init, random_state=space.seed).fit(space.X)
        return _from_centroids(space, estimator.cluster_centers_, {"n_clusters": n_clusters})


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
        with threadpool_limits(DETERMINISTIC_THREADS, user_api="openmp"):
            estimator = Estimator(n_clusters, n_init=3, batch_size=2048, random_state=space.seed).fit(space.X)
        return _from_centroids(space, estimator.cluster_centers_, {"n_clusters": n_clusters})


def _from_centroids(space: Space, centroids: NDArray[Any], parameters: dict[str, Any]) -> Clustering:
    model = PrototypeModel(centroids.astype(np.float32), np.arange(len(centroids), dtype=np.int32))
    labels, confidence = model.predict(space.X)
    return Clustering(labels, confidence, parameters, model)
