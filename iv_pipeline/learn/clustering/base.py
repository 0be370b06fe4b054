"""What every clustering algorithm is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from iv_pipeline.engine import ArrayBatches, BatchedMatrix, map_rows
from iv_pipeline.learn.clustering.lloyd import lloyd
from iv_pipeline.learn.duplicates import distinct_rows, first_equal
from iv_pipeline.learn.hierarchy import Hierarchy, build_hierarchy
from iv_pipeline.learn.neighbors import NeighborGraph, neighbor_graph
from iv_pipeline.learn.ward import ward_merges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

T = TypeVar("T")
N_PROTOTYPES = 2_000
ROWS_PER_PROTOTYPE = 50
"""Rows that prototypes are placed by, if there are more; all rows weigh them."""
PROTOTYPE_ROUNDS = 6
"""Rounds of Lloyd's algorithm that place them."""
NOISE = -1
COUNTS = ("n_clusters", "n_components")
"""Parameters that ask for a number of clusters."""


class _Once(cached_property[T]):
    """A property that one thread computes while others that ask for it wait, also since Python 3.12."""

    def __get__(self, space: Any, owner: type[Any] | None = None) -> Any:
        if space is None:
            return self
        with space.lock:
            return super().__get__(space, owner)


@dataclass
class Space:
    """Rows to cluster, and what several algorithms compute from them only once.

    Attributes
    ----------
    X
        Shape ``(n_rows, n_features)``, float32, finite.
    seed
        Of everything random.
    n_neighbors, min_samples
        Of the neighbor graph, and of core distances.
    stored
        The same rows where they are stored, so that workers elsewhere need not be sent them.
    given_graph, given_hierarchy
        The neighbor graph and its density hierarchy, if they are there already.
    previous
        Clusters of the rows in an earlier fit, −1 where unknown, shape ``(n_rows,)``: methods that start somewhere
        start there, so that what people named stays.
    lock
        Held while one of the above is computed.
    """

    X: NDArray[np.float32]
    seed: int = 0
    n_neighbors: int = 50
    min_samples: int = 10
    stored: BatchedMatrix | None = field(default=None, repr=False)
    given_graph: NeighborGraph | None = field(default=None, repr=False)
    given_hierarchy: Hierarchy | None = field(default=None, repr=False)
    previous: NDArray[np.int32] | None = field(default=None, repr=False)
    lock: Any = field(default_factory=RLock, init=False, repr=False, compare=False)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.X)

    @_Once
    def first_equal(self) -> NDArray[np.int64]:
        """Index of the first row that equals each row, shape ``(n_rows,)``."""
        return first_equal(self.X)

    @property
    def n_distinct(self) -> int:
        """Number of distinct rows."""
        return int((self.first_equal == np.arange(self.n_rows)).sum())

    @property
    def batches(self) -> BatchedMatrix:
        """The rows, batch by batch."""
        return self.stored or ArrayBatches(self.X)

    def start(self, n_clusters: int) -> NDArray[np.float32] | None:
        """Centroids of the earlier clusters, ``(n_clusters, n_features)``; None unless there were as many."""
        if self.previous is None:
            return None
        known = np.unique(self.previous[self.previous != NOISE])
        if len(known) != n_clusters:
            return None
        return np.stack([self.X[self.previous == c].mean(axis=0, dtype=np.float64) for c in known]).astype(
            np.float32
        )

    def predict(self, model: Model) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster and confidence of every row, both of shape ``(n_rows,)``."""
        labels, confidence = zip(*map_rows(model.predict, self.batches), strict=True)
        return np.concatenate(labels), np.concatenate(confidence)

    @_Once
    def graph(self) -> NeighborGraph:
        """The nearest neighbors of every row."""
        return self.given_graph or neighbor_graph(self.X, self.n_neighbors, self.seed)

    @_Once
    def hierarchy(self) -> Hierarchy:
        """The density hierarchy of the graph."""
        return self.given_hierarchy or build_hierarchy(self.X, self.graph, self.min_samples)

    @_Once
    def prototypes(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """At most `N_PROTOTYPES` centroids, and how many rows each stands for.

        The distinct rows themselves if they are few; otherwise centroids of k-means, started from random rows.
        """
        rows, counts = np.unique(self.first_equal, return_counts=True)
        if len(rows) <= N_PROTOTYPES:
            return self.X[rows], counts
        order = np.random.default_rng(self.seed + 1).permutation(self.n_rows)
        sample = self.X[np.sort(order[: N_PROTOTYPES * ROWS_PER_PROTOTYPE])]
        drawn = self.X[order[: 4 * N_PROTOTYPES]]
        first, _ = distinct_rows(drawn)  # equal rows would share one prototype
        centroids = lloyd(ArrayBatches(sample), drawn[first[:N_PROTOTYPES]], PROTOTYPE_ROUNDS)
        nearest, _ = self.predict(PrototypeModel(centroids, np.arange(len(centroids), dtype=np.int32)))
        counts = np.bincount(nearest, minlength=len(centroids))
        return centroids[counts > 0], counts[counts > 0]

    @_Once
    def ward_merges(self) -> NDArray[np.float64]:
        """Ward's merges of the prototypes; cuts at several numbers of clusters share them."""
        return ward_merges(*self.prototypes)


