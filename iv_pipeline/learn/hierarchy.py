"""The density hierarchy of a neighbor graph: what HDBSCAN, DBSCAN and GLOSH read their answers from.

HDBSCAN (Campello, Moulavi, Sander 2013) builds the spanning tree of the mutual-reachability graph. The tree of
the k-nearest-neighbor graph, with its components joined, is that tree wherever the edges it needs are among
the neighbors. Condensing it, extracting clusters and scoring outliers is left to the package `hdbscan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iv_pipeline.learn.neighbors import NeighborGraph

MAX_REPRESENTATIVES = 20_000
"""Points of all components together that look for the nearest other component."""
BLOCK_POINTS = 1_000
"""Of those, how many measure their distance to all at once."""
NEIGHBORS_AT_ONCE = 10
"""Of every row, whose edges are sorted at once."""
NEAR_COMPONENTS = 4
"""Components that each one looks at closely."""


@dataclass(frozen=True)
class Hierarchy:
    """Single linkage of the mutual-reachability graph.

    Attributes
    ----------
    core_distances
        Shape ``(n_rows,)``, float32.
    linkage
        As in `scipy.cluster.hierarchy.linkage`, shape ``(n_rows - 1, 4)``, float64.
    """

    core_distances: NDArray[np.float32]
    linkage: NDArray[np.float64]


@dataclass(frozen=True)
class DensityClusters:
    """Labels of a density method.

    Attributes
    ----------
    labels
        Cluster of each row, −1 for noise, shape ``(n_rows,)``, int32.
    probabilities
        How firmly each row belongs to its cluster, in [0, 1], 0 for noise, shape ``(n_rows,)``, float32.
    reach, closest
        Mutual reachability at which the farthest row of each cluster joins it, and within which rows have
        probability 1; shape ``(n_clusters,)``, float32.
    """

    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    reach: NDArray[np.float32]
    closest: NDArray[np.float32]


def build_hierarchy(X: NDArray[np.float32], graph: NeighborGraph, min_samples: int) -> Hierarchy:
    """The density hierarchy of the rows of `X`.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``; used to join components of the graph.
    graph
        Neighbors of the rows of `X`.
    min_samples
        Neighbors that make a point dense.
    """
    # hdbscan's own function forgets to shorten the paths that it walks: 28 s where this takes 0.5
    from sklearn.cluster._hierarchical_fast import single_linkage_label

    core = graph.core_distances(min_samples)
    tree = _spanning_tree(X, graph, core)
    tree = tree[np.argsort(tree[:, 2], kind="stable")]
    return Hierarchy(core, single_linkage_label(np.ascontiguousarray(tree)))


def _spanning_tree(
    X: NDArray[np.float32], graph: NeighborGraph, core: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Edges ``(from, to, mutual reachability)`` of a minimum spanning tree, shape ``(n_rows - 1, 3)``."""
    n_rows = graph.n_rows
    forest = _forest_of_neighbors(graph, core)
    while True:
        joined = coo_array((np.ones(len(forest[0])), forest[:2]), shape=(n_rows, n_rows))
        n_components, component = connected_components(joined, directed=False)
        if n_components == 1:
            return np.column_stack(forest).astype(np.float64)
        bridges = _bridges(X, core, component, n_components)
        rows, columns, lengths = (np.concatenate(pair) for pair in zip(forest, bridges, strict=True))
        # two components may have chosen each other: entries of the same pair would be added up
        low, high = np.minimum(rows, columns), np.maximum(rows, columns)
        _, first = np.unique(low.astype(np.int64) * n_rows + high, return_index=True)
        edges = coo_array((lengths[first], (low[first], high[first])), shape=(n_rows, n_rows))
        forest = _minimum_forest(edges.tocsr())


