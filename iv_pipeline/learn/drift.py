"""How far later images lie from those of the fit: whether what was learnt still fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

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
        Number of each cluster, and how many images of the fit it has, shape ``(n_clusters,)``.
    edges
        Outlier scores between the tenths of the fit, ascending, each once, shape ``(n_edges,)``.
    scored
        Images of the fit between them, shape ``(n_edges + 1,)``.
    unknown
        Share of the fit that lies beyond what is known.
    """

    clusters: NDArray[np.int64]
    images: NDArray[np.int64]
    edges: NDArray[np.float64]
    scored: NDArray[np.int64]
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


def reference_of(
    clusters: NDArray[np.integer[Any]], scores: NDArray[np.floating[Any]], unknown: float
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
    """
    numbers, images = np.unique(clusters[clusters >= 0], return_counts=True)
    edges = np.unique(np.quantile(scores.astype(np.float64), np.arange(1, N_BINS) / N_BINS))
    scored = np.bincount(_bins(edges, scores), minlength=len(edges) + 1).astype(np.int64)
    return Reference(numbers.astype(np.int64), images.astype(np.int64), edges, scored, unknown)


def _bins(edges: NDArray[np.float64], scores: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    return np.searchsorted(edges, scores.astype(np.float64), side="left").astype(np.int64)


def population_stability_index(
    expected: NDArray[np.integer[Any]], found: NDArray[np.integer[Any]], draw: float = 1.0
) -> float:
    """How much two tables of counts over the same classes differ, whatever their totals.

    The sum over the classes of ``(q - p) ln(q / p)``, Jeffreys' divergence of the shares p and q; half a `draw` of
    images (`Spread.scale`) is added to every class, so that an empty one makes it large and not infinite. Rules of
    thumb call less than 0.1 stable and more than 0.25 a shift (Siddiqi, Credit Risk Scorecards, 2006).
    """
    half = draw / 2
    p, q = ((counts + half) / (counts.sum() + half * len(counts)) for counts in (expected, found))
    return float(((q - p) * np.log(q / p)).sum())


@dataclass(frozen=True)
class Spread:
    """How widely the counts of a sample scatter: as `scale` times chi square with `freedom` degrees of freedom.

    Of images that were drawn one by one `scale` is 1 and `freedom` the number of classes less one.
    """

    scale: float
    freedom: float


def spread_of(
    classes: NDArray[np.integer[Any]], n_classes: int, vehicles: NDArray[np.integer[Any]]
) -> Spread:
    """How widely the counts of images scatter that came vehicle by vehicle.

    Photos of a vehicle are alike, so that many photos of few vehicles tell little. The covariance of the shares is
    that of whole vehicles drawn at random; Pearson's statistic is then a sum of chi squares weighted by the
    eigenvalues of that covariance over the one of single images (Rao, Scott, The analysis of categorical data from
    complex sample surveys, 1981), with mean and variance as here (Satterthwaite's approximation).

    Parameters
    ----------
    classes
        Of each image, from 0, shape ``(n_images,)``.
    n_classes
        How many there are.
    vehicles
        Code of the vehicle of each image, shape ``(n_images,)``; −1 where unknown: an image by itself.
    """
    n = len(classes)
    drawn_singly = Spread(1.0, max(n_classes - 1, 1))
    unknown = vehicles < 0
    codes = np.where(unknown, vehicles.max(initial=0) + 1 + np.arange(n), vehicles)
    _, units, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    if n == 0 or len(sizes) == n:
        return drawn_singly
    if len(sizes) == 1:
        return Spread(float(n), drawn_singly.freedom)  # one vehicle, one draw
    counts = sparse.coo_array((np.ones(n), (units, classes)), shape=(len(sizes), n_classes)).tocsr()
    shares = counts.sum(axis=0) / n
    crossed = np.outer(counts.T @ sizes, shares)
    squared = (
        (counts.T @ counts).toarray() - crossed - crossed.T + (sizes**2).sum() * np.outer(shares, shares)
    )
    weights = np.sqrt(np.outer(shares, shares))
    covariance = np.divide(squared, weights, out=np.zeros_like(weights), where=weights > 0)
    covariance *= len(sizes) / (len(sizes) - 1) / n
    total, squares = float(np.trace(covariance)), float((covariance**2).sum())
    if total <= drawn_singly.freedom:
        return drawn_singly
    return Spread(squares / total, total**2 / squares)


def index_by_chance(
    expected: NDArray[np.integer[Any]], found: NDArray[np.integer[Any]], spread: Spread | None = None
) -> float:
    """What the population stability index of two samples of one population hardly ever exceeds.

    It is distributed as ``(1 / n + 1 / m)`` times chi square with as many degrees of freedom as there are classes
    less one (Yurdakul, Naranjo, Statistical properties of the population stability index, 2020): over 50 clusters
    a small batch exceeds any rule of thumb by chance. `spread` says how samples scatter that were not drawn image
    by image; that of the later sample holds for both.
    """
    n, m = max(int(expected.sum()), 1), max(int(found.sum()), 1)
    spread = spread or Spread(1.0, max(len(expected) - 1, 1))
    return float((1 / n + 1 / m) * spread.scale * stats.chi2.ppf(1 - BY_CHANCE, spread.freedom))


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


def _mean_place(counts: NDArray[np.int64]) -> float:
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
    places = pd.Index(reference.clusters).get_indexer(pd.Index(usable["cluster"]))
    inside = places >= 0
    bins = reference.bins_of(usable["outlier_score"].to_numpy())
    psi_clusters, clusters_by_chance, _ = _shift(reference.images, places[inside], of_vehicle[inside])
    psi_distances, distances_by_chance, scored = _shift(reference.scored, bins, of_vehicle)
    measured = {
        "images": n,
        "refused": float(is_refused.mean()) if n else 0.0,
        "outliers": float(usable["is_outlier"].mean()) if n else 0.0,
        "psi_clusters": psi_clusters,
        "psi_clusters_by_chance": clusters_by_chance,
        "psi_distances": psi_distances,
        "psi_distances_by_chance": distances_by_chance,
    }
    reasons = []
    if measured["refused"] > limits.refused and _more_than_known(is_refused, of_vehicle, reference.unknown):
        reasons.append(f"{measured['refused']:.0%} of the images are like nothing in the fit")
    if measured["psi_clusters"] > max(limits.psi, measured["psi_clusters_by_chance"]):
        reasons.append(f"the shares of the clusters have shifted (PSI {measured['psi_clusters']:.2f})")
    farther = _mean_place(scored) > _mean_place(reference.scored)  # nearer images fit all the better
    if farther and measured["psi_distances"] > max(limits.psi, measured["psi_distances_by_chance"]):
        reasons.append(f"the distances to the fit have grown (PSI {measured['psi_distances']:.2f})")
    return {**measured, "drifted": bool(reasons), "reasons": "; ".join(reasons)}


def _shift(
    expected: NDArray[np.int64], classes: NDArray[np.integer[Any]], vehicles: NDArray[np.integer[Any]]
) -> tuple[float, float, NDArray[np.int64]]:
    """Population stability index of some images, what chance explains of it, and how many are of each class."""
    found = np.bincount(classes, minlength=len(expected)).astype(np.int64)
    spread = spread_of(classes, len(expected), vehicles)
    index = population_stability_index(expected, found, spread.scale) if len(classes) else 0.0
    return index, index_by_chance(expected, found, spread), found


def _more_than_known(refused: NDArray[np.bool_], vehicles: NDArray[np.integer[Any]], unknown: float) -> bool:
    """Whether more images are refused than chance explains, if the fit has the share `unknown` of such images."""
    scale = spread_of(refused.astype(np.int64), 2, vehicles).scale
    n, k = round(len(refused) / scale), round(refused.sum() / scale)
    return bool(stats.binom.sf(k - 1, n, max(unknown, 1 / (n + 1))) < BY_CHANCE)
