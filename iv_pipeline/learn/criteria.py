"""Scores of a clustering that need no labels, and how far chance moves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.learn.clustering import NOISE
from iv_pipeline.learn.neighbors import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PREDICTOR_NEIGHBORS = 15
SILHOUETTE_ROWS = 2_000
INTERNAL = ("calinski_harabasz", "davies_bouldin", "silhouette")


@dataclass(frozen=True)
class Score:
    """A criterion's value, and what each judged row or vehicle contributes to its error.

    Attributes
    ----------
    value
        The score; NaN where the criterion has no meaning.
    contributions
        Influence of each judged unit on the value over the number of units, shape ``(n_units,)``, float32: the
        sum of their squares estimates the variance of the value (infinitesimal jackknife; Jaeckel 1972), given the
        clusters and what predicts them. Those of two clusterings of the same rows can be subtracted, so that the
        error of a difference is known, too.
    """

    value: float
    contributions: NDArray[np.float32]

    @property
    def standard_error(self) -> float:
        """How far chance moves the value: its standard deviation over samples of as many units."""
        return float(np.linalg.norm(self.contributions))


UNDEFINED = Score(np.nan, np.empty(0, np.float32))
"""Score of a criterion that has no meaning for a clustering, or of nothing."""


def mean_score(scores: Sequence[Score]) -> Score:
    """Mean of several scores of the same rows; undefined if there is none, or if one is."""
    if not scores or any(score is UNDEFINED for score in scores):
        return UNDEFINED
    contributions = np.stack([score.contributions for score in scores]).mean(axis=0)
    return Score(float(np.mean([score.value for score in scores])), contributions)


def standard_error_of_difference(one: Score, other: Score) -> float:
    """How far chance moves the difference of two scores; of other rows each, they are independent."""
    if one.contributions.shape != other.contributions.shape:
        return float(np.hypot(one.standard_error, other.standard_error))
    return float(np.linalg.norm(one.contributions.astype(np.float64) - other.contributions))


@dataclass(frozen=True)
class Predictor:
    """Predicts the clusters of rows from their neighbors in another descriptor.

    Attributes
    ----------
    rows
        Rows that are predicted, shape ``(n_judged,)``, int64.
    known
        Neighbors of each of them, all in the other half of the rows, shape ``(n_judged, n_neighbors)``, int64.
    n_rows
        Rows of the sample.
    """

    rows: NDArray[np.int64]
    known: NDArray[np.int64]
    n_rows: int

    def score(self, labels: NDArray[np.int32], n_clusters: int) -> Score:
        """What the predictions tell about the clusters, as a share of what `n_clusters` could tell.

        Mutual information of predicted and given clusters less the one expected by chance (Vinh, Epps, Bailey
        2010), over the logarithm of `n_clusters`: 1 if so many clusters of equal size are all predicted rightly,
        about 0 by chance. The adjusted index proper divides by the entropy of the clusters at hand instead, and so
        forgives clusters that tell little: a giant one with a few crumbs is predicted easily.

        Parameters
        ----------
        labels
            Cluster of each row, −1 for noise, which is predicted like a cluster; shape ``(n_rows,)``.
        n_clusters
            The same for all clusterings that are compared: the naming budget.
        """
        from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

        shifted = labels.astype(np.int64) - NOISE
        n, n_labels = len(self.rows), int(shifted.max(initial=0)) + 1
        if not n:
            return UNDEFINED
        flat = shifted[self.known] + np.arange(n)[:, None] * n_labels
        votes = np.bincount(flat.ravel(), minlength=n * n_labels).reshape(-1, n_labels)
        given, predicted = shifted[self.rows], votes.argmax(axis=1)
        joint = np.bincount(given * n_labels + predicted, minlength=n_labels**2).astype(np.float64)
        of_given, of_predicted = (np.bincount(part, minlength=n_labels) for part in (given, predicted))
        # each row's share of the mutual information, whose mean that is
        told = np.log(n * joint[given * n_labels + predicted] / (of_given[given] * of_predicted[predicted]))
        by_chance = expected_mutual_information(contingency_matrix(given, predicted, sparse=True), n)
        contributions = np.zeros(self.n_rows, np.float32)
        contributions[self.rows] = (told - told.mean()) / (n * np.log(n_clusters))
        return Score(float((told.mean() - by_chance) / np.log(n_clusters)), contributions)


def fit_predictor(view: NDArray[np.float32], seed: int = 0) -> Predictor:
    """A k-nearest-neighbor predictor of two halves of the rows, each from the other.

    Parameters
    ----------
    view
        The same rows in another descriptor, shape ``(n_rows, n_features)``; rows with NaN take no part.
    seed
        Seed of the halves.
    """
    rows = np.flatnonzero(np.isfinite(view).all(axis=1))
    rows = np.random.default_rng(seed).permutation(rows)
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    if len(rows) < 2:
        return Predictor(rows[:0], rows[:0, None], len(view))
    k = min(PREDICTOR_NEIGHBORS, *map(len, halves))
    known = [learn[nearest(view[judged], view[learn], k)] for learn, judged in (halves, halves[::-1])]
    return Predictor(np.concatenate(halves[::-1]), np.concatenate(known), len(view))


def identity_score(labels: NDArray[np.int32], identities: NDArray[np.int64] | None) -> Score:
    """How much likelier two photos of one vehicle share a cluster than two photos at random.

    ``(p - c) / (1 - c)`` with `p` the share of pairs of one vehicle in one cluster and `c` that of all pairs:
    1 if photos of a vehicle always fall together, 0 by chance. Vehicles are what chance draws.

    Parameters
    ----------
    labels
        Cluster of each row, shape ``(n_rows,)``.
    identities
        Code of the vehicle of each row, −1 where unknown, shape ``(n_rows,)``; None without identities.
    """
    if identities is None or (identities >= 0).sum() < 2:
        return UNDEFINED
    labels, identities = labels[identities >= 0], identities[identities >= 0]
    _, vehicle, photos = np.unique(identities, return_inverse=True, return_counts=True)
    values, cluster, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    cells, together = np.unique(vehicle * len(values) + cluster, return_counts=True)
    pairs = photos * (photos - 1)
    shared = np.bincount(cells // len(values), together * (together - 1), len(photos))
    chance = (sizes * (sizes - 1)).sum() / (len(labels) * (len(labels) - 1))
    if not pairs.sum() or chance >= 1:
        return UNDEFINED
    share = shared.sum() / pairs.sum()
    to_share = (shared - share * pairs) / pairs.sum()
    to_chance = (
        2 * (np.bincount(vehicle, sizes[cluster], len(photos)) / len(labels) - chance * photos) / len(labels)
    )
    contributions = to_share / (1 - chance) - to_chance * (1 - share) / (1 - chance) ** 2
    return Score(float((share - chance) / (1 - chance)), contributions.astype(np.float32))


def agreement_score(one: NDArray[np.int32], other: NDArray[np.int32]) -> Score:
    """Adjusted Rand index of two clusterings of the same rows (Hubert, Arabie 1985).

    Parameters
    ----------
    one, other
        Cluster of each row, shape ``(n_rows,)``.
    """
    n = len(one)
    # of each row, the share of other rows that are in its cluster: in both clusterings, and in each
    joint, a, b = (_companions(labels) for labels in (np.stack([one, other], axis=1), one, other))
    chance, most = a.mean() * b.mean(), (a.mean() + b.mean()) / 2
    if not most > chance:
        return Score(1.0, np.zeros(n, np.float32))  # nothing is divided, or everything, in both
    index = (joint.mean() - chance) / (most - chance)
    to_chance = a.mean() * (b - b.mean()) + b.mean() * (a - a.mean())
    to_most = (a - a.mean() + b - b.mean()) / 2
    influence = (joint - joint.mean() - to_chance - index * (to_most - to_chance)) / (most - chance)
    return Score(float(index), (2 * influence / n).astype(np.float32))


def _companions(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Share of the other rows that have the same label as each row, shape ``(n_rows,)``."""
    _, number, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    companions: NDArray[np.float64] = (counts[number] - 1) / max(len(labels) - 1, 1)
    return companions


def internal_scores(X: NDArray[np.float32], labels: NDArray[np.int32], seed: int = 0) -> dict[str, float]:
    """Calinski–Harabasz, Davies–Bouldin and silhouette of the rows that are in a cluster.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``.
    labels
        Shape ``(n_rows,)``, −1 for noise.
    seed
        Seed of the rows that the silhouette is computed on, at most `SILHOUETTE_ROWS`.
    """
    from sklearn import metrics

    inside = labels != NOISE
    X, labels = X[inside], labels[inside]
    n_clusters = len(np.unique(labels))
    if not 2 <= n_clusters < len(labels):
        return dict.fromkeys(INTERNAL, np.nan)
    rows = np.random.default_rng(seed).permutation(len(labels))[:SILHOUETTE_ROWS]
    some = len(np.unique(labels[rows]))
    return {
        "calinski_harabasz": float(metrics.calinski_harabasz_score(X, labels)),
        "davies_bouldin": float(metrics.davies_bouldin_score(X, labels)),
        "silhouette": float(metrics.silhouette_score(X[rows], labels[rows]))
        if 2 <= some < len(rows)
        else np.nan,
    }