def _forest_of_neighbors(
    graph: NeighborGraph, core: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """A minimum spanning forest of the mutual reachabilities between neighbors.

    Some neighbors of every row at a time: an edge that the forest of some edges leaves out, that of all leaves
    out as well, and so they are never held all at once.
    """
    n_rows = graph.n_rows
    nobody = np.empty(0, np.int32)
    forest: tuple[NDArray[Any], ...] = (nobody, nobody, np.empty(0, np.float64))
    for begin in range(0, graph.n_neighbors, NEIGHBORS_AT_ONCE):
        indices = graph.indices[:, begin : begin + NEIGHBORS_AT_ONCE]
        reach = np.maximum(core[:, None], core[indices])
        np.maximum(reach, graph.distances[:, begin : begin + NEIGHBORS_AT_ONCE], out=reach)
        rows = np.repeat(np.arange(n_rows, dtype=np.int32), indices.shape[1])
        sources = np.concatenate([forest[0], rows])
        targets = np.concatenate([forest[1], indices.ravel()])
        lengths = np.concatenate([forest[2], reach.ravel()])
        del rows, reach
        forest = _minimum_forest(coo_array((lengths, (sources, targets)), shape=(n_rows, n_rows)).tocsr())
    return forest[0], forest[1], forest[2]


def _minimum_forest(edges: csr_array) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """The edges of a minimum spanning forest, those of length 0 among them.

    Edges are ranked first: many mutual reachabilities are equal, which SciPy sorts differently on different
    processors, and it reads a stored 0 as "no edge".
    """
    lengths = edges.data.astype(np.float64)
    order = np.argsort(lengths, kind="stable")
    edges.data = np.empty(len(order))
    edges.data[order] = np.arange(1, len(order) + 1)
    tree = minimum_spanning_tree(edges, overwrite=True).tocoo()
    return tree.row, tree.col, lengths[order[tree.data.astype(np.int64) - 1]]


def _bridges(
    X: NDArray[np.float32], core: NDArray[np.float32], component: NDArray[np.int32], n_components: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """For every component an edge to a near point of another one, as in a round of Borůvka's algorithm.

    Representatives of all components, from their densest point to their sparsest, say which components are
    near; the pair of points is then refined in turns, each the nearest of its component to the other.
    """
    order = np.lexsort((core, component))
    members = np.split(order, np.cumsum(np.bincount(component, minlength=n_components))[:-1])
    each = max(1, MAX_REPRESENTATIVES // n_components)
    chosen = [rows[np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(np.int64)] for rows in members]
    starts = np.cumsum([0, *(len(rows) for rows in chosen[:-1])])
    everyone = np.concatenate(chosen)
    points = X[everyone].astype(np.float64) - X[everyone].mean(axis=0, dtype=np.float64)
    norms = np.einsum("nd,nd->n", points, points)
    ends: list[tuple[int, int, float]] = []
    for c, (rows, start) in enumerate(zip(chosen, starts, strict=True)):
        own = slice(start, start + len(rows))
        apart = _squared_distances_to_set(points, norms, own)
        apart[own] = np.inf
        near = np.argsort(np.minimum.reduceat(apart, starts), kind="stable")
        near = near[: min(NEAR_COMPONENTS, n_components - 1)]
        nearest = [int(everyone[s + apart[s:e].argmin()]) for s, e in _spans(starts, near, len(everyone))]
        pairs = [_closest(X, core, members[c], members[o], b) for o, b in zip(near, nearest, strict=True)]
        ends.append(min(pairs, key=lambda pair: pair[2]))
    sources, targets, lengths = zip(*ends, strict=True)
    return np.array(sources), np.array(targets), np.array(lengths)


def _squared_distances_to_set(
    points: NDArray[np.float64], norms: NDArray[np.float64], chosen: slice
) -> NDArray[np.float64]:
    """From each point to the nearest of the chosen ones, shape ``(n_points,)``; few of them are met at once."""
    apart = np.full(len(points), np.inf)
    for begin in range(chosen.start, chosen.stop, BLOCK_POINTS):
        part = slice(begin, min(begin + BLOCK_POINTS, chosen.stop))
        products = points[part] @ points.T
        products *= -2
        products += norms[part, None]
        np.minimum(apart, products.min(axis=0) + norms, out=apart)
    return apart


def _spans(starts: NDArray[Any], components: NDArray[Any], n: int) -> list[tuple[int, int]]:
    ends = np.append(starts[1:], n)
    return [(int(starts[c]), int(ends[c])) for c in components]


def _closest(
    X: NDArray[np.float32],
    core: NDArray[np.float32],
    ours: NDArray[Any],
    theirs: NDArray[Any],
    target: int,
) -> tuple[int, int, float]:
    """A pair of points of two components that are mutually nearest, found in turns from `target` of theirs."""
    source, reach = _nearest_of(X, core, ours, target)
    while True:
        better, shorter = _nearest_of(X, core, theirs, source)
        if shorter >= reach:
            return source, target, reach
        target, reach = better, shorter
        better, shorter = _nearest_of(X, core, ours, target)
        if shorter >= reach:
            return source, target, reach
        source, reach = better, shorter


def _nearest_of(
    X: NDArray[np.float32], core: NDArray[np.float32], rows: NDArray[Any], point: int
) -> tuple[int, float]:
    """Which of `rows` reaches `point` most easily, and their mutual reachability."""
    difference = X[rows]
    difference -= X[point]
    gap = np.sqrt(np.einsum("nd,nd->n", difference, difference, dtype=np.float64))
    reach = np.maximum(gap, np.maximum(core[rows], core[point]))
    best = int(reach.argmin())
    return int(rows[best]), float(reach[best])


def extract_hdbscan(
    hierarchy: Hierarchy, min_cluster_size: int, method: str = "eom"
) -> tuple[DensityClusters, NDArray[np.float32]]:
    """HDBSCAN's clusters, and GLOSH's outlier scores.

    Parameters
    ----------
    hierarchy
        Of the rows.
    min_cluster_size
        Smaller groups are noise.
    method
        ``"eom"`` (excess of mass) or ``"leaf"``.

    Returns
    -------
    clusters
        Labels and probabilities.
    scores
        GLOSH, in [0, 1], shape ``(n_rows,)``, float32 (Campello et al. 2015).
    """
    from hdbscan._hdbscan_tree import outlier_scores
    from hdbscan.hdbscan_ import _tree_to_labels

    labels, probabilities, _, tree, _ = _tree_to_labels(
        None, hierarchy.linkage, min_cluster_size=min_cluster_size, cluster_selection_method=method
    )
    scores = outlier_scores(tree)
    reach, closest = _reaches(tree, labels, probabilities)
    clusters = DensityClusters(labels.astype(np.int32), probabilities.astype(np.float32), reach, closest)
    return clusters, np.nan_to_num(scores, nan=1.0).clip(0, 1).astype(np.float32)


def _reaches(
    tree: Any, labels: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the rows of each cluster join it: at the farthest, and where those begin that belong surely."""
    rows = tree[tree["child"] < len(labels)]
    rows = rows[labels[rows["child"]] >= 0]
    of, joins = (
        labels[rows["child"]],
        1 / rows["lambda_val"],
    )  # the tree speaks of densities, inverse distances
    sure = (
        joins * probabilities[rows["child"]]
    )  # a probability is that distance over the one where a row joins
    partly = (probabilities[rows["child"]] < 1) & (sure > 0)
    n_clusters = int(labels.max(initial=-1)) + 1
    reach, closest = np.zeros(n_clusters), np.full(n_clusters, np.inf)
    np.maximum.at(reach, of, joins)
    np.minimum.at(closest, of[partly], sure[partly])
    return reach.astype(np.float32), np.minimum(closest, reach).astype(np.float32)


def extract_dbscan(
    hierarchy: Hierarchy, graph: NeighborGraph, eps: float, min_cluster_size: int
) -> DensityClusters:
    """DBSCAN's clusters: the hierarchy cut at `eps`, and border points put to their nearest dense neighbor.

    Parameters
    ----------
    hierarchy, graph
        Of the same rows.
    eps
        Radius within which a dense point has `min_samples` neighbors.
    min_cluster_size
        Smaller groups are noise.
    """
    from hdbscan._hdbscan_tree import labelling_at_cut

    above = np.nextafter(eps, np.inf)  # hdbscan cuts merges at `eps` itself, which are within it
    labels = labelling_at_cut(hierarchy.linkage, above, min_cluster_size).astype(np.int32)
    dense = hierarchy.core_distances <= eps
    labels[~dense] = -1  # the cut leaves each of them a cluster of its own
    neighbor_labels = np.where(dense[graph.indices] & (graph.distances <= eps), labels[graph.indices], -1)
    reached = (neighbor_labels >= 0) & ~dense[:, None]
    border = reached.any(axis=1)
    labels[border] = neighbor_labels[border, reached[border].argmax(axis=1)]
    density = np.where(hierarchy.core_distances > 0, eps / np.maximum(hierarchy.core_distances, 1e-30), 1)
    probabilities = np.where(labels >= 0, np.minimum(density, 1), 0)
    labels = _compact(labels)
    reach = np.full(labels.max(initial=-1) + 1, eps, np.float32)
    return DensityClusters(labels, probabilities.astype(np.float32), reach, np.zeros_like(reach))


def _compact(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Labels without gaps, 0 the first of them; noise stays −1."""
    used, compact = np.unique(labels, return_inverse=True)
    return (compact - int(used[0] == -1)).astype(np.int32) if len(used) else labels
