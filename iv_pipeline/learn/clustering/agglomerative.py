"""Agglomerative clustering with Ward's criterion, on weighted prototypes.

Ward's method on all rows needs memory quadratic in their number; on a few thousand prototypes, each weighted by
the rows that it stands for, it does not, and every row inherits the label of its prototype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iv_pipeline.learn.clustering.base import (
    Clustering,
    PrototypeModel,
    Space,
    cluster_prototypes_as_before,
)
from iv_pipeline.learn.ward import cut_tree

if TYPE_CHECKING:
    from collections.abc import Mapping


class Agglomerative:
    """Ward's hierarchy, cut at a number of clusters."""

    name = "agglomerative"

    def grid(self, n_clusters: int) -> list[dict[str, Any]]:
        """The naming budget."""
        return [{"n_clusters": n_clusters}]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cluster the prototypes of `space`, and its rows with them."""
        n_clusters = parameters["n_clusters"]
        prototypes, _ = space.prototypes
        if space.previous is None or space.start(n_clusters) is None:
            of_prototypes = cut_tree(space.ward_merges, len(prototypes), n_clusters)
        else:
            of_prototypes = cluster_prototypes_as_before(space, space.previous)
        model = PrototypeModel(prototypes, of_prototypes)
        labels, confidence = space.predict(model)
        return Clustering(
            labels, confidence, {"n_clusters": n_clusters, "n_prototypes": len(prototypes)}, model
        )
