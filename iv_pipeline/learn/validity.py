"""Vectors that can be used: finite, not all zero, and of a length that a network produces.

Embedding tools write zeros for pictures that they could not read, and uninitialized memory or an overflow gives
finite numbers that are absurd: a single such row decides a mean, a covariance and every distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from iv_pipeline.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

USABLE, NOT_FINITE, ALL_ZERO, TOO_LONG = range(4)
"""Codes of a vector."""
REASONS = ("", "NaN or infinite values", "all zeros", "values far beyond those of the other images")
"""Words for each code; empty for a usable vector."""
SAMPLED_ROWS = 10_000
"""Vectors, evenly spaced, whose lengths say what is usual."""
MAX_RATIO = 30.0
"""Length of a vector over the median length up to which it is always usable. In four descriptors of a delivery
and four of the demo the longest vector has 2.5 times the median length."""
LEAST_EXACT = 1e-15
"""Length below which squares of float32 lose digits."""
MAX_DEVIATIONS = 10.0
"""Robust standard deviations of the logarithm of the length up to which a vector is always usable: in those eight
the longest has 5.6. Where lengths vary widely by nature, this is the wider bound."""


class Vectors(Protocol):
    """Vectors that are read by their rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_features)``."""
        ...

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Vectors of `rows`, ascending and each once."""
        ...


@dataclass(frozen=True)
class ValidityRule:
    """Bounds of usable vectors; a combination has one for each of its descriptors.

    Attributes
    ----------
    widths
        Number of features of each descriptor, side by side.
    max_norms
        Greatest Euclidean length of a usable vector of each.
    """

    widths: tuple[int, ...]
    max_norms: tuple[float, ...]

    @classmethod
    def join(cls, rules: Sequence[ValidityRule]) -> ValidityRule:
        """The rule of descriptors side by side: usable if every one of them is."""
        return cls(
            tuple(width for rule in rules for width in rule.widths),
            tuple(norm for rule in rules for norm in rule.max_norms),
        )

    def codes(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Code of each vector, that of its first unusable descriptor; shape ``(n_rows,)``."""
        codes = np.zeros(len(rows), np.uint8)
        ends = np.cumsum([0, *self.widths]).tolist()
        for (begin, end), max_norm in zip(pairwise(ends), self.max_norms, strict=True):
            norms = lengths(rows[:, begin:end])
            own = np.select(
                [~np.isfinite(norms), norms == 0, norms > max_norm], [NOT_FINITE, ALL_ZERO, TOO_LONG], USABLE
            )
            codes = np.where(codes == USABLE, own, codes).astype(np.uint8)
        return codes

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays, the inverse of `from_arrays`."""
        return {"widths": np.array(self.widths, np.int64), "max_norms": np.array(self.max_norms, np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ValidityRule:
        """The inverse of `to_arrays`."""
        return cls(tuple(arrays["widths"].tolist()), tuple(arrays["max_norms"].tolist()))


def lengths(rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Euclidean length of each vector, shape ``(n_rows,)``; not finite where a value is not.

    Squares are of the dtype of `rows`; where they overflow, or lose digits near zero, the vector is scaled first.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        norms: NDArray[np.float64] = np.sqrt(np.einsum("nd,nd->n", rows, rows)).astype(np.float64)
    doubtful = np.flatnonzero(~np.isfinite(norms) | (norms < LEAST_EXACT))
    if len(doubtful):
        wide = rows[doubtful].astype(np.float64)
        greatest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
        with np.errstate(invalid="ignore"):  # infinity over infinity
            scaled = np.linalg.norm(wide / np.where(greatest > 0, greatest, 1), axis=1)
            norms[doubtful] = greatest[:, 0] * scaled
    return norms


def fit_validity(vectors: Vectors, where: str = "") -> ValidityRule:
    """Learn how long vectors of a descriptor usually are.

    A vector is too long if its length exceeds the median by more than the factor `MAX_RATIO` *and* its logarithm
    by more than `MAX_DEVIATIONS` robust standard deviations (1.4826 times the median absolute deviation). Half of
    the vectors may be garbage before that moves the median.

    Parameters
    ----------
    vectors
        Raw vectors, shape ``(n_rows, n_features)``.
    where
        What the vectors are, such as the name of their descriptor, for error messages.

    Raises
    ------
    InputError
        If fewer than two of the sampled vectors are usable, or all usable ones are equal.
    """
    n_rows, n_features = vectors.shape
    sample = np.unique(np.linspace(0, n_rows - 1, min(n_rows, SAMPLED_ROWS)).astype(np.int64))
    rows = vectors.take(sample)
    norms = lengths(rows)
    comparable = np.isfinite(norms) & (norms > 0)
    _require_variety(rows, comparable, where)
    logarithms = np.log(norms[comparable])
    median = float(np.median(logarithms))
    deviation = 1.4826 * float(np.median(np.abs(logarithms - median)))
    with np.errstate(over="ignore"):
        limit = np.exp(median + max(np.log(MAX_RATIO), MAX_DEVIATIONS * deviation))
    return ValidityRule((n_features,), (float(limit),))


def _require_variety(rows: NDArray[np.float32], comparable: NDArray[np.bool_], where: str) -> None:
    """Refuse vectors that nothing can be learned from.

    Raises
    ------
    InputError
        If fewer than two vectors are `comparable`, or those are all equal.
    """
    if comparable.sum() < 2:
        dead = np.flatnonzero(~np.isfinite(rows).any(axis=0))
        culprit = f": feature {dead[0]} (counted from 0) is NaN or infinite in every row" if len(dead) else ""
        raise InputError(
            f"only {comparable.sum():,} of {len(rows):,} vectors are finite and not all zero{culprit}",
            where=where,
            fix="compute the descriptor again, or drop the feature from the file",
        )
    known = rows[comparable]
    if (known == known[0]).all():
        raise InputError(
            "every vector is the same, which tells no two images apart",
            where=where,
            fix="compute the descriptor again, or remove it from the configuration",
        )


def without_unusable(rows: NDArray[np.float32], codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The rows themselves if all are usable; otherwise a copy in which the others are NaN."""
    unusable = codes != USABLE
    if not unusable.any():
        return rows
    rows = rows.copy()
    rows[unusable] = np.nan
    return rows
