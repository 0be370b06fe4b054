"""How far later images lie from those of the fit: whether what was learnt still fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
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

    def between_edges(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """How many of some scores lie between the edges, shape ``(n_edges + 1,)``."""
        return _between(self.edges, scores)


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
    scored = _between(edges, scores)
    return Reference(numbers.astype(np.int64), images.astype(np.int64), edges, scored, unknown)


def _between(edges: NDArray[np.float64], scores: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    places = np.searchsorted(edges, scores.astype(np.float64), side="left")
    return np.bincount(places, minlength=len(edges) + 1).astype(np.int64)


def population_stability_index(expected: NDArray[np.integer[Any]], found: NDArray[np.integer[Any]]) -> float:
    """How much two tables of counts over the same classes differ, whatever their totals.

    The sum over the classes of ``(q - p) ln(q / p)``, Jeffreys' divergence of the shares p and q; half an image is
    added to every class, so that an empty one makes it large and not infinite. Rules of thumb call less than 0.1
    stable and more than 0.25 a shift (Siddiqi, Credit Risk Scorecards, 2006).
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (expected, found))
    return float(((q - p) * np.log(q / p)).sum())


def index_by_chance(expected: NDArray[np.integer[Any]], found: NDArray[np.integer[Any]]) -> float:
    """What the population stability index of two samples of one population hardly ever exceeds.

    It is distributed as ``(1 / n + 1 / m)`` times chi square with as many degrees of freedom as there are classes
    less one (Yurdakul, Naranjo, Statistical properties of the population stability index, 2020): over 50 clusters
    a small batch exceeds any rule of thumb by chance.
    """
    n, m = max(int(expected.sum()), 1), max(int(found.sum()), 1)
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


def _mean_place(counts: NDArray[np.int64]) -> float:
    """Mean number of the class, for classes in an order."""
    return float(np.average(np.arange(len(counts)), weights=counts)) if counts.any() else 0.0


def measure_drift(labels: pd.DataFrame, reference: Reference, limits: Limits) -> dict[str, Any]:
    """How far a batch lies from the fit.

    Parameters
    ----------
    labels
        Of the images that count: `cluster`, `outlier_score`, `is_outlier`, `status`, as a labeller gives them.
    reference
        What the fit looks like.
    limits
        From where on that is drift.

    Returns
    -------
    dict
        `images`, usable ones; `refused` and `outliers`, their shares of them; `psi_clusters`, over those that have
        a cluster, and `psi_distances`, over tenths of the fit; both with ``…_by_chance``; `drifted`, and `reasons`
        in words.
    """
    usable = labels[~labels["status"].str.startswith("unusable")]
    n = len(usable)
    refused = int(usable["status"].str.startswith("unknown").sum())
    inside = usable["cluster"][usable["cluster"] >= 0]
    found = inside.value_counts().reindex(reference.clusters, fill_value=0).to_numpy()
    scored = reference.between_edges(usable["outlier_score"].to_numpy())
    measured = {
        "images": n,
        "refused": refused / n if n else 0.0,
        "outliers": float(usable["is_outlier"].mean()) if n else 0.0,
        "psi_clusters": population_stability_index(reference.images, found) if len(inside) else 0.0,
        "psi_clusters_by_chance": index_by_chance(reference.images, found),
        "psi_distances": population_stability_index(reference.scored, scored) if n else 0.0,
        "psi_distances_by_chance": index_by_chance(reference.scored, scored),
    }
    more_refused = n and stats.binom.sf(refused - 1, n, max(reference.unknown, 1 / (n + 1))) < BY_CHANCE
    reasons = []
    if measured["refused"] > limits.refused and more_refused:
        reasons.append(f"{measured['refused']:.0%} of the images are like nothing in the fit")
    if measured["psi_clusters"] > max(limits.psi, measured["psi_clusters_by_chance"]):
        reasons.append(f"the shares of the clusters have shifted (PSI {measured['psi_clusters']:.2f})")
    farther = _mean_place(scored) > _mean_place(reference.scored)  # nearer images fit all the better
    if farther and measured["psi_distances"] > max(limits.psi, measured["psi_distances_by_chance"]):
        reasons.append(f"the distances to the fit have grown (PSI {measured['psi_distances']:.2f})")
    return {**measured, "drifted": bool(reasons), "reasons": "; ".join(reasons)}
