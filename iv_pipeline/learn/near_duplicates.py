"""Groups of pictures that look almost the same, by their perceptual hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def near_duplicates(phash: NDArray[np.uint64], distance: int = 2) -> NDArray[np.int32]:
    """Group images whose hashes differ in few bits, in time that grows with n log n.

    Two hashes that differ in `distance` bits agree in all but that many of ``distance + 2`` bands, so in at
    least two; they are compared where two bands agree, with the 32 next hashes of that bucket.

    Parameters
    ----------
    phash
        Hashes, shape ``(n,)``; 0 stands for an image without structure, which joins no group.
    distance
        Greatest number of differing bits of two neighbors in a group; groups are chains of neighbors.

    Returns
    -------
    numpy.ndarray
        Number of the group of each image, in order of first appearance, -1 if it has no near-duplicate;
        shape ``(n,)``. Equal hashes are always in one group; other pairs may be missed only where more than
        32 different hashes share a bucket.
    """
    out = np.full(len(phash), -1, np.int32)
    structured = np.flatnonzero(phash)
    unique, inverse = np.unique(phash[structured], return_inverse=True)
    pairs = np.concatenate([np.empty((0, 2), np.intp), *_close_pairs(unique, distance)])
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(unique),) * 2)
    component = connected_components(graph, directed=False)[1][inverse] if len(unique) else inverse
    _, first, number, size = np.unique(component, return_index=True, return_inverse=True, return_counts=True)
    order = first[size > 1].argsort().argsort()
    name = np.full(len(size), -1)
    name[size > 1] = order
    out[structured] = name[number]
    return out


def _close_pairs(hashes: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.intp]]:
    """Pairs of rows of `hashes` (sorted, unique) within `distance` bits; some come more than once."""
    for mask in _band_masks(distance + 2):
        key = hashes & mask
        order = np.lexsort((hashes, key))
        key, ordered = key[order], hashes[order]
        for step in range(1, 33):
            same = np.flatnonzero(key[step:] == key[:-step])
            if not len(same):
                break
            close = np.bitwise_count(ordered[same] ^ ordered[same + step]) <= distance
            yield np.column_stack((order[same[close]], order[same[close] + step]))


def _band_masks(n_bands: int) -> Iterator[np.uint64]:
    """Every pair of `n_bands` interleaved bands of the 64 bits."""
    bands = [sum(1 << bit for bit in range(band, 64, n_bands)) for band in range(n_bands)]
    for i, first in enumerate(bands):
        for second in bands[:i]:
            yield np.uint64(first | second)
