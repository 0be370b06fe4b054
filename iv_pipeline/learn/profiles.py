"""What each cluster is: how large and tight it is, which images show it best, what its images agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE = -1
N_EXEMPLARS = 12


@dataclass(frozen=True)
class Geometry:
    """Where a cluster lies, and which of its rows show it.

    Attributes
    ----------
    cluster
        Its number.
    size
        Rows in it.
    cohesion
        1 minus the mean squared distance to the centroid over that of all rows to theirs, at most 1.
    separation
        Distance to the nearest other centroid, over the root mean square distance to its own.
    nearest_cluster
        Whose centroid that is, −1 if there is no other.
    distances
        Between its centroid and that of every cluster in the order of their numbers, float64.
    central, typical, borderline
        Rows nearest to the centroid, at the median distance, and least firmly in the cluster; int64.
    """

    cluster: int
    size: int
    cohesion: float
    separation: float
    nearest_cluster: int
    distances: NDArray[np.float64]
    central: NDArray[np.int64]
    typical: NDArray[np.int64]
    borderline: NDArray[np.int64]


def describe_geometry(
    X: NDArray[np.float32], labels: NDArray[np.int32], confidence: NDArray[np.float32]
) -> list[Geometry]:
    """The geometry of every cluster, by number.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``; rows of a cluster are finite.
    labels, confidence
        Shape ``(n_rows,)``; −1 is noise.
    """
    numbers = np.unique(labels[labels != NOISE])
    members = {int(c): np.flatnonzero(labels == c) for c in numbers}
    centroids = {c: X[rows].mean(axis=0, dtype=np.float64) for c, rows in members.items()}
    distances = {
        c: np.linalg.norm(X[rows] - centroids[c].astype(np.float32), axis=1) for c, rows in members.items()
    }
    spread = _spread(members, centroids, distances)
    result = []
    for c, rows in members.items():
        distance = distances[c]
        apart = {o: float(np.linalg.norm(centroids[o] - centroids[c])) for o in centroids}
        others = {o: distance for o, distance in apart.items() if o != c}
        nearest = min(others, key=lambda o: others[o]) if others else NOISE
        within = float(np.mean(distance.astype(np.float64) ** 2))
        by_distance = rows[np.argsort(distance, kind="stable")]
        middle = max(0, len(rows) // 2 - N_EXEMPLARS // 2)
        result.append(
            Geometry(
                cluster=c,
                size=len(rows),
                cohesion=1 - within / spread,
                separation=others[nearest] / np.sqrt(within) if others and within > 0 else np.nan,
                nearest_cluster=nearest,
                distances=np.array(list(apart.values())),
                central=by_distance[:N_EXEMPLARS],
                typical=by_distance[middle : middle + N_EXEMPLARS],
                borderline=rows[np.argsort(confidence[rows], kind="stable")][:N_EXEMPLARS],
            )
        )
    return result


def _spread(
    members: dict[int, NDArray[np.int64]],
    centroids: dict[int, NDArray[np.float64]],
    distances: dict[int, NDArray[np.float32]],
) -> float:
    """Mean squared distance of all rows to their mean, from those to the centroids: rows are not copied."""
    if not members:
        return 1.0
    sizes = np.array([len(rows) for rows in members.values()], np.float64)
    places = np.stack([centroids[c] for c in members])
    within = np.array([np.mean(distances[c].astype(np.float64) ** 2) for c in members])
    between = np.square(places - sizes @ places / sizes.sum()).sum(axis=1)
    return float(sizes @ (within + between) / sizes.sum()) or 1.0


def identity_agreement(cluster: NDArray[np.integer[Any]], identities: NDArray[np.int64]) -> dict[int, float]:
    """Of each cluster, how surely other photos of its vehicles lie in it too.

    Parameters
    ----------
    cluster
        Shape ``(n_rows,)``, −1 for noise.
    identities
        Code of the vehicle of each row, −1 where unknown, shape ``(n_rows,)``.

    Returns
    -------
    dict of int to float
        By cluster, the share of pairs of photos of one vehicle, one of them in the cluster, that has the other in
        it too; NaN if no vehicle of the cluster has another photo.
    """
    known = identities >= 0
    cluster, identities = cluster[known], identities[known]
    photos = np.bincount(identities)[identities] if len(identities) else np.empty(0)
    together = (
        pd.Series(1, index=range(len(cluster))).groupby([identities, cluster]).transform("size").to_numpy()
    )
    agreement = {}
    for number in np.unique(cluster[cluster != NOISE]).tolist():
        inside = cluster == number
        pairs = float((photos[inside] - 1).sum())
        agreement[number] = float((together[inside] - 1).sum()) / pairs if pairs else float("nan")
    return agreement


def majority(values: pd.Series[Any]) -> tuple[str, float]:
    """The most frequent known value and its share among the known ones; ``("", nan)`` if none is known."""
    known = values.dropna().astype(str)
    if known.empty:
        return "", float("nan")
    counts = known.value_counts()
    return str(counts.index[0]), float(counts.iloc[0] / len(known))


def propose_name(label: tuple[str, float], color: tuple[str, float], brightness: float) -> tuple[str, str]:
    """A plain-language name, and the evidence for it.

    Parameters
    ----------
    label
        Most frequent true label and its share; an empty name where there are no labels.
    color
        Most frequent color word and the share of images that it fits; an empty word where there is none.
    brightness
        Mean brightness of its images in [0, 1]; NaN without pictures.
    """
    words, evidence = [], []
    if color[0]:
        if color[1] >= 0.5:
            words.append(color[0])
        evidence.append(f"{color[1]:.0%} of the sampled images are {color[0]}")
    if label[0]:
        if label[1] >= 0.5:
            words.append(label[0])
        evidence.append(f"{label[1]:.0%} of the labelled images are '{label[0]}'")
    if np.isfinite(brightness):
        if brightness < 0.2:
            words.insert(0, "dark")
        elif brightness > 0.8:
            words.insert(0, "bright")
        evidence.append(f"mean brightness {brightness:.2f}")
    return " ".join(words) or "mixed", "; ".join(evidence)
