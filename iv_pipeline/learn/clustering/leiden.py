"""Leiden: communities of the neighbor graph, on prototypes.

Rows that have each other as neighbors tie the prototypes that stand for them, and every row inherits the
community of its prototype; so the graph to divide stays small however many rows there are, and new rows are
assigned as those of the fit are.
"""

from __future__ import annotations

import random
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix, triu
from scipy.spatial.distance import cdist

from iv_pipeline.learn.clustering.base import (
    Clustering,
    PrototypeModel,
    Space,
    cluster_prototypes_as_before,
    own_prototypes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import igraph
    from numpy.typing import NDArray

GRAPH_NEIGHBORS = 15
"""Nearest neighbors of each row that count; on labelled photos 15 did as well as 50."""
FINER = 1.5
"""Factor of the resolution from one attempt to the next, until there are as many communities as asked for."""
ROUNDS = 4
"""Of Leiden, each of which starts from the communities of the one before."""
UNTIED = 1e-6
"""Weight that holds together what no neighbors do, so that communities can be joined to any number."""

_ONE_AT_A_TIME = Lock()


class Leiden:
    """Communities by modularity, the nearest of them joined until they are as many as asked for."""

    name = "leiden"

    def grid(self, n_clusters: int) -> list[dict[str, Any]]:
        """The naming budget."""
        return [{"n_clusters": n_clusters}]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Divide the neighbor graph of `space` into communities."""
        n_clusters = parameters["n_clusters"]
        prototypes, _ = space.prototypes
        own = own_prototypes(space)
        used = np.unique(own)  # of prototypes in one place the first has all the rows
        resolution = np.nan
        if space.previous is not None and space.start(n_clusters) is not None:
            of_prototypes = cluster_prototypes_as_before(space, space.previous)
        else:
            graph = prototype_graph(space, np.searchsorted(used, own))
            prototypes = prototypes[used]
            of_prototypes, resolution = divide(graph, prototypes, min(n_clusters, len(used)), space.seed)
        model = PrototypeModel(prototypes, of_prototypes)
        labels, confidence = space.predict(model)
        resolved = {"n_clusters": n_clusters, "n_prototypes": len(prototypes)}
        if np.isfinite(resolution):
            resolved["resolution"] = round(resolution, 6)
        return Clustering(labels, confidence, resolved, model)


def prototype_graph(space: Space, own: NDArray[np.integer[Any]]) -> csr_matrix:
    """How many rows of one prototype have a row of another among their neighbors, or the other way round.

    Parameters
    ----------
    space
        The rows and their neighbors.
    own
        The prototype of each row, shape ``(n_rows,)``; each has a row.

    Returns
    -------
    scipy.sparse.csr_matrix
        Symmetric, shape ``(n_prototypes, n_prototypes)``, float64; what ties rows of one
        prototype is on the diagonal.
    """
    n = int(own.max()) + 1
    ties = csr_matrix((n, n), dtype=np.float64)
    for neighbor in range(min(GRAPH_NEIGHBORS, space.graph.n_neighbors)):  # never all edges at once
        pairs = (own, own[space.graph.indices[:, neighbor]])
        ties += csr_matrix((np.ones(len(own)), pairs), shape=(n, n))
    return csr_matrix(ties + ties.T)


def divide(
    graph: csr_matrix, points: NDArray[np.float32], n_clusters: int, seed: int = 0
) -> tuple[NDArray[np.int32], float]:
    """Communities of a graph, exactly as many as asked for.

    Leiden (Traag, Waltman, van Eck 2019) with modularity at the first resolution that gives as many, from 1 up;
    what there is too much is joined from the nearest pair on (Bonald, Charpentier, Galland, Hollocou 2018).

    Parameters
    ----------
    graph
        Symmetric, with weights, shape ``(n_nodes, n_nodes)``.
    points
        Where the nodes are, shape ``(n_nodes, n_features)``.
    n_clusters
        At most `n_nodes`.
    seed
        Of the order in which nodes are looked at.

    Returns
    -------
    labels
        Shape ``(n_nodes,)``, int32, 0 to ``n_clusters - 1``.
    resolution
        Of the modularity.
    """
    import igraph

    edges = triu(graph).tocoo()
    network = igraph.Graph(n=graph.shape[0], edges=np.column_stack([edges.row, edges.col]))
    weights = edges.data.tolist()
    resolution = 1.0
    while (labels := _communities(network, weights, resolution, seed)).max() + 1 < n_clusters:
        resolution *= FINER
    return _joined(graph, points, labels, n_clusters), resolution


def _communities(
    network: igraph.Graph, weights: list[float], resolution: float, seed: int
) -> NDArray[np.int32]:
    import igraph

    with _ONE_AT_A_TIME:  # it has one source of random numbers
        igraph.set_random_number_generator(random.Random(seed))  # noqa: S311  (a layout, no secret)
        found = network.community_leiden(
            objective_function="modularity",
            weights=weights,
            resolution=resolution,
            n_iterations=ROUNDS,
        )
    return np.array(found.membership, np.int32)


def _joined(
    graph: csr_matrix, points: NDArray[np.float32], labels: NDArray[np.int32], n_clusters: int
) -> NDArray[np.int32]:
    """Communities joined until `n_clusters` are left.

    Those come first that have the most ties for what they could have; those that nothing ties come last, the
    closest of them first.
    """
    member = csr_matrix((np.ones(len(labels)), (np.arange(len(labels)), labels)))
    ties = (member.T @ graph @ member).toarray()
    apart = cdist(*2 * [member.T @ points / member.sum(axis=0).T])
    weight = ties.sum(axis=1) + UNTIED
    ties += UNTIED * np.outer(weight, weight) / (weight.sum() * (1 + apart / (apart.max() or 1)))
    number = np.arange(len(ties))
    while len(ties) > n_clusters:
        nearness = ties / np.outer(weight, weight)
        np.fill_diagonal(nearness, -1)
        kept, gone = sorted(np.unravel_index(nearness.argmax(), nearness.shape))
        ties[kept] += ties[gone]
        ties[:, kept] += ties[:, gone]
        ties = np.delete(np.delete(ties, gone, 0), gone, 1)
        weight[kept] += weight[gone]
        weight = np.delete(weight, gone)
        number = np.where(number == gone, kept, number - (number > gone))
    joined: NDArray[np.int32] = number[labels].astype(np.int32)
    return joined
