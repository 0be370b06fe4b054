"""What pictures show by themselves, as vectors: witnesses that no network has had a hand in.

Where a descriptor is alone, nobody else can say whether its clusters are real. Coarse shapes and colors of the
pictures can: on labelled photos they ranked clusterings about as well as other networks did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.engine import map_ordered
from iv_pipeline.learn.decoding import decode_all
from iv_pipeline.learn.image_quality import LEAST_READ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SIDE = 48
"""Side of the grid that pictures are decoded onto, pixels."""
CELLS = 8
"""Cells along a side."""
ORIENTATIONS = 8
_CHUNK = 500


def picture_views(paths: Sequence[str], read: Callable[[str], bytes]) -> dict[str, NDArray[np.float32]]:
    """Shapes and colors of pictures.

    Parameters
    ----------
    paths
        Paths of the images.
    read
        As for `iv_pipeline.learn.decoding.decode_all`; called on several threads.

    Returns
    -------
    dict of str to numpy.ndarray
        ``shape``: histograms of oriented gradients (Dalal, Triggs 2005) of `CELLS` × `CELLS` cells, square roots
        of their shares; ``colors``: the mean color of each cell. A row a path, float32, NaN where a picture
        cannot be read.
    """
    chunks = [paths[begin : begin + _CHUNK] for begin in range(0, len(paths), _CHUNK)]
    parts = list(map_ordered(lambda i: _views(_pixels(chunks[i], read)), len(chunks)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def why_not_judge(vectors: NDArray[np.float32]) -> str:
    """Why what was made of pictures says nothing about images, in words; empty if it does.

    Parameters
    ----------
    vectors
        As `picture_views` returns them, shape ``(n_pictures, n_features)``.
    """
    known = vectors[np.isfinite(vectors).all(axis=1)]
    if len(known) < max(2, LEAST_READ * len(vectors)):
        return f"{len(known):,} of {len(vectors):,} pictures of the sample can be read"
    return "all of them are the same" if (known == known[0]).all() else ""


def _pixels(paths: Sequence[str], read: Callable[[str], bytes]) -> NDArray[np.float32]:
    """Pictures in [0, 1], shape ``(n, SIDE, SIDE, 3)``; NaN where one cannot be read."""
    decoded, _, errors = decode_all(paths, read, SIDE)
    pixels = decoded.astype(np.float32) / np.float32(255)
    pixels[[error is not None for error in errors]] = np.nan  # the stage `image_quality` says why
    return pixels


def _views(pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    down, right = np.gradient(pixels.mean(axis=3, dtype=np.float64), axis=(1, 2))
    angle = np.arctan2(down, right) % np.pi
    steps = np.round(
        np.nan_to_num(angle) / np.pi * ORIENTATIONS, 6
    )  # right angles lie on the edge of two bins
    nearest = np.floor(steps).astype(np.int8) % ORIENTATIONS
    length = np.hypot(down, right)
    histogram = np.concatenate([_cells(length * (nearest == i)) for i in range(ORIENTATIONS)], axis=1)
    total = histogram.sum(axis=1, keepdims=True)
    share = histogram / np.where(total == 0, 1, total)  # a picture of one color has no gradients
    return {"shape": np.sqrt(share).astype(np.float32), "colors": _cells(pixels)}


def _cells(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over cells of ``(n, SIDE, SIDE, ...)``, shape ``(n, n_features)``."""
    step = SIDE // CELLS
    cells = images.reshape(len(images), CELLS, step, CELLS, step, *images.shape[3:]).mean(axis=(2, 4))
    flat: NDArray[np.float32] = cells.reshape(len(images), -1)
    return flat
