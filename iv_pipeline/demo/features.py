"""Descriptors of the demo's photos, computed from their pixels alone; each extractor sees something else.

They stand in for the four networks of a real delivery: like theirs, the descriptors overlap in what they
know, and none of them separates the types without fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_HUES, _GREYS = 10, 6


def color_histograms(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Hue and grey-level histograms of four soft regions, square roots of shares.

    Parameters
    ----------
    images
        Shape ``(n, height, width, 3)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 64)``: the middle of the photo, then its upper, middle and lower part, 16 bins each.
    """
    n, height, width, _ = images.shape
    pixels = images.reshape(n, -1, 3).astype(np.float32) / 255
    high, low = pixels.max(axis=2), pixels.min(axis=2)
    chroma = high - low
    share = np.clip((chroma / np.maximum(high, 0.15) - 0.12) * 3, 0, 1)  # of a pixel that counts as colourful
    hue = (_hue(pixels, high, chroma) * _HUES).astype(np.int64) % _HUES
    grey = np.minimum(high * _GREYS, _GREYS - 1).astype(np.int64) + _HUES
    n_bins = _HUES + _GREYS
    offset = np.arange(n)[:, None] * n_bins
    regions = [_blob(height, width, row, spread) for row, spread in ((0.5, 0.2), (0.3, 0.14), (0.5, 0.1), (0.7, 0.14))]
    columns = []
    for region in regions:
        counts = np.bincount((hue + offset).ravel(), (share * region).ravel(), n * n_bins)
        counts += np.bincount((grey + offset).ravel(), ((1 - share) * region).ravel(), n * n_bins)
        columns.append(np.sqrt(counts.reshape(n, n_bins)))
    return np.concatenate(columns, axis=1).astype(np.float32)


def _hue(pixels: NDArray[np.float32], high: NDArray[np.float32], chroma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Hue as in HSV, 0 to 1."""
    red, green, blue = np.moveaxis(pixels, 2, 0)
    safe = np.maximum(chroma, 1e-6)
    sector = np.where(
        high == red, (green - blue) / safe % 6, np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    )
    return np.asarray(sector / 6, np.float32)


def _blob(height: int, width: int, row: float, spread: float) -> NDArray[np.float32]:
    """Weights of the pixels of a soft region in the middle column, summing to 1, shape ``(height * width,)``."""
    y = np.exp(-0.5 * (((np.arange(height) + 0.5) / height - row) / spread) ** 2)
    x = np.exp(-0.5 * (((np.arange(width) + 0.5) / width - 0.5) / 0.2) ** 2)
    weights = np.outer(y, x).ravel()
    return np.asarray(weights / weights.sum(), np.float32)


def gradient_histograms(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Histograms of oriented gradients (Dalal and Triggs, 2005) of the grey photo: shape without colour.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 128)``: 8 orientations in 4 × 4 cells, square roots of shares of their row of cells.
    """
    grey = _smooth(_grey(images))
    dy, dx = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx) % np.pi * (8 / np.pi)
    lower = angle.astype(np.int64)
    upper_share = angle - lower
    histograms = np.stack(
        [
            _cells(strength * ((lower % 8 == k) * (1 - upper_share) + ((lower + 1) % 8 == k) * upper_share), 4)
            for k in range(8)
        ],
        axis=-1,
    )  # (n, 4, 4, 8)
    total = histograms.sum(axis=(2, 3), keepdims=True)
    return np.sqrt(histograms / (total + 1)).reshape(len(images), -1).astype(np.float32)


