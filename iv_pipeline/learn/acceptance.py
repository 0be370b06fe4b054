"""Whether a fit on more images takes the place of the one before: the written rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.learn.criteria import Score, standard_error_of_difference
from iv_pipeline.learn.numbering import NOISE, changes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

CHANGES = ("kept", "split", "merged", "vanished", "new")
STANDARD_ERRORS = 2
"""A score may fall by so many standard errors of the difference: that may be chance."""


@dataclass(frozen=True)
class Terms:
    """What a new fit has to hold to.

    Attributes
    ----------
    score_loss
        What the score may lose against the old clusters on the same images.
    kept_share
        Share of the images of the old fit that have to keep their cluster.
    """

    score_loss: float
    kept_share: float


def compare_fits(
    old: NDArray[np.int32],
    new: NDArray[np.int32],
    n_old: int,
    names: Mapping[int, str],
    score: Callable[[NDArray[np.int32]], Score],
) -> dict[str, Any]:
    """How the clusters of a new fit differ from those of the old one.

    Parameters
    ----------
    old
        Clusters of all images by the old fit, as numbered there, shape ``(n_rows,)``: its own of the first
        `n_old`, its model's of those that came later; −1 for none.
    new
        By the new fit, its numbers carried over.
    n_old
        Images of the old fit.
    names
        That people gave to old clusters, by number.
    score
        How good a clustering of these images is: more is better.

    Returns
    -------
    dict
        `score_before`, `score_after`, and `score_error`, the standard error of their difference; `kept_share` of
        the images of the old fit that are in its cluster still; `clusters_kept` and so on, how many clusters of
        the old fit became what, and are `clusters_new`; `names_lost`, of clusters that are gone.
    """
    known = old[:n_old] != NOISE
    became = changes(new[:n_old], old[:n_old])
    gone = became["cluster"][became["change"].isin(["merged", "vanished"])]
    count = became["change"].value_counts()
    before, after = score(old), score(new)
    return {
        "score_before": before.value,
        "score_after": after.value,
        "score_error": standard_error_of_difference(before, after),
        "kept_share": float((new[:n_old] == old[:n_old])[known].mean()) if known.any() else 1.0,
        **{f"clusters_{change}": int(count.get(change, 0)) for change in CHANGES},
        "names_lost": "; ".join(names[number] for number in gone.tolist() if number in names),
    }


def objections(compared: Mapping[str, Any], terms: Terms) -> list[str]:
    """Why the new fit of a descriptor must not take the place of the old one; nothing if it may.

    It may if its score is not lower than the old one's by more than `Terms.score_loss` and by more than chance
    explains, if at least `Terms.kept_share` of the images keep their cluster, and if no cluster that a person has
    named is gone.
    """
    found = []
    before, after = compared["score_before"], compared["score_after"]
    if np.isfinite(before) and not after >= before - max(
        terms.score_loss, STANDARD_ERRORS * compared["score_error"]
    ):
        found.append(f"its score falls from {before:.3f} to {after:.3f}")
    if compared["kept_share"] < terms.kept_share:
        found.append(f"only {compared['kept_share']:.0%} of the images keep their cluster")
    if compared["names_lost"]:
        found.append(f"named clusters are gone: {compared['names_lost']}")
    return found
