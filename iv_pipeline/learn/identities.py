"""Whether folders hold photos of one thing each: photos in a folder are closer than those of the next folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_FOLDERS = 10
"""Folders with several photos from which on they can be judged."""
MAX_PHOTOS = 50
"""Photos in the median folder up to which it may be one vehicle's; more are a camera's or a day's."""
MIN_COVERAGE = 0.5
"""Share of the photos that lie in folders with others."""
MAX_FOLDERS = 400
"""Folders that are compared, drawn at random."""
MAX_OF_FOLDER = 5
"""Photos of each that are."""
MIN_CLOSER = 0.65
"""Share of comparisons in which a photo is closer to one of its folder; 0.5 is chance."""


@dataclass(frozen=True)
class Comparisons:
    """Photos to compare, so that few vectors have to be read.

    Attributes
    ----------
    rows
        Of the photos, ascending, shape ``(n_rows,)``.
    pairs
        Positions in `rows` of the photos of each folder, and of those of the next one.
    """

    rows: NDArray[np.int64]
    pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class Closeness:
    """How often a photo is closer to another of its folder than to one of the next folder.

    Attributes
    ----------
    share
        Of the comparisons, mean over folders; 0.5 is chance.
    error
        Standard error of that mean.
    """

    share: float
    error: float

    @property
    def is_identity(self) -> bool:
        """Whether folders hold one thing each: the share exceeds `MIN_CLOSER` by two standard errors."""
        return self.share - 2 * self.error > MIN_CLOSER


def plan_comparisons(folders: NDArray[np.int64], parents: NDArray[np.int64], seed: int) -> Comparisons | None:
    """Photos whose distances tell whether folders are identities; None if the folders cannot be.

    A folder is compared with the next one in the same parent, in the order of the delivery: the two share camera,
    place and hour, which make photos alike whatever they show.

    Parameters
    ----------
    folders
        Folder of each photo, shape ``(n_photos,)``, counted in their order; −1 for none.
    parents
        What that folder lies in, likewise.
    seed
        Chooses folders and photos.
    """
    order = np.argsort(folders, kind="stable")
    order = order[folders[order] >= 0]
    if not len(order):
        return None
    starts = np.flatnonzero(np.diff(folders[order], prepend=-1))
    members = np.split(order, starts[1:])
    sizes = np.array([len(rows) for rows in members])
    several = sizes >= 2
    if (
        several.sum() < MIN_FOLDERS
        or np.median(sizes) > MAX_PHOTOS
        or sizes[several].sum() < MIN_COVERAGE * len(folders)
    ):
        return None
    parent = parents[[rows[0] for rows in members]]
    nexts = _next_in_parent(parent)
    able = np.flatnonzero(several & (nexts >= 0))
    if len(able) < MIN_FOLDERS:
        return None
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(able)[:MAX_FOLDERS])
    drawn = {
        int(i): np.sort(rng.permutation(members[i])[:MAX_OF_FOLDER])
        for i in np.union1d(chosen, nexts[chosen])
    }
    rows = np.unique(np.concatenate(list(drawn.values())))
    at = {i: np.searchsorted(rows, of) for i, of in drawn.items()}
    return Comparisons(rows, [(at[int(i)], at[int(nexts[i])]) for i in chosen])


def _next_in_parent(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The next folder in the same parent, the first one after the last; −1 if there is no other."""
    nexts = np.full(len(parent), -1, np.int64)
    for value in np.unique(parent):
        inside = np.flatnonzero(parent == value)
        if len(inside) > 1:
            nexts[inside] = np.roll(inside, -1)
    return nexts


def measure_closeness(X: NDArray[Any], comparisons: Comparisons) -> Closeness:
    """How much closer photos of a folder are to each other than to those of the next, by one descriptor.

    Parameters
    ----------
    X
        Vectors of `comparisons.rows`, shape ``(n_rows, n_features)``; rows that are not finite count for nothing.
    comparisons
        As `plan_comparisons` made them.
    """
    X = np.asarray(X, np.float64)
    finite = np.isfinite(X).all(axis=1)
    if finite.sum() < 2:
        return Closeness(0.5, np.inf)
    spread = X[finite].std(axis=0)
    Z = np.where(finite[:, None], X - X[finite].mean(axis=0), 0) / np.where(spread > 0, spread, 1)
    shares = []
    for inside, after in comparisons.pairs:
        own, other = inside[finite[inside]], after[finite[after]]
        if len(own) > 1 and len(other):
            shares.append(_share_closer(Z[own], Z[other]))
    if len(shares) < MIN_FOLDERS:
        return Closeness(0.5, np.inf)
    return Closeness(float(np.mean(shares)), float(np.std(shares, ddof=1) / np.sqrt(len(shares))))


def _share_closer(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Share of triples, two photos of a folder and one of another, whose two are closer; ties count half."""
    within = np.linalg.norm(own[:, None] - own[None], axis=2)
    across = np.linalg.norm(own[:, None] - other[None], axis=2)
    closer = (within[:, :, None] < across[:, None, :]) + 0.5 * (within[:, :, None] == across[:, None, :])
    return float(closer[~np.eye(len(own), dtype=bool)].mean())
