"""Groups of similar images at every size: the nodes of one tree over the map of all descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.clustering import PrototypeModel
from iv_pipeline.learn.clustering.lloyd import lloyd
from iv_pipeline.learn.duplicates import distinct_rows
from iv_pipeline.learn.ward import ward_merges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAX_LEAVES = 1_000
ROWS_PER_LEAF = 8
"""About as many images as a contact sheet shows: a smaller group is no easier to name than its images."""
SAMPLED_ROWS_PER_LEAF = 50
"""Rows that the prototypes are fitted to, for each of them."""
LLOYD_ROUNDS = 20
SHEET_SIZE = 9
"""Images that a person looks at for one answer."""


@dataclass(frozen=True)
class GroupTree:
    """Ward's tree over groups of rows. Nodes below `n_leaves` are leaves; the last node is the root.

    Attributes
    ----------
    leaf
        Leaf of each row, −1 for a row without vectors, shape ``(n_rows,)``, int32.
    children
        The two earlier nodes that node ``n_leaves + i`` consists of, as in
        `sklearn.cluster.AgglomerativeClustering`; shape ``(n_leaves - 1, 2)``, int32.
    heights
        Ward's distance of each merge, ascending, shape ``(n_leaves - 1,)``, float64.
    """

    leaf: NDArray[np.int32]
    children: NDArray[np.int32]
    heights: NDArray[np.float64]

    @property
    def n_rows(self) -> int:
        """Number of rows, those without vectors included."""
        return len(self.leaf)

    @property
    def n_leaves(self) -> int:
        """Number of leaves; 0 if no row has vectors."""
        return len(self.children) + 1 if (self.leaf >= 0).any() else 0

    @property
    def n_nodes(self) -> int:
        """Number of nodes, leaves included."""
        return max(2 * self.n_leaves - 1, 0)

    @cached_property
    def parents(self) -> NDArray[np.int32]:
        """Parent of each node, −1 for the root, shape ``(n_nodes,)``, int32."""
        parents = np.full(self.n_nodes, -1, np.int32)
        for i, (a, b) in enumerate(self.children):
            parents[[a, b]] = self.n_leaves + i
        return parents

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of rows of each node, shape ``(n_nodes,)``."""
        begin, end = self._spans
        return end - begin

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """Rows with vectors, in an order in which the rows of every node are side by side."""
        usable = np.flatnonzero(self.leaf >= 0)
        return usable[np.argsort(self._first_leaf[self.leaf[usable]], kind="stable")]

    @cached_property
    def _leaf_counts(self) -> NDArray[np.int64]:
        """Number of leaves of each node, shape ``(n_nodes,)``."""
        counts = np.ones(self.n_nodes, np.int64)
        for i, (a, b) in enumerate(self.children):
            counts[self.n_leaves + i] = counts[a] + counts[b]
        return counts

    @cached_property
    def _first_leaf(self) -> NDArray[np.int64]:
        """Position of the first leaf of each node when the tree is drawn, shape ``(n_nodes,)``."""
        first = np.zeros(self.n_nodes, np.int64)
        for i in range(len(self.children) - 1, -1, -1):
            a, b = self.children[i]
            first[a] = first[self.n_leaves + i]
            first[b] = first[a] + self._leaf_counts[a]
        return first

    @cached_property
    def _spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Begin and end of each node in `_rows`."""
        at = np.zeros(self.n_leaves + 1, np.int64)
        order = self._first_leaf[: self.n_leaves]
        per_leaf = np.bincount(self.leaf[self.leaf >= 0], minlength=self.n_leaves)
        at[1 + order] = per_leaf
        at = np.cumsum(at)
        return at[self._first_leaf], at[self._first_leaf + self._leaf_counts]

    @property
    def common_sizes(self) -> NDArray[np.int64]:
        """Number of rows, at least 1, of the smallest node that holds two leaves, ``(n_leaves, n_leaves)``."""
        common = np.empty((self.n_leaves, self.n_leaves), np.int64)
        order = np.argsort(self._first_leaf[: self.n_leaves])
        drawn, sizes = self._first_leaf, np.maximum(self.sizes, 1)
        np.fill_diagonal(common, sizes[order])
        for i, (a, b) in enumerate(self.children):
            one, other = (slice(drawn[node], drawn[node] + self._leaf_counts[node]) for node in (a, b))
            common[one, other] = common[other, one] = sizes[self.n_leaves + i]
        return common[np.ix_(drawn[: self.n_leaves], drawn[: self.n_leaves])]

    def members(self, node: int) -> NDArray[np.int64]:
        """Rows of a node, ascending."""
        begin, end = self._spans
        return np.sort(self._rows[begin[node] : end[node]])

    def cut(self, n: int) -> NDArray[np.int64]:
        """The `n` nodes (or all leaves, if they are fewer) that are left when the last merges are undone."""
        if not self.n_leaves:
            return np.empty(0, np.int64)
        undone = self.n_nodes - (min(max(n, 1), self.n_leaves) - 1)
        nodes = np.arange(undone)
        parents = self.parents[:undone]
        return nodes[(parents >= undone) | (parents < 0)]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays, the inverse of `from_arrays`."""
        return {"leaf": self.leaf, "children": self.children, "heights": self.heights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> GroupTree:
        """The inverse of `to_arrays`."""
        return cls(arrays["leaf"], arrays["children"], arrays["heights"])


def fit_groups(embedding: NDArray[np.float32], seed: int, n_leaves: int | None = None) -> GroupTree:
    """Build the tree: k-means prototypes as leaves, and Ward's merges of these, weighted by their rows.

    Parameters
    ----------
    embedding
        Coordinates of each row, shape ``(n_rows, n_features)``; rows with NaN belong to no group.
    seed
        Seed of the first prototypes.
    n_leaves
        Number of leaves at most; None for one per `ROWS_PER_LEAF` rows, `MAX_LEAVES` at most. Equal rows share a
        leaf.
    """
    leaf = np.full(len(embedding), -1, np.int32)
    usable = np.flatnonzero(np.isfinite(embedding).all(axis=1))
    if not len(usable):
        return GroupTree(leaf, np.empty((0, 2), np.int32), np.empty(0))
    X = np.ascontiguousarray(embedding[usable])
    wanted = n_leaves or max(2, min(MAX_LEAVES, len(X) // ROWS_PER_LEAF))
    first, inverse = distinct_rows(X)
    prototypes = _prototypes(X, X[first], wanted, seed)
    model = PrototypeModel(prototypes, np.arange(len(prototypes), dtype=np.int32))
    nearest = model.predict(X[first])[0][inverse]
    occupied, own = np.unique(nearest, return_inverse=True)
    leaf[usable] = own
    merges = ward_merges(prototypes[occupied], np.bincount(own))
    return GroupTree(leaf, _children(merges, len(occupied)), merges[:, 2])


def _prototypes(
    X: NDArray[np.float32], distinct: NDArray[np.float32], wanted: int, seed: int
) -> NDArray[np.float32]:
    """At most `wanted` centroids of k-means, started from random distinct rows."""
    if len(distinct) <= wanted:
        return distinct
    rng = np.random.default_rng(seed)
    start = distinct[np.sort(rng.choice(len(distinct), wanted, replace=False))]
    sample = X
    if len(X) > wanted * SAMPLED_ROWS_PER_LEAF:
        sample = X[np.sort(rng.choice(len(X), wanted * SAMPLED_ROWS_PER_LEAF, replace=False))]
    return lloyd(ArrayBatches(sample), start, LLOYD_ROUNDS)


def _children(merges: NDArray[np.float64], n_leaves: int) -> NDArray[np.int32]:
    """Pairs of nodes from merges of points, ``(a, b, height)`` by ascending height."""
    parent = np.arange(n_leaves)  # of each point in a union-find forest
    node = np.arange(n_leaves)  # that the tree of a root has become
    children = np.empty((len(merges), 2), np.int32)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for i, (a, b, _) in enumerate(merges):
        left, right = root(int(a)), root(int(b))
        children[i] = sorted((node[left], node[right]))
        parent[right] = left
        node[left] = n_leaves + i
    return children


def sheet(X: NDArray[np.floating[Any]], rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """At most `SHEET_SIZE` rows of a group to look at: random ones of the quarter nearest its center, ascending.

    The nearest ones of all look alike, so that people agree on them although the group is mixed; among random
    ones of the whole group are strays, so that people agree less often.

    Parameters
    ----------
    X
        Vectors of the group, shape ``(len(rows), n_features)``.
    rows
        Its rows, ascending.
    seed
        Seed of the choice, which otherwise depends on the rows of the group only.
    """
    if len(rows) <= SHEET_SIZE:
        return rows
    X = X.astype(np.float64)
    distance = np.square(X - X.mean(axis=0)).sum(axis=1)
    core = rows[np.argsort(distance, kind="stable")[: max(SHEET_SIZE, len(rows) // 4)]]
    rng = np.random.default_rng([seed, len(rows), int(rows[0]), int(rows[-1])])
    return np.sort(rng.choice(core, SHEET_SIZE, replace=False))
