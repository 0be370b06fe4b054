"""Agglomerative clustering with Ward's criterion, on weighted prototypes.

Ward's method on all rows needs memory quadratic in their number; on a few thousand prototypes, each weighted by
the rows that it stands for, it does not, and every row inherits the label of its prototype. A tree has no start:
after an earlier fit prototypes stay in the cluster of their rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.learn.clustering.base import NOISE, Clustering, PrototypeModel, Space, require_rows
from iv_pipeline.learn.ward import cut_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Agglomerative:
    """Ward's hierarchy, cut at a number of clusters."""

    name = "agglomerative"

    def grid(self, n_clusters: tuple[int, ...]) -> list[dict[str, Any]]:
        """Every number of clusters: they are cuts of one tree."""
        return [{"n_clusters": k} for k in n_clusters]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cluster the prototypes of `space`, and its rows with them."""
        n_clusters = parameters["n_clusters"]
        require_rows(space, n_clusters)
        prototypes, _ = space.prototypes
        if space.previous is None or space.start(n_clusters) is None:
            of_prototypes = cut_tree(space.ward_merges, len(prototypes), n_clusters)
        else:
            of_prototypes = _as_before(space, space.previous)
        model = PrototypeModel(prototypes, of_prototypes)
        labels, confidence = space.predict(model)
        return Clustering(
            labels, confidence, {"n_clusters": n_clusters, "n_prototypes": len(prototypes)}, model
        )


def _as_before(space: Space, previous: NDArray[np.int32]) -> NDArray[np.int32]:
    """The cluster of each prototype: that of most of its rows in the earlier fit, or of the nearest prototype."""
    prototypes, _ = space.prototypes
    alone = PrototypeModel(prototypes, np.arange(len(prototypes), dtype=np.int32))
    own, _ = space.predict(alone)
    numbers, before = np.unique(previous, return_inverse=True)
    votes = np.zeros((len(prototypes), len(numbers)), np.int64)
    np.add.at(votes, (own, before), 1)
    votes = votes[:, numbers != NOISE]
    known = votes.any(axis=1)
    labels = np.unique(votes[known].argmax(axis=1), return_inverse=True)[1].astype(np.int32)
    if known.all():
        return labels
    of_all = np.empty(len(prototypes), np.int32)
    of_all[known] = labels
    of_all[~known], _ = PrototypeModel(prototypes[known], labels).predict(prototypes[~known])
    return of_all
