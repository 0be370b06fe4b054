"""Descriptors of the demo's photos, computed from their pixels alone; each extractor sees something else.

They stand in for the four networks of a real delivery: like theirs, the descriptors overlap in what they
know, and none of them separates the types without fail. Products are float64: all processors draw the same.
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


def colors(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean colors over a grid, and a histogram of hues and greys in the middle of the photo.

    Parameters
    ----------
    images
        Shape ``(n, height, width, 3)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 64)``: CIE L*a*b* (hundreds) in 4 × 4 cells, then square roots of the shares of 10 hues and
        6 grey levels.
    """
    lab = _lab(_middle(_middle(images)))
    layout = np.stack([_cells(lab[..., k], 4) for k in range(3)], axis=-1)
    return np.concatenate([layout.reshape(len(images), -1), _hues_and_greys(images)], axis=1)


def _hues_and_greys(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    middle = _middle(_middle(images))
    n, height, width, _ = middle.shape
    pixels = middle.reshape(n, -1, 3).astype(np.float32) / np.float32(255)
    high, low = pixels.max(axis=2), pixels.min(axis=2)
    chroma = high - low
    share = np.clip((chroma / np.maximum(high, 0.1) - 0.12) * 4, 0, 1)  # of a pixel that counts as colorful
    hue = (_hue(pixels, high, chroma) * _HUES + 0.5).astype(np.int64) % _HUES
    grey = np.minimum(high * _GREYS, _GREYS - 1).astype(np.int64) + _HUES
    n_bins = _HUES + _GREYS
    offset = np.arange(n)[:, None] * n_bins
    region = _spot(height, width, 0.18)
    counts = np.bincount((hue + offset).ravel(), (share * region).ravel(), n * n_bins)
    counts += np.bincount((grey + offset).ravel(), ((1 - share) * region).ravel(), n * n_bins)
    return np.sqrt(counts).reshape(n, n_bins).astype(np.float32)


def _lab(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIE L*a*b* under daylight, in hundreds; a gamma of 2.2 stands for that of sRGB."""
    xyz = _LINEAR[images] @ _TO_XYZ
    x, y, z = np.moveaxis(np.cbrt(xyz), -1, 0)
    lab = np.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], axis=-1)
    return np.round(lab, 6).astype(np.float32)  # differences of gray values are rounding alone


_LINEAR = (np.arange(256) / 255) ** 2.2
_TO_XYZ = np.array(
    [[0.4340, 0.2126, 0.0177], [0.3762, 0.7152, 0.1095], [0.1898, 0.0722, 0.8728]]
)  # white is (1, 1, 1)


def _hue(
    pixels: NDArray[np.float32], high: NDArray[np.float32], chroma: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Hue as in HSV, 0 to 1."""
    red, green, blue = np.moveaxis(pixels, 2, 0)
    safe = np.maximum(chroma, 1e-6)
    sector = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return np.asarray(sector / 6, np.float32)


def _spot(height: int, width: int, spread: float) -> NDArray[np.float32]:
    """Weights of the pixels of a soft spot in the middle, summing to 1, shape ``(height * width,)``."""
    y = np.exp(-0.5 * (((np.arange(height) + 0.5) / height - 0.5) / spread) ** 2)
    x = np.exp(-0.5 * (((np.arange(width) + 0.5) / width - 0.5) / spread) ** 2)
    weights = np.outer(y, x).ravel()
    return np.asarray(weights / weights.sum(), np.float32)


def gradient_histograms(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Histograms of oriented gradients (Dalal and Triggs, 2005) of the grey photo: shape without color.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 128)``: 8 orientations in 4 × 4 cells of the middle of the photo, square roots of shares.
    """
    grey = _smooth(_grey(_middle(images))).astype(np.float64)
    dy, dx = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx) % np.pi * (8 / np.pi)
    lower = angle.astype(np.int64)
    upper_share = angle - lower
    histograms = np.stack(
        [
            _cells(
                strength * ((lower % 8 == k) * (1 - upper_share) + ((lower + 1) % 8 == k) * upper_share), 4
            )
            for k in range(8)
        ],
        axis=-1,
    )  # (n, 4, 4, 8)
    total = histograms.sum(axis=(1, 2, 3), keepdims=True)
    shares = (histograms / (total + 1)).reshape(len(images), -1)
    return np.asarray(np.sqrt(shares), np.float32)


def textures(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Responses to Gabor filters at two scales, and a coarse layout of colors.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 160)``: mean and deviation of 16 responses at two scales in the upper and lower half,
        then color in 5 × 2 cells and the color of the middle.
    """
    grey = _grey(images)
    columns = []
    for step in (2, 4):
        small = _shrink(grey, step)
        normal = (small - small.mean(axis=(1, 2), keepdims=True)) / (
            small.std(axis=(1, 2), keepdims=True) + 4
        )
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
    """Two layers of fixed random filters with ReLU and pooling: some of everything, and never negative.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 320)``: square roots of the mean responses to 20 filters in 4 × 4 cells.
    """
    rng = np.random.default_rng(1906)
    pixels = _shrink(_middle(images).astype(np.float32), 2)
    grey = pixels.mean(axis=3, keepdims=True)
    muted = grey + 0.35 * (pixels - grey)  # color must not drown shape
    normal = (muted - muted.mean(axis=(1, 2, 3), keepdims=True)) / (
        muted.std(axis=(1, 2, 3), keepdims=True) + 8
    )
    first = _relu(_convolve(normal, _random_filters(5, 3, 32, rng), 2), 0.3)
    second = _relu(_convolve(_local_maxima(first), _random_filters(3, 32, 20, rng), 1), 0.2)
    pooled = np.stack([_cells(second[..., k], 4) for k in range(second.shape[-1])], axis=-1)
    return np.sqrt(pooled.reshape(len(images), -1))


def _random_filters(side: int, channels: int, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth random filters with zero mean and unit norm, shape ``(side * side * channels, n)``."""
    filters = ndimage.gaussian_filter(rng.standard_normal((side, side, channels, n)), (0.8, 0.8, 0, 0))
    flat = filters.reshape(-1, n)
    flat -= flat.mean(axis=0)
    return np.asarray(flat / np.linalg.norm(flat, axis=0), np.float32)


def _relu(values: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    return np.asarray(np.maximum(values - np.float32(threshold), 0))


def _local_maxima(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maxima of 2 × 2 neighbors, one overlapping the next."""
    rows = np.maximum(maps[:, :-1], maps[:, 1:])
    return np.maximum(rows[:, :, :-1], rows[:, :, 1:])


def _convolve(maps: NDArray[np.float32], filters: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """Responses of `maps`, shape ``(n, height, width, channels)``, to square filters, without padding."""
    channels = maps.shape[-1]
    side = round((filters.shape[0] / channels) ** 0.5)
    windows = sliding_window_view(maps, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, filters.shape[0])
    responses = patches.astype(np.float64) @ filters.astype(np.float64)
    return responses.reshape(*windows.shape[:3], -1).astype(np.float32)


def _middle(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photos without an eighth of their width and a tenth of their height at each edge."""
    rows, columns = images.shape[1] // 10, images.shape[2] // 8
    return images[:, rows:-rows, columns:-columns]


def _grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(images @ np.array([0.299, 0.587, 0.114]), np.float32)


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
    "vdc_color": colors,
}
"""Name of each descriptor and what computes it for photos of shape ``(n, height, width, 3)``."""
