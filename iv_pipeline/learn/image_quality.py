"""What the pixels say about an image: exposure, glare, sharpness, emptiness, and a hash for near-duplicates.

Images are decoded at reduced size and brought to one grid of 96 × 96 pixels, on which everything is measured,
many images at a time. Blur that is finer than this grid is therefore not seen; blur that hides a vehicle is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.fft import dctn

from iv_pipeline.engine import map_each, map_in_processes
from iv_pipeline.learn.decoding import GRID, decode, decode_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_CHUNK = 64
MANY_IMAGES = 10_000
"""From so many on they are measured in processes: threads would wait for one another most of the time."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255)  # ITU-R BT.601

LEAST_READ = 0.5
"""Share of the images whose picture must have been read for pictures to judge anything."""

FAULT = 0.5
"""Severity from which a symptom is a fault."""

MEASUREMENT = 4
"""Raised when the same picture is measured differently."""


@dataclass(frozen=True)
class ImageQuality:
    """What `measure` finds in one image.

    Attributes
    ----------
    width, height
        Size of the original, upright, pixels.
    brightness, contrast
        Mean and standard deviation of the luma, 0 to 1.
    overexposed_share, underexposed_share
        Share of pixels with luma of at least 0.97 (clipped), and of at most 0.06 (near black).
    glare_share
        Share of the area that the largest near-white blob takes, discounted by how sharply it ends: light
        that strays in the lens fades out, a white lorry has an edge.
    sharpness
        log10 of the variance of the Laplacian over the variance of the luma, so that dim is not blurred.
    edge_share
        Share of the middle of the image that has a notable gradient after slight smoothing.
    centre_difference
        Color distance of the center from the nearest color at the border, relative to how bright the border is;
        0 to 5, the upper tercile of the center, so that a third of it suffices. Small if nothing is there: lane
        markings and shadows reach the border, windows and wheels do not.
    entropy
        Entropy of the luma histogram over its maximum, 0 to 1.
    red, green, blue
        Mean of each channel, 0 to 1.
    phash
        64-bit perceptual hash; 0 if the image shows no structure.
    """

    width: int
    height: int
    brightness: float
    contrast: float
    overexposed_share: float
    underexposed_share: float
    glare_share: float
    sharpness: float
    edge_share: float
    centre_difference: float
    entropy: float
    red: float
    green: float
    blue: float
    phash: int


def measure(data: bytes) -> ImageQuality:
    """Measure one encoded image; see `measure_images` for many.

    Raises
    ------
    PictureError
        If `data` is no whole image.
    """
    pixels, (width, height) = decode(data)
    values = {name: column[0].item() for name, column in _measure_pixels(pixels[np.newaxis]).items()}
    return ImageQuality(width=width, height=height, **values)


