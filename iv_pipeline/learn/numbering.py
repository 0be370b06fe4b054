"""Cluster numbers that last: 0 is the largest on the first fit, and a refit takes over known numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE = -1
SPLIT_SHARE = 0.25
"""A cluster that loses so much of itself to one other has been split."""


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


def changes(labels: NDArray[np.integer[Any]], previous: NDArray[np.integer[Any]]) -> pd.DataFrame:
    """What became of each cluster of the previous fit, so that no name comes to mean something else in silence.

    Parameters
    ----------
    labels
        Of this fit, as `carry_over` numbered them, shape ``(n_rows,)``.
    previous
        Of the previous fit for the same rows; −1 for noise and unknown rows.

    Returns
    -------
    pandas.DataFrame
        `cluster`, its number; `change`: ``kept``; ``split``, if at least `SPLIT_SHARE` of its images went to one
        other cluster; ``merged``, if the number is gone and most of its images went to one; ``vanished``, if it is
        gone otherwise; ``new``, if the previous fit did not have it. `images` that both fits have of it (of a new
        one: all), `kept_share` of those, and `into`, the clusters that took over at least `SPLIT_SHARE`.
    """
    now = set(np.unique(labels[labels != NOISE]).tolist())
    then = np.unique(previous[previous != NOISE]).tolist()
    rows: list[dict[str, Any]] = []
    for number in then:
        went = labels[previous == number]
        values, counts = np.unique(went, return_counts=True)
        share = dict(zip(values.tolist(), (counts / len(went)).tolist(), strict=True))
        into = [c for c, s in share.items() if c not in (number, NOISE) and s >= SPLIT_SHARE]
        if number in now:
            change = "split" if into else "kept"
        else:
            change = "merged" if max((share[c] for c in into), default=0) > 0.5 else "vanished"
        rows.append(_change(number, change, len(went), share.get(number, 0.0), into))
    rows += [_change(n, "new", int((labels == n).sum()), np.nan, []) for n in sorted(now - set(then))]
    return pd.DataFrame(rows, columns=["cluster", "change", "images", "kept_share", "into"])


def _change(number: int, change: str, images: int, kept: float, into: list[int]) -> dict[str, Any]:
    return {"cluster": number, "change": change, "images": images, "kept_share": kept, "into": into}
