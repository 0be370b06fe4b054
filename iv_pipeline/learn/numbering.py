"""Cluster numbers that last: 0 is the largest on the first fit, and a refit takes over known numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE = -1


def number_by_size(labels: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Renumber clusters so that 0 is the largest, ties by first appearance; noise stays −1."""
    values, first, counts = np.unique(labels, return_index=True, return_counts=True)
    clusters = values != NOISE
    order = np.lexsort((first[clusters], -counts[clusters]))
    number = np.full(len(values), NOISE, np.int32)
    number[np.flatnonzero(clusters)[order]] = np.arange(clusters.sum(), dtype=np.int32)
    return number[np.searchsorted(values, labels)]


def carry_over(
    labels: NDArray[np.integer[Any]], previous: NDArray[np.integer[Any]] | None
) -> NDArray[np.int32]:
    """Renumber clusters by the previous fit's, so that names that people gave stay true.

    Each cluster takes the number of one previous cluster, so that the images that keep their number are as many
    as possible; clusters without a predecessor get numbers that were never used.

    Parameters
    ----------
    labels
        Of this fit, −1 for noise, shape ``(n_rows,)``.
    previous
        Of the previous fit for the same rows, −1 for noise and unknown rows; None on the first fit.
    """
    if previous is None or (previous == NOISE).all():
        return number_by_size(labels)
    now, row = np.unique(labels[labels != NOISE], return_inverse=True)
    then = np.unique(previous[previous != NOISE])
    shared = (labels != NOISE) & (previous != NOISE)
    overlap = np.zeros((len(now), len(then)), np.int64)
    np.add.at(overlap, (np.searchsorted(now, labels[shared]), np.searchsorted(then, previous[shared])), 1)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    number = np.full(len(now), NOISE, np.int32)
    matched = overlap[rows, columns] > 0
    number[rows[matched]] = then[columns[matched]]
    sizes = np.bincount(row, minlength=len(now))
    unmatched = np.flatnonzero(number == NOISE)
    unmatched = unmatched[np.lexsort((unmatched, -sizes[unmatched]))]
    number[unmatched] = int(previous.max()) + 1 + np.arange(len(unmatched))
    result = np.full(len(labels), NOISE, np.int32)
    result[labels != NOISE] = number[row]
    return result