def measure_images(
    paths: Sequence[str], read: Callable[[str], bytes], before: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Measure every image; one that cannot be read or decoded is reported in its row, never raised.

    Parameters
    ----------
    paths
        Paths of the images, each once.
    read
        As for `iv_pipeline.learn.decoding.decode_all`; called on several threads.
    before
        What this function returned earlier. An image that could be read then, and whose bytes are the same now, is
        not decoded again; every image is read.

    Returns
    -------
    pandas.DataFrame
        A row per path, in order: `image_path`, the fields of `ImageQuality` (NaN, or 0 for the integers, if
        unreadable), `error` (missing, or the reason) and `digest` of the bytes (missing where they could not be
        had).
    """
    known = None if before is None else before[before["error"].isna()].set_index("image_path")
    expected = {} if known is None else known["digest"].to_dict()
    parts = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    tasks = [[(path, expected.get(path)) for path in part] for part in parts]
    each = map_in_processes if len(paths) >= MANY_IMAGES else map_each
    chunks = list(each(partial(_measure_chunk, read), tasks or [[]]))
    measured = pd.concat(chunks, ignore_index=True)
    if known is None or len(measured) == len(paths):
        return measured
    unchanged = known.loc[
        pd.Index(paths).difference(pd.Index(measured["image_path"]), sort=False)
    ].reset_index()
    same = unchanged[measured.columns].astype(measured.dtypes)
    both = same if measured.empty else pd.concat([measured, same])
    return both.set_index("image_path").loc[list(paths)].reset_index().astype(measured.dtypes)


def _measure_chunk(read: Callable[[str], bytes], task: Sequence[tuple[str, str | None]]) -> pd.DataFrame:
    """Measurements of the images of a task whose digest is not the one beside their path."""
    expected, digests = dict(task), dict.fromkeys((path for path, _ in task), "")

    def is_unchanged(path: str, data: bytes) -> bool:
        digests[path] = hashlib.blake2b(data, digest_size=16).hexdigest()
        return digests[path] == expected[path]

    pixels, sizes, errors = decode_all(list(expected), read, skip=is_unchanged)
    changed = [i for i, path in enumerate(expected) if digests[path] != expected[path]]
    columns = _measure_pixels(pixels[changed])
    reasons = [errors[i] for i in changed]
    unreadable = np.array([reason is not None for reason in reasons], dtype=bool)
    for values in columns.values():
        values[unreadable] = np.nan if values.dtype == np.float32 else 0
    paths = [task[i][0] for i in changed]
    return pd.DataFrame(
        {
            "image_path": pd.array(paths, dtype="string"),
            "width": sizes[changed, 0],
            "height": sizes[changed, 1],
            **columns,
            "error": pd.array(reasons, dtype="string"),
            "digest": pd.array([digests[path] or None for path in paths], dtype="string"),
        }
    )


def _measure_pixels(pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """All measures but the size, of images of shape ``(n, GRID, GRID, 3)``; float32, the hash uint64."""
    image = (1, 2)
    luma = pixels @ _LUMA
    variance = luma.var(axis=image)
    half = _shrink(pixels, 2) / np.float32(255)
    red, green, blue = (half[..., i].mean(axis=image, dtype=np.float64) for i in range(3))
    floats = {
        "brightness": luma.mean(axis=image),
        "contrast": np.sqrt(variance),
        "overexposed_share": (luma >= 0.97).mean(axis=image),
        "underexposed_share": (luma <= 0.06).mean(axis=image),
        "glare_share": _glare_share(pixels, luma),
        "sharpness": np.log10((_laplacian(luma).var(axis=image) + 1e-6) / (variance + 1e-4)),
        "edge_share": _edge_share(half),
        "centre_difference": _centre_difference(half),
        "entropy": _entropy(luma),
        "red": red,
        "green": green,
        "blue": blue,
    }
    return {**{name: x.astype(np.float32) for name, x in floats.items()}, "phash": _phash(luma)}


def _laplacian(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Neighbors above, below, left and right of each pixel, less four times itself; borders are mirrored."""
    framed = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    around = framed[:, 2:, 1:-1] + framed[:, :-2, 1:-1]
    around += framed[:, 1:-1, 2:]
    around += framed[:, 1:-1, :-2]
    around -= 4 * luma
    return around


def _glare_share(pixels: NDArray[np.uint8], luma: NDArray[np.float32]) -> NDArray[np.float64]:
    share = np.zeros(len(pixels))
    white = (luma >= 0.96) & (np.minimum(pixels[..., 0], pixels[..., 2]) >= 220)
    some = np.flatnonzero(white.any(axis=(1, 2)))
    blob = _largest_blob(white[some])
    ring = ndimage.maximum_filter(blob, (1, 7, 7)) & ~blob
    steepness = np.where(ring, _gradient(luma[some, ..., np.newaxis], 1.0)[..., 0], 0)
    slope = steepness.sum(axis=(1, 2)) / np.maximum(ring.sum(axis=(1, 2)), 1)
    # 0.05 of the range per pixel: full light to none over 20 pixels, a fifth of the image, is soft
    share[some] = blob.mean(axis=(1, 2)) * np.exp(-np.square(slope / 0.05))
    return share


def _largest_blob(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected component of each mask; all of them where several are equally large."""
    within_image = np.zeros((3, 3, 3), bool)
    within_image[1] = True
    labels, n_blobs = ndimage.label(masks, within_image)
    area = np.bincount(labels.ravel(), minlength=n_blobs + 1)[labels]
    area[~masks] = 0
    largest: NDArray[np.bool_] = masks & (area == area.max(axis=(1, 2), keepdims=True))
    return largest


def _gradient(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Length of the gradient per pixel of ``(n, height, width, channels)``, after Gaussian smoothing."""
    smooth = ndimage.gaussian_filter(values, (0, sigma, sigma, 0))
    down, right = np.gradient(smooth, axis=(1, 2))
    length: NDArray[np.float32] = np.sqrt(down * down + right * right)
    return length


def _edge_share(half: NDArray[np.float32]) -> NDArray[np.float64]:
    # in color, for a red vehicle may be exactly as light as the road
    rim = GRID // 16
    steepness = _gradient(half, 0.75)[:, rim:-rim, rim:-rim]
    middle = np.maximum(np.maximum(steepness[..., 0], steepness[..., 1]), steepness[..., 2])
    share: NDArray[np.float64] = (middle > 0.06).mean(axis=(1, 2))
    return share


def _shrink(images: NDArray[Any], factor: int) -> NDArray[np.float32]:
    """Means over squares of `factor` × `factor` pixels of ``(n, height, width, ...)``."""
    total = np.zeros(images[:, ::factor, ::factor].shape, np.float32)
    for i in range(factor):
        for j in range(factor):
            total += images[:, i::factor, j::factor]
    total /= factor**2
    return total


def _centre_difference(half: NDArray[np.float32]) -> NDArray[np.float32]:
    coarse = _shrink(half, 2)
    is_border = np.ones(coarse.shape[1:3], bool)
    is_border[2:-2, 2:-2] = False
    is_center = np.zeros_like(is_border)
    is_center[6:-6, 6:-6] = True
    border, center = coarse[:, is_border], coarse[:, is_center]
    channels = [np.ascontiguousarray(center[..., channel]) for channel in range(3)]
    nearest = np.full(channels[0].shape, np.inf, np.float32)
    for color in border.transpose(1, 2, 0)[..., np.newaxis]:
        distance = np.abs(channels[0] - color[0])
        for channel in (1, 2):
            distance += np.abs(channels[channel] - color[channel])
        np.minimum(nearest, distance, out=nearest)
    brightness = border.sum(axis=-1).mean(axis=1)
    relative: NDArray[np.float32] = _upper_tercile(nearest) / (brightness + np.float32(0.6))
    return relative


def _upper_tercile(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The value that a third of each row exceeds, shape ``(n_rows,)``."""
    place = values.shape[1] * 2 // 3
    return np.partition(values, place, axis=1)[:, place]


def _entropy(luma: NDArray[np.float32]) -> NDArray[np.float64]:
    n, bins = len(luma), 32
    level = np.minimum((luma * bins).astype(np.int64), bins - 1).reshape(n, GRID**2)
    level += np.arange(n)[:, None] * bins
    share = np.bincount(level.ravel(), minlength=n * bins).reshape(n, bins) / GRID**2
    bits: NDArray[np.float64] = (share * -np.log2(np.maximum(share, 1e-12))).sum(axis=1)
    bits /= np.log2(bins)
    return bits


def _phash(luma: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Signs of the 64 lowest frequencies about their median, after Zauner (2010), Perceptual hashing."""
    small = _shrink(luma, 3)
    low = dctn(small, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(luma), 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    bits[small.std(axis=(1, 2)) < 0.005] = False  # flat: the signs would be those of rounding errors
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


@dataclass(frozen=True)
class _Symptom:
    """How far a measure, on a scale where its spread is about even, must go to be called a fault.

    `usual` is where an image starts to look wrong by itself and `width` how gradually; `floor` is the
    smallest spread in a delivery that is believed, and `beyond` how many spreads off its median a fault begins.
    Large is bad if `sign` is 1, small if it is -1.
    """

    reason: str
    words: str
    measure: str
    scale: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    sign: int
    usual: float
    width: float
    floor: float
    beyond: float = 3.0


def _log(offset: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda x: np.log10(np.maximum(x, 0) + offset)


_EXPOSURE = (
    # a tenth of the range is half a hundredth of full light: little can be told apart there
    _Symptom("dark", "mean brightness {:.0%}", "brightness", _log(0.02), -1, -1.0, 0.05, 0.05),
    _Symptom("overexposed", "{:.0%} of pixels clipped", "overexposed_share", _log(0.05), 1, -0.4, 0.08, 0.1),
)
_OTHERS = (
    _Symptom("glare", "a bright haze over {:.1%}", "glare_share", _log(0.002), 1, np.log10(0.04), 0.15, 0.15),
    _Symptom("blurred", "sharpness 10^{:.1f}", "sharpness", np.asarray, -1, -2.3, 0.12, 0.1),
    # its logarithm has a short tail; what is three times as near as usual is 2.2 of the smallest spread off
    _Symptom(
        "empty",
        "the center looks like the border",
        "centre_difference",
        _log(0.002),
        -1,
        -2.1,
        0.04,
        0.22,
        2.2,
    ),
)
_EDGES = _Symptom("empty", "", "edge_share", _log(0.005), -1, 0, 1, 0.12)
_CONTRAST = _Symptom("empty", "", "contrast", _log(0.001), -1, np.log10(0.12), 0.03, 0.12)
"""A truck that fills the frame has its own colors at the border, but more edges than usual, or contrast; an empty
road has neither."""


def read_enough(frame: pd.DataFrame) -> bool:
    """Whether pictures may judge images: at least the share `LEAST_READ` of them has been measured."""
    return bool(frame["error"].isna().mean() >= LEAST_READ)


def quality_outliers(
    frame: pd.DataFrame, reference: pd.DataFrame | None = None, least: float = FAULT
) -> pd.DataFrame:
    """Rank images by how wrong they look, by themselves and against their own delivery.

    A fault must be visible in absolute terms (a dark image is dark) *and* unusual in the delivery (at night
    all are): each symptom is the geometric mean of both, and the score is the strongest symptom. Faults that
    bad exposure explains, such as few edges in the dark, are not counted a second time.

    Parameters
    ----------
    frame
        What `measure_images` returned.
    reference
        What it returned for the images that define what is usual; `frame` by default. An earlier delivery of
        the same cameras, where `frame` is small.
    least
        Severity from which a symptom is named.

    Returns
    -------
    pandas.DataFrame
        `image_path`, `score` from 0 to 1 (1 if unreadable), and `reasons`: plain words for every symptom of
        at least `least`, strongest first, joined by "; "; empty if there is none.
    """
    usual = frame if reference is None else reference
    usual = usual[usual["error"].isna()]
    exposure = [_severity(symptom, frame, usual) for symptom in _EXPOSURE]
    explained = np.max(exposure, axis=0)
    unexplained = np.minimum(1, 2 * (1 - explained))
    others = [_severity(symptom, frame, usual) * unexplained for symptom in _OTHERS]
    others[-1] *= np.clip(_deviations(_EDGES, frame, usual) - 0.5, 0, 1) * _visible(_CONTRAST, frame)
    severity = np.column_stack(exposure + others)
    error = frame["error"]
    unreadable = error.notna().to_numpy()
    reasons = [""] * len(frame)
    for i in np.flatnonzero((severity >= least).any(axis=1) | unreadable):
        reasons[i] = (
            f"unreadable: {error.iloc[i]}" if unreadable[i] else _explain(severity[i], frame.iloc[i], least)
        )
    return pd.DataFrame(
        {
            "image_path": frame["image_path"].to_numpy(),
            "score": np.where(unreadable, 1.0, severity.max(axis=1)),
            "reasons": pd.array(reasons, dtype="string"),
        }
    )


def _severity(symptom: _Symptom, frame: pd.DataFrame, usual: pd.DataFrame) -> NDArray[np.float64]:
    """0 to 1 per row, 0 for rows without measure; grows with the measure, without steps."""
    z = _deviations(symptom, frame, usual)
    unusual = _sigmoid((z - symptom.beyond) / (0.2 * symptom.beyond))
    return np.asarray(np.sqrt(_visible(symptom, frame) * unusual))


def _visible(symptom: _Symptom, frame: pd.DataFrame) -> NDArray[np.float64]:
    """How clearly each image looks wrong by itself, 0 to 1."""
    x = symptom.sign * symptom.scale(frame[symptom.measure].fillna(0).to_numpy(np.float64))
    return _sigmoid((x - symptom.sign * symptom.usual) / symptom.width)


def _deviations(symptom: _Symptom, frame: pd.DataFrame, usual: pd.DataFrame) -> NDArray[np.float64]:
    """Spreads from the median of `usual` towards the bad side, shape ``(n_rows,)``; -inf without measure."""
    own = symptom.sign * symptom.scale(usual[symptom.measure].to_numpy(np.float64))
    if not len(own):
        return np.full(len(frame), -np.inf)
    x = symptom.sign * symptom.scale(frame[symptom.measure].to_numpy(np.float64))
    # the spread towards the bad side, from a quantile that a tenth of faulty images cannot move
    median, high = np.quantile(own, (0.5, 0.9))
    z: NDArray[np.float64] = (x - median) / max((high - median) / 1.2816, symptom.floor)
    return np.where(np.isnan(z), -np.inf, z)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(x / 2))


def _explain(severity: NDArray[np.float64], row: pd.Series[Any], least: float) -> str:
    symptoms = (*_EXPOSURE, *_OTHERS)
    told: dict[str, str] = {}
    for i in np.argsort(-severity, kind="stable"):
        if severity[i] >= least:
            told.setdefault(symptoms[i].reason, symptoms[i].words.format(row[symptoms[i].measure]))
    return "; ".join(f"{reason}: {words}" for reason, words in told.items())
