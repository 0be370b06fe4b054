"""How far later images lie from those of the fit: whether what was learnt still fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

N_BINS = 10
"""Of the outlier scores: tenths of the fit, or fewer, where many images lie in no way far out and score 0."""
BY_CHANCE = 0.001
"""Of batches that come from where the fit came from, the share that may look different by chance alone."""


@dataclass(frozen=True)
class Reference:
    """What images of the fit look like, to hold others against.

    Attributes
    ----------
    clusters, images
        Number of each cluster, and how many images of the fit it has by their weights, shape ``(n_clusters,)``.
    edges
        Outlier scores between the tenths of the fit, ascending, each once, shape ``(n_edges,)``.
    scored
        Images of the fit between them by their weights, shape ``(n_edges + 1,)``.
    unknown
        Share of the fit that lies beyond what is known.
    """

    clusters: NDArray[np.int64]
    images: NDArray[np.float64]
    edges: NDArray[np.float64]
    scored: NDArray[np.float64]
    unknown: float

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays, the inverse of `from_arrays`."""
        return {
            "clusters": self.clusters,
            "images": self.images,
            "edges": self.edges,
            "scored": self.scored,
            "unknown": np.array(self.unknown),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Reference:
        """The inverse of `to_arrays`."""
        return cls(
            arrays["clusters"],
            arrays["images"],
            arrays["edges"],
            arrays["scored"],
            float(arrays["unknown"]),
        )

    def bins_of(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """Between which edges some scores lie, from 0, shape ``(n_scores,)``."""
        return _bins(self.edges, scores)


def _units_of(vehicles: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which vehicle each image is of, from 0, and what it counts: all photos of a vehicle as much as one vehicle.

    Photos of a vehicle are alike: a sample of images scatters like a sample of vehicles, and a burst of many
    photos of one must not outweigh all others. An image of an unknown vehicle (−1) counts as one.
    """
    codes = np.where(vehicles < 0, vehicles.max(initial=0) + 1 + np.arange(len(vehicles)), vehicles)
    _, units, photos = np.unique(codes, return_inverse=True, return_counts=True)
    return units.astype(np.int64), 1 / photos[units]


def reference_of(
    clusters: NDArray[np.integer[Any]],
    scores: NDArray[np.floating[Any]],
    unknown: float,
    vehicles: NDArray[np.integer[Any]] | None = None,
    scored: NDArray[np.integer[Any]] | None = None,
) -> Reference:
    """What to hold later images against.

    Parameters
    ----------
    clusters
        Of the images of the fit, −1 for none, shape ``(n_rows,)``.
    scores
        How far out images of the fit lie, as later ones will be scored, shape ``(n_scores,)``.
    unknown
        Share of the fit beyond what is known.
    vehicles
        Code of the vehicle of each image of the fit, −1 where unknown, as all are if this is None.
    scored
        Rows of the fit that `scores` are of; the first ones if this is None.
    """
    units, weights = _units_of(np.full(len(clusters), -1) if vehicles is None else vehicles)
    rows = np.flatnonzero(clusters >= 0)
    numbers, places = np.unique(clusters[rows], return_inverse=True)
    images = _counts(places, weights[rows], len(numbers))
    edges = np.unique(np.quantile(scores.astype(np.float64), np.arange(1, N_BINS) / N_BINS))
    sample = np.arange(len(scores)) if scored is None else scored
    of_vehicles = np.bincount(units[sample], weights[sample])
    # together as many as vehicles of equal weight that would scatter as much (Kish's effective size)
    each = weights[sample] * of_vehicles.sum() / (of_vehicles**2).sum()
    between = _counts(_bins(edges, scores), each, len(edges) + 1)
    return Reference(numbers.astype(np.int64), images, edges, between, unknown)


def _counts(
    classes: NDArray[np.integer[Any]], weights: NDArray[np.float64], n_classes: int
) -> NDArray[np.float64]:
    return np.bincount(classes, weights, n_classes).astype(np.float64)


def _bins(edges: NDArray[np.float64], scores: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    return np.searchsorted(edges, scores.astype(np.float64), side="left").astype(np.int64)


def population_stability_index(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """How much two tables of counts over the same classes differ, whatever their totals.

    The sum over the classes of ``(q - p) ln(q / p)``, Jeffreys' divergence of the shares p and q; a half is added
    to every count, so that an empty class makes it large and not infinite. Rules of thumb call less than 0.1
    stable and more than 0.25 a shift (Siddiqi, Credit Risk Scorecards, 2006).
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (expected, found))
    return float(((q - p) * np.log(q / p)).sum())


def index_by_chance(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """What the population stability index of two samples of one population hardly ever exceeds.

    It is distributed as ``(1 / n + 1 / m)`` times chi square with as many degrees of freedom as there are classes
    less one (Yurdakul, Naranjo, Statistical properties of the population stability index, 2020): over 50 clusters
    a small batch exceeds any rule of thumb by chance.
    """
    from scipy import stats

    n, m = max(float(expected.sum()), 1.0), max(float(found.sum()), 1.0)
    return float((1 / n + 1 / m) * stats.chi2.ppf(1 - BY_CHANCE, max(len(expected) - 1, 1)))


@dataclass(frozen=True)
class Limits:
    """From where on a batch counts as drifted; each also has to be more than chance explains.

    Attributes
    ----------
    psi
        Population stability index, of the clusters and of the distances.
    refused
        Share of the images like nothing in the fit.
    """

    psi: float
    refused: float


def _mean_place(counts: NDArray[np.float64]) -> float:
    """Mean number of the class, for classes in an order."""
    return float(np.average(np.arange(len(counts)), weights=counts)) if counts.any() else 0.0


def measure_drift(
    labels: pd.DataFrame,
    reference: Reference,
    limits: Limits,
    vehicles: NDArray[np.integer[Any]] | None = None,
) -> dict[str, Any]:
    """How far a batch lies from the fit.

    Parameters
    ----------
    labels
        Of the images that count: `cluster`, `outlier_score`, `is_outlier`, `status`, as a labeller gives them.
    reference
        What the fit looks like.
    limits
        From where on that is drift.
    vehicles
        Code of the vehicle of each of those images, −1 where unknown, as all are if this is None.

    Returns
    -------
    dict
        `images`, usable ones; `refused` and `outliers`, their shares of them; `psi_clusters`, over those that have
        a cluster, and `psi_distances`, over tenths of the fit; both with ``…_by_chance``; `drifted`, and `reasons`
        in words.
    """
    of_vehicle = np.full(len(labels), -1) if vehicles is None else vehicles
    is_usable = ~labels["status"].str.startswith("unusable").to_numpy(bool)
    usable, of_vehicle = labels[is_usable], of_vehicle[is_usable]
    n = len(usable)
    is_refused = usable["status"].str.startswith("unknown").to_numpy(bool)
    _, weights = _units_of(of_vehicle)
    places = pd.Index(reference.clusters).get_indexer(pd.Index(usable["cluster"]))
    inside = places >= 0
    found = _counts(places[inside], weights[inside], len(reference.images))
    bins = reference.bins_of(usable["outlier_score"].to_numpy())
    scored = _counts(bins, weights, len(reference.scored))
    measured = {
        "images": n,
        "refused": float(is_refused.mean()) if n else 0.0,
        "outliers": float(usable["is_outlier"].mean()) if n else 0.0,
        "psi_clusters": population_stability_index(reference.images, found) if inside.any() else 0.0,
        "psi_clusters_by_chance": index_by_chance(reference.images, found),
        "psi_distances": population_stability_index(reference.scored, scored) if n else 0.0,
        "psi_distances_by_chance": index_by_chance(reference.scored, scored),
    }
    more_refused = _more_than_known(float(weights[is_refused].sum()), float(weights.sum()), reference.unknown)
    reasons = []
    if measured["refused"] > limits.refused and more_refused:
        reasons.append(f"{measured['refused']:.0%} of the images are like nothing in the fit")
    if measured["psi_clusters"] > max(limits.psi, measured["psi_clusters_by_chance"]):
        reasons.append(f"the shares of the clusters have shifted (PSI {measured['psi_clusters']:.2f})")
    farther = _mean_place(scored) > _mean_place(reference.scored)  # nearer images fit all the better
    if farther and measured["psi_distances"] > max(limits.psi, measured["psi_distances_by_chance"]):
        reasons.append(f"the distances to the fit have grown (PSI {measured['psi_distances']:.2f})")
    return {**measured, "drifted": bool(reasons), "reasons": "; ".join(reasons)}


def _more_than_known(refused: float, of: float, unknown: float) -> bool:
    """Whether more is refused than chance explains, if the fit has the share `unknown` of such images."""
    from scipy import stats

    n, k = round(of), round(refused)
    return bool(stats.binom.sf(k - 1, n, max(unknown, 1 / (n + 1))) < BY_CHANCE)