def textures(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Responses to Gabor filters at two scales, and a coarse layout of colours.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 160)``: mean and deviation of 16 responses at two scales in the upper and lower half,
        then colour in 5 × 2 cells and the colour of the middle.
    """
    grey = _grey(images)
    columns = []
    for step in (2, 4):
        small = _shrink(grey, step)
        normal = (small - small.mean(axis=(1, 2), keepdims=True)) / (small.std(axis=(1, 2), keepdims=True) + 4)
        responses = np.abs(_convolve(normal[..., None], _gabor_filters(), 1))
        half = responses.shape[1] // 2
        for part in (responses[:, :half], responses[:, half:]):
            columns += [part.mean(axis=(1, 2)), part.std(axis=(1, 2))]
    color = _shrink(images.astype(np.float32), images.shape[1] // 4)
    coarse = np.stack([_cells(color[..., c], 2, 5) for c in range(3)], axis=-1).reshape(len(images), -1)
    middle = color[:, 1:3, 1:4].mean(axis=(1, 2))[:, 1:] - color[:, 1:3, 1:4].mean(axis=(1, 2))[:, :1]
    return np.concatenate([*columns, coarse / 64, middle / 32], axis=1).astype(np.float32)


def _gabor_filters() -> NDArray[np.float32]:
    """Eight orientations at two wavelengths, shape ``(49, 16)``."""
    y, x = np.mgrid[-3:4, -3:4]
    window = np.exp(-(x**2 + y**2) / 8)
    waves = [
        window * np.sin((x * np.cos(a) + y * np.sin(a)) * 2 * np.pi / length)
        for length in (3.5, 6.0)
        for a in np.arange(8) * np.pi / 8
    ]
    return np.stack([(w - w.mean()).ravel() / np.abs(w).sum() for w in waves], axis=1).astype(np.float32)


def random_network(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Two layers of fixed random filters with ReLU and pooling: some of everything, skewed and sparse.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 320)``, not negative: 80 filters in 2 × 2 quarters.
    """
    rng = np.random.default_rng(1906)
    pixels = _shrink(images.astype(np.float32), 2)
    normal = (pixels - pixels.mean(axis=(1, 2, 3), keepdims=True)) / (pixels.std(axis=(1, 2, 3), keepdims=True) + 8)
    first = _relu(_convolve(normal, _random_filters(5, 3, 32, rng), 2), 0.3)
    second = _relu(_convolve(_local_maxima(first), _random_filters(3, 32, 80, rng), 1), 0.2)
    pooled = np.stack([_cells(second[..., k], 2) for k in range(second.shape[-1])], axis=-1)
    return np.asarray(pooled.reshape(len(images), -1), np.float32)


def _random_filters(side: int, channels: int, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth random filters with zero mean and unit norm, shape ``(side * side * channels, n)``."""
    filters = ndimage.gaussian_filter(rng.standard_normal((side, side, channels, n)), (0.8, 0.8, 0, 0))
    flat = filters.reshape(-1, n)
    flat -= flat.mean(axis=0)
    return np.asarray(flat / np.linalg.norm(flat, axis=0), np.float32)


def _relu(values: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    return np.maximum(values - np.float32(threshold), 0)


def _local_maxima(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maxima of 2 × 2 neighbours, one overlapping the next."""
    rows = np.maximum(maps[:, :-1], maps[:, 1:])
    return np.maximum(rows[:, :, :-1], rows[:, :, 1:])


def _convolve(maps: NDArray[np.float32], filters: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """Responses of `maps`, shape ``(n, height, width, channels)``, to square filters, without padding."""
    channels = maps.shape[-1]
    side = round((filters.shape[0] / channels) ** 0.5)
    windows = sliding_window_view(maps, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, filters.shape[0])
    return (patches @ filters).reshape(*windows.shape[:3], -1)


def _grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images @ np.array([0.299, 0.587, 0.114], np.float32)


def _smooth(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """A three-tap blur along both axes, so that noise does not count as edges."""
    for axis in (1, 2):
        maps = ndimage.convolve1d(maps, np.array([0.25, 0.5, 0.25]), axis=axis)
    return maps


def _shrink(maps: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means of blocks of ``step × step`` pixels; what is left over at the right and bottom is cut."""
    n, height, width, *channels = maps.shape
    rows, columns = height // step, width // step
    cut = maps[:, : rows * step, : columns * step].reshape(n, rows, step, columns, step, *channels)
    return np.asarray(cut.mean(axis=(2, 4)))


def _cells(maps: NDArray[np.float32], rows: int, columns: int | None = None) -> NDArray[np.float32]:
    """Means over a grid of cells that covers `maps`, shape ``(n, height, width)``."""
    down = np.linspace(0, maps.shape[1], rows + 1).astype(int)
    across = np.linspace(0, maps.shape[2], (columns or rows) + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(maps, down[:-1], axis=1), across[:-1], axis=2)
    return np.asarray(sums / np.outer(np.diff(down), np.diff(across)), np.float32)


EXTRACTORS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    "efficientnet-b7": random_network,
    "osnet": textures,
    "vdc_type": gradient_histograms,
    "vdc_color": color_histograms,
}
"""Name of each descriptor and what computes it for photos of shape ``(n, height, width, 3)``."""
