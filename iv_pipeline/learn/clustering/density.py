"""HDBSCAN and DBSCAN, both read off one density hierarchy of the neighbour graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.learn.clustering.base import Clustering, Space
from iv_pipeline.learn.hierarchy import extract_dbscan, extract_hdbscan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iv_pipeline.learn.hierarchy import DensityClusters

SMALLEST_CLUSTER = 5


class HDBSCAN:
    """Clusters that persist over a range of densities."""

    name = "hdbscan"

    def grid(self, n_clusters: tuple[int, ...]) -> list[dict[str, Any]]:
        """Smallest clusters between a fifth and the whole of an even share of the naming budget."""
        share = 1 / max(n_clusters)
        return [
            {"min_cluster_share": round(share * part, 6), "cluster_selection_method": method}
            for part in (0.1, 0.25, 0.5)
            for method in ("eom", "leaf")
        ]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Extract the clusters of the hierarchy of `space`."""
        size = max(SMALLEST_CLUSTER, round(parameters["min_cluster_share"] * space.n_rows))
        method = parameters["cluster_selection_method"]
        clusters, _ = extract_hdbscan(space.hierarchy, size, method)
        resolved = {"min_cluster_size": size, "min_samples": space.min_samples}
        return _clustering(clusters, {**parameters, **resolved})


class DBSCAN:
    """Connected regions above one density."""

    name = "dbscan"

    def grid(self, n_clusters: tuple[int, ...]) -> list[dict[str, Any]]:
        """Densities that a half to nine tenths of the rows reach."""
        del n_clusters  # a density is no number of clusters
        return [{"core_quantile": q} for q in (0.3, 0.5, 0.7, 0.9)]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cut the hierarchy of `space` at the distance that the given share of rows is dense within."""
        eps = float(np.quantile(space.hierarchy.core_distances, parameters["core_quantile"]))
        clusters = extract_dbscan(space.hierarchy, space.graph, eps, SMALLEST_CLUSTER)
        return _clustering(clusters, {**parameters, "eps": eps, "min_samples": space.min_samples})


def _clustering(clusters: DensityClusters, parameters: dict[str, Any]) -> Clustering:
    return Clustering(clusters.labels, clusters.probabilities, parameters)