class Model(Protocol):
    """What assigns rows to clusters; its fields are arrays and numbers, so that it can be stored as such."""

    def predict(self, X: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster and confidence in [0, 1] of each row of `X`, both of shape ``(n_rows,)``."""
        ...


@dataclass(frozen=True)
class Attachment:
    """How a new row attaches itself to the groups of rows that a density method found.

    Attributes
    ----------
    reach, closest
        Distances beyond which a row is no part of each cluster, and within which it surely is; float32, shape
        ``(n_clusters,)``.
    min_samples
        Neighbors that make a point dense; distances are mutual reachabilities. 0 for plain distances.
    eps
        Only points that are dense within so far have others attached to them; infinite for all points.
    """

    reach: NDArray[np.float32]
    closest: NDArray[np.float32]
    min_samples: int = 0
    eps: float = float("inf")


@dataclass(frozen=True)
class Clustering:
    """Clusters of the rows of a space.

    Attributes
    ----------
    labels
        Cluster of each row, −1 for noise, shape ``(n_rows,)``, int32.
    confidence
        In [0, 1], 0 for noise, shape ``(n_rows,)``, float32.
    parameters
        What the algorithm was run with, derived values included.
    model
        Assigns other rows; None for methods whose clusters are groups of the rows themselves.
    attachment
        Of those: how other rows attach themselves to the groups.
    """

    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    parameters: dict[str, Any]
    model: Model | None = None
    attachment: Attachment | None = None

    @property
    def n_clusters(self) -> int:
        """Number of clusters, noise not counted."""
        return int(self.labels.max(initial=NOISE)) + 1

    @property
    def noise_share(self) -> float:
        """Share of rows in no cluster."""
        return float(np.mean(self.labels == NOISE))


class Algorithm(Protocol):
    """A clustering algorithm."""

    name: str

    def grid(self, n_clusters: int) -> list[dict[str, Any]]:
        """Parameters worth trying for a number of clusters, the naming budget.

        Parameters are free of scale (shares, not counts), so that what won on a sample holds for all rows.
        """
        ...

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Cluster the rows of `space`."""
        ...


@dataclass(frozen=True)
class PrototypeModel:
    """Each row belongs to the cluster of its nearest prototype.

    Attributes
    ----------
    prototypes
        Shape ``(n_prototypes, n_features)``, float32.
    labels
        Cluster of each prototype, shape ``(n_prototypes,)``, int32.
    """

    prototypes: NDArray[np.float32]
    labels: NDArray[np.int32]

    def predict(self, X: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster of each row, and its simplified silhouette ``(b - a) / b`` as confidence.

        `a` is the distance to the nearest prototype, `b` the one to the nearest prototype of another cluster
        (Hruschka, de Castro, Campello 2004).
        """
        labels = np.empty(len(X), np.int32)
        confidence = np.empty(len(X), np.float32)
        order = np.argsort(self.labels, kind="stable")
        prototypes = self.prototypes[order].astype(np.float64)
        clusters, starts = np.unique(self.labels[order], return_index=True)
        norms = np.einsum("pd,pd->p", prototypes, prototypes)
        chunk = max(1, 2**22 // len(prototypes))
        for begin in range(0, len(X), chunk):
            rows = X[begin : begin + chunk].astype(np.float64)  # float32 decides near ties by the processor
            squared = rows @ (-2 * prototypes.T)
            squared += norms
            squared += np.einsum("nd,nd->n", rows, rows)[:, None]
            nearest = np.sqrt(np.maximum(np.minimum.reduceat(squared, starts, axis=1), 0))
            first = nearest.argmin(axis=1)
            a = nearest[np.arange(len(rows)), first]
            nearest[np.arange(len(rows)), first] = np.inf
            b = nearest.min(axis=1)
            part = slice(begin, begin + len(rows))
            labels[part] = clusters[first]
            confidence[part] = np.where(np.isfinite(b) & (b > 0), 1 - a / np.where(b > 0, b, 1), 1 * (b > 0))
        return labels, confidence.clip(0, 1)


def fit_clusters(algorithm: Algorithm, space: Space, parameters: Mapping[str, Any]) -> Clustering:
    """Cluster the rows of `space`; equal rows get one cluster, and there are no more clusters than distinct rows.

    Rows weigh as often as they occur. An algorithm may break ties between equal rows by their order, so each row
    gets the label of the first that equals it.

    Parameters
    ----------
    algorithm
        What clusters.
    space
        Rows to cluster.
    parameters
        Of the algorithm, as from its grid.
    """
    feasible = {
        key: min(value, space.n_distinct) if key in COUNTS else value for key, value in parameters.items()
    }
    clustering = algorithm.fit(space, feasible)
    first = space.first_equal
    return replace(clustering, labels=clustering.labels[first], confidence=clustering.confidence[first])


def own_prototypes(space: Space) -> NDArray[np.int32]:
    """The nearest prototype of each row, shape ``(n_rows,)``."""
    prototypes, _ = space.prototypes
    return space.predict(PrototypeModel(prototypes, np.arange(len(prototypes), dtype=np.int32)))[0]


def cluster_prototypes_as_before(space: Space, previous: NDArray[np.int32]) -> NDArray[np.int32]:
    """The cluster of each prototype: that of most of its rows in the earlier fit, or of the nearest prototype.

    A tree or a graph has no start: after an earlier fit prototypes stay in the cluster of their rows.
    """
    prototypes, _ = space.prototypes
    numbers, before = np.unique(previous, return_inverse=True)
    votes = np.zeros((len(prototypes), len(numbers)), np.int64)
    np.add.at(votes, (own_prototypes(space), before), 1)
    votes = votes[:, numbers != NOISE]
    known = votes.any(axis=1)
    labels = np.unique(votes[known].argmax(axis=1), return_inverse=True)[1].astype(np.int32)
    if known.all():
        return labels
    of_all = np.empty(len(prototypes), np.int32)
    of_all[known] = labels
    of_all[~known], _ = PrototypeModel(prototypes[known], labels).predict(prototypes[~known])
    return of_all
