"""HDBSCAN and DBSCAN, both read off one density hierarchy of the neighbor graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.learn.clustering.base import NOISE, Attachment, Clustering, Space
from iv_pipeline.learn.hierarchy import extract_dbscan, extract_hdbscan
from iv_pipeline.learn.neighbors import NeighborSearch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iv_pipeline.learn.hierarchy import DensityClusters

SMALLEST_CLUSTER = 5


class HDBSCAN:
    """Clusters that persist over a range of densities."""

    name = "hdbscan"

    def grid(self, n_clusters: int) -> list[dict[str, Any]]:
        """Smallest clusters between a fifth and the whole of an even share of the naming budget."""
        share = 1 / n_clusters
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
        min_samples = min(space.min_samples, space.graph.n_neighbors)  # as core distances were taken
        attachment = Attachment(clusters.reach, clusters.closest, min_samples)
        return _clustering(clusters, {**parameters, **resolved}, attachment)


class DBSCAN:
    """Connected regions above one density."""

    name = "dbscan"

    def grid(self, n_clusters: int) -> list[dict[str, Any]]:
        """Densities that a half to nine tenths of the rows reach."""
        del n_clusters  # a density is no number of clusters
        return [{"core_quantile": q} for q in (0.3, 0.5, 0.7, 0.9)]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cut the hierarchy of `space` at the distance that the given share of rows is dense within."""
        eps = float(np.quantile(space.hierarchy.core_distances, parameters["core_quantile"]))
        clusters = extract_dbscan(space.hierarchy, space.graph, eps, SMALLEST_CLUSTER)
        resolved = {"eps": eps, "min_samples": space.min_samples}
        attachment = Attachment(clusters.reach, clusters.closest, eps=eps)
        return _clustering(clusters, {**parameters, **resolved}, attachment)


def _clustering(clusters: DensityClusters, parameters: dict[str, Any], attachment: Attachment) -> Clustering:
    return Clustering(clusters.labels, clusters.probabilities, parameters, attachment=attachment)


class NeighborModel:
    """Each row belongs to the cluster of the point that it reaches most easily, or to none if that is far.

    As `hdbscan.approximate_predict` does, but no farther from a cluster than the farthest of its own rows. With
    DBSCAN's rule it is the cluster of the nearest dense point within `eps`, with confidence 1.

    Parameters
    ----------
    X
        The points of the fit, shape ``(n_points, n_features)``, float32, finite.
    labels
        Cluster of each, −1 for noise, shape ``(n_points,)``.
    core_distances
        Of each, shape ``(n_points,)``, float32.
    attachment
        The rule.
    seed
        Of the search.
    """

    def __init__(
        self,
        X: NDArray[np.float32],
        labels: NDArray[np.int32],
        core_distances: NDArray[np.float32],
        attachment: Attachment,
        seed: int = 0,
    ) -> None:
        if np.isfinite(attachment.eps):  # border rows and noise have nothing attached to them
            kept = (core_distances <= attachment.eps) & (labels != NOISE)
            X, labels, core_distances = X[kept], labels[kept], core_distances[kept]
        self._search = NeighborSearch(X, seed) if len(X) else None
        self._labels = labels
        self._core_distances = core_distances
        self._attachment = attachment

    def predict(self, X: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster and confidence in [0, 1] of each row of `X`, both of shape ``(n_rows,)``; −1 is noise."""
        rule = self._attachment
        if self._search is None:
            return np.full(len(X), NOISE, np.int32), np.zeros(len(X), np.float32)
        indices, reach = self._search(X, max(1, 2 * rule.min_samples))
        if rule.min_samples:
            core = self._core_distances[indices]
            own = reach[:, min(rule.min_samples, reach.shape[1]) - 1, None]
            own = np.where(reach[:, :1] == 0, core[:, :1], own)  # a point of the fit is not its own neighbor
            reach = np.maximum(np.maximum(reach, own), core)
        best = reach.argmin(axis=1)[:, None]
        labels = self._labels[np.take_along_axis(indices, best, axis=1)[:, 0]]
        reach = np.take_along_axis(reach, best, axis=1)[:, 0]
        inside = labels != NOISE
        # rounding must not put out the row that reach was taken from
        inside[inside] = reach[inside] <= rule.reach[labels[inside]] * (1 + 1e-5)
        confidence = np.zeros(len(X), np.float32)
        closest = rule.closest[labels[inside]] if rule.min_samples else rule.reach[labels[inside]]
        with np.errstate(divide="ignore", invalid="ignore"):
            sure = np.where(reach[inside] <= closest, 1, closest / reach[inside])
        confidence[inside] = sure
        return np.where(inside, labels, NOISE).astype(np.int32), confidence
