"""Ward's hierarchy of weighted points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ward_merges(points: NDArray[np.floating[Any]], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Ward's merges of weighted points, by the nearest-neighbor chain (Murtagh 1983).

    Merging clusters of weights u and v raises the within-cluster sum of squares by ``u v / (u + v)`` times the
    squared distance of their centroids; the height is the square root of twice that, as in
    `scipy.cluster.hierarchy.linkage`.

    Parameters
    ----------
    points
        Shape ``(n_points, n_features)``.
    weights
        How many rows each point stands for, shape ``(n_points,)``.

    Returns
    -------
    numpy.ndarray
        Rows ``(a, b, height)`` by ascending height, shape ``(n_points - 1, 3)``; `a` and `b` are points of the
        two clusters that merge.
    """
    mass = weights.astype(np.float64).copy()
    cost = _costs(points.astype(np.float64), mass)
    merges: list[tuple[int, int, float]] = []
    chain: list[int] = []
    active = np.ones(len(points), dtype=bool)
    while len(merges) < len(points) - 1:
        if not chain:
            chain.append(int(active.argmax()))
        tip = chain[-1]
        nearest = int(cost[tip].argmin())
        if len(chain) > 1 and cost[tip, chain[-2]] <= cost[tip, nearest]:
            nearest = chain[-2]  # ties go back along the chain, or it would run in circles
            del chain[-2:]
            merges.append((nearest, tip, float(np.sqrt(2 * max(cost[tip, nearest], 0)))))
            _merge(cost, mass, nearest, tip)
            active[tip] = False
        else:
            chain.append(nearest)
    table = np.array(merges, dtype=np.float64).reshape(-1, 3)
    return table[np.argsort(table[:, 2], kind="stable")]


def _costs(points: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """What merging each pair of points would cost; a point with itself, infinitely much."""
    centered = points - points.mean(axis=0)
    squares = np.square(centered).sum(axis=1)
    cost: NDArray[np.float64] = squares[:, None] + squares - 2 * centered @ centered.T
    np.maximum(cost, 0, out=cost)
    cost *= mass[:, None] * mass / (mass[:, None] + mass)
    np.fill_diagonal(cost, np.inf)
    return cost


def _merge(cost: NDArray[np.float64], mass: NDArray[np.float64], kept: int, gone: int) -> None:
    """Put one cluster into another, and update what merges with it cost (Lance, Williams 1967)."""
    total = mass + mass[kept] + mass[gone]
    row = (
        (mass + mass[kept]) * cost[kept] + (mass + mass[gone]) * cost[gone] - mass * cost[kept, gone]
    ) / total
    row[kept] = np.inf
    cost[kept] = cost[:, kept] = row
    cost[gone] = cost[:, gone] = np.inf
    mass[kept] += mass[gone]


def cut_tree(merges: NDArray[np.float64], n_points: int, n_clusters: int) -> NDArray[np.int32]:
    """Cluster of each point after all but the last ``n_clusters - 1`` merges, shape ``(n_points,)``, int32."""
    parent = np.arange(n_points)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for a, b, _ in merges[: max(n_points - n_clusters, 0)]:
        parent[root(int(b))] = root(int(a))
    roots = np.array([root(i) for i in range(n_points)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)
