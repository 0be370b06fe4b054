"""How far a new row lies from the rows of a fit: whether it is an outlier there, or not known at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.learn.neighbors import NeighborSearch, neighbor_graph
from iv_pipeline.learn.outliers import Unifier

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

N_REFERENCE = 5_000
"""Rows of the fit that new rows are compared with: enough to tell what is rarer than one in a thousand."""
N_SAMPLED = 2 * N_REFERENCE
"""Rows that are looked at in all: as many others say how far out rows usually lie."""
LEAST_NEIGHBORS = 5


@dataclass(frozen=True)
class Novelty:
    """Scores rows by the mean distance to their nearest neighbors among rows of the fit.

    Attributes
    ----------
    reference
        Rows of the fit, shape ``(n_reference, n_features)``, float32.
    n_neighbors
        That the distance is a mean over.
    unifier
        Distances as scores in [0, 1), as the outliers of the fit are scored.
    outlier_above, unknown_above
        Scores beyond which a row is an outlier, and beyond which it is like nothing in the fit.
    scores
        Of rows of the fit that were held against it as later rows will be, shape ``(n_scored,)``, float32.
    """

    reference: NDArray[np.float32]
    n_neighbors: int
    unifier: Unifier
    outlier_above: float
    unknown_above: float
    scores: NDArray[np.float32]

    def score(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """In [0, 1), shape ``(n_rows,)``; the rows of `X` are finite."""
        if not len(X):
            return np.empty(0, np.float32)
        _, distances = NeighborSearch(self.reference)(np.ascontiguousarray(X), self.n_neighbors)
        return self.unifier(distances.mean(axis=1, dtype=np.float64))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays, the inverse of `from_arrays`."""
        return {
            "reference": self.reference,
            "n_neighbors": np.array(self.n_neighbors),
            "middle": np.array(self.unifier.middle),
            "spread": np.array(self.unifier.spread),
            "outlier_above": np.array(self.outlier_above),
            "unknown_above": np.array(self.unknown_above),
            "scores": self.scores,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Novelty:
        """The inverse of `to_arrays`."""
        return cls(
            arrays["reference"],
            int(arrays["n_neighbors"]),
            Unifier(float(arrays["middle"]), float(arrays["spread"])),
            float(arrays["outlier_above"]),
            float(arrays["unknown_above"]),
            arrays["scores"],
        )


def fit_novelty(
    X: NDArray[np.float32],
    *,
    contamination: float,
    unknown: float,
    n_neighbors: int = 50,
    seed: int = 0,
    n_rows: int | None = None,
) -> Novelty:
    """Learn how far rows usually lie from each other.

    Parameters
    ----------
    X
        Rows of the fit, shape ``(n_rows, n_features)``, float32, finite.
    contamination
        Share of the rows that are to be outliers.
    unknown
        Share of the rows that lie so far out that a new row like them would be like nothing in the fit.
    n_neighbors
        Of each row among all rows; among a sample as many fewer, at least `LEAST_NEIGHBORS`, so that
        neighborhoods stay as wide and a clump of strange rows does not make itself at home.
    seed
        Of the rows that are compared with.
    n_rows
        Rows that `X` is a sample of, at least `N_SAMPLED` of them; None if it is all of them.
    """
    n_rows = n_rows or len(X)
    known, scored = _chosen(len(X), seed)
    reference = np.ascontiguousarray(X[known])
    k = min(max(LEAST_NEIGHBORS, round(n_neighbors * len(known) / n_rows)), len(known) - 1)
    distances = (
        neighbor_graph(reference, k).distances  # each row of the sample among the rest
        if scored is known
        else NeighborSearch(reference)(np.ascontiguousarray(X[scored]), k)[1]
    )
    mean = distances.mean(axis=1, dtype=np.float64)
    unifier = Unifier.fit(mean)
    scores = unifier(mean)
    return Novelty(
        reference,
        k,
        unifier,
        float(np.quantile(scores, 1 - contamination)),
        float(np.quantile(scores, 1 - unknown)),
        scores,
    )


def scored_rows(n_rows: int, seed: int = 0) -> NDArray[np.int64]:
    """Of `n_rows` rows those that `fit_novelty` scores, in the order of its scores, shape ``(n_scored,)``."""
    return _chosen(n_rows, seed)[1]


def _chosen(n_rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that others are compared with, and rows that are; the same, if there are too few others."""
    order = np.random.default_rng(seed).permutation(n_rows)
    known, others = np.sort(order[:N_REFERENCE]), order[N_REFERENCE : 2 * N_REFERENCE]
    return known, others if len(others) == N_REFERENCE else known
