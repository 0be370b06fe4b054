"""Color of vehicles in plain words, from the pixels in the middle of their images.

The eleven words are the basic color terms (Berlin and Kay, 1969). A pixel is named in CIELAB by its lightness,
chroma and hue, so that a change of exposure alone rarely changes the word.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from iv_pipeline.errors import PictureError
from iv_pipeline.learn.decoding import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

COLORS = ("white", "grey", "black", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
"""The words; silver is grey."""

_GRID = 48
_HUES = (
    # hue angle in CIELAB up to which the word holds, degrees; from the last one on it is red again
    (48.0, "red"),
    (70.0, "orange"),
    (105.0, "yellow"),
    (195.0, "green"),
    (300.0, "blue"),
    (335.0, "purple"),
    (360.0, "red"),
)
_HUE_ENDS = np.array([end for end, _ in _HUES], np.float32)
_HUE_COLORS = np.array([COLORS.index(name) for _, name in _HUES])
_TO_XYZ = np.array(  # linear sRGB to XYZ over the white point D65 (IEC 61966-2-1)
    [[0.4339, 0.3762, 0.1899], [0.2127, 0.7152, 0.0722], [0.0178, 0.1095, 0.8727]], np.float32
)


@dataclass(frozen=True)
class VehicleColor:
    """Color of what is in the middle of one image.

    Attributes
    ----------
    shares
        Share of each of `COLORS`; they sum to 1.
    lightness
        Mean CIELAB lightness of each color's pixels, 0 to 100; 0 for a color that does not occur.
    brightness
        Mean luma of the whole image, 0 to 1.
    """

    shares: dict[str, float]
    lightness: dict[str, float]
    brightness: float


class ColorDescription(TypedDict):
    """What `describe_images` says of a sample."""

    color: str
    confidence: float
    shares: dict[str, float]
    brightness: float
    n_images: int


def lab(rgb: ArrayLike) -> NDArray[np.float32]:
    """CIELAB of sRGB values of 0 to 255; shape ``(..., 3)`` to ``(..., 3)``."""
    values = np.asarray(rgb)
    linear = _linear_of_bytes()[values] if values.dtype == np.uint8 else _linear(values)
    xyz = linear @ _TO_XYZ.T
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * (841 / 108) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def _linear(rgb: NDArray[Any]) -> NDArray[np.float32]:
    value = rgb.astype(np.float32) / np.float32(255)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@cache
def _linear_of_bytes() -> NDArray[np.float32]:
    return _linear(np.arange(256))


def name_color(rgb: Sequence[float]) -> str:
    """The one of `COLORS` that an sRGB color of 0 to 255 is called."""
    return COLORS[int(_name_lab(lab(rgb)))]


def _name_lab(colors: NDArray[np.float32]) -> NDArray[np.intp]:
    """Index into `COLORS` of each CIELAB color, shape ``(..., 3)`` to ``(...)``."""
    lightness, a, b = np.moveaxis(colors, -1, 0)
    chroma = np.hypot(a, b)
    hue = np.degrees(np.arctan2(b, a)) % 360
    name = _HUE_COLORS[np.minimum(np.searchsorted(_HUE_ENDS, hue, side="right"), len(_HUES) - 1)]
    reddish = np.isin(name, [COLORS.index("red"), COLORS.index("purple")])
    name = np.where(reddish & (lightness > 68), COLORS.index("pink"), name)
    grey = np.select(
        [lightness < 30, lightness > 71], [COLORS.index("black"), COLORS.index("white")], COLORS.index("grey")
    )
    orange, yellow = name == COLORS.index("orange"), name == COLORS.index("yellow")
    is_brown = orange & ((lightness < 40) | (lightness < 50) & (chroma < 46))
    is_brown |= yellow & (lightness < 60) & (chroma < 0.7 * lightness)
    beige = (orange | yellow) & (chroma < 35)
    name = np.where(is_brown | beige, COLORS.index("brown"), name)
    name = np.where(beige & (lightness > 84), COLORS.index("white"), name)
    # the eye sees less color in the dark, and cameras add some of their own
    colorless = (chroma < 13) | (lightness < 12)
    named: NDArray[np.intp] = np.where(colorless, grey, name)
    return named


def vehicle_colors(pixels: NDArray[np.uint8]) -> list[VehicleColor]:
    """Colors in the middle of images, without the ground that their borders show.

    Parameters
    ----------
    pixels
        RGB, shape ``(n_images, side, side, 3)``.
    """
    n, n_names = len(pixels), len(COLORS)
    colors = lab(pixels)
    weight = _centre_weight() * _foreground(colors)
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    name = (_name_lab(colors) + n_names * np.arange(n)[:, None, None]).ravel()
    share = np.bincount(name, weight.ravel(), n * n_names).reshape(n, n_names)
    weighted = np.bincount(name, (weight * colors[..., 0]).ravel(), n * n_names).reshape(n, n_names)
    lightness = weighted / np.maximum(share, 1e-12)
    brightness = pixels.mean(axis=(1, 2)) @ (0.299, 0.587, 0.114) / 255
    return [
        VehicleColor(
            dict(zip(COLORS, shares, strict=True)), dict(zip(COLORS, lightnesses, strict=True)), bright
        )
        for shares, lightnesses, bright in zip(
            share.tolist(), lightness.tolist(), brightness.tolist(), strict=True
        )
    ]


def vehicle_color(data: bytes) -> VehicleColor:
    """Colors in the middle of one encoded image.

    Raises
    ------
    PictureError
        If `data` is no whole image.
    """
    return vehicle_colors(decode(data, _GRID)[0][None])[0]


def _decoded(images: Iterable[bytes]) -> NDArray[np.uint8]:
    """Those that can be decoded, shape ``(n_decoded, _GRID, _GRID, 3)``."""
    pixels = []
    for data in images:
        with contextlib.suppress(PictureError):  # `image_quality` reports it, with the reason
            pixels.append(decode(data, _GRID)[0])
    return np.stack(pixels) if pixels else np.empty((0, _GRID, _GRID, 3), np.uint8)


@cache
def _centre_weight() -> NDArray[np.float64]:
    offset = np.linspace(-1, 1, _GRID)
    bell = np.exp(-np.square(offset / 0.5) / 2)
    return np.outer(bell, bell)


def _foreground(colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """How unlike its image's border a pixel is, 0.1 to 1: a grey vehicle on a grey road still counts a little."""
    rim = _GRID // 10
    is_border = np.ones(colors.shape[1:3], bool)
    is_border[rim:-rim, rim:-rim] = False
    ground = np.median(colors[:, is_border], axis=1)[:, None, None]
    distance = np.linalg.norm(colors - ground, axis=-1)
    typical = np.median(distance[:, is_border], axis=1)[:, None, None]
    unlike: NDArray[np.float32] = 1 - np.float32(0.9) * np.exp(-np.square(distance / (5 + 2 * typical)))
    return unlike


def describe_images(images: Iterable[bytes]) -> ColorDescription:
    """Describe the colors of a sample of images, such as a cluster's, in a word.

    Parameters
    ----------
    images
        Encoded images; those that cannot be decoded are left out.

    Returns
    -------
    ColorDescription
        `color`, a word such as "white" or "dark blue", "mixed colors" if no color is that of a third of the
        images, or "unknown" if there is no image; `confidence`, the share of images of the leading color;
        `shares`, the mean of the images' shares; the mean `brightness`; and `n_images`, how many were decoded.
    """
    seen = vehicle_colors(_decoded(images))
    if not seen:
        return {"color": "unknown", "confidence": 0.0, "shares": {}, "brightness": 0.0, "n_images": 0}
    leading = [main_color(color.shares) for color in seen]
    best = max(COLORS, key=leading.count)
    lightness = [color.lightness[best] for color, name in zip(seen, leading, strict=True) if name == best]
    confidence = len(lightness) / len(seen)
    word = _with_lightness(best, float(np.median(lightness))) if confidence >= 1 / 3 else "mixed colors"
    return {
        "color": word,
        "confidence": confidence,
        "shares": {name: float(np.mean([color.shares[name] for color in seen])) for name in COLORS},
        "brightness": float(np.mean([color.brightness for color in seen])),
        "n_images": len(seen),
    }


def main_color(shares: Mapping[str, float]) -> str:
    """The word for one vehicle: its largest share.

    Grey and black count less, for road, windows, tyres and shadow are around vehicles of every color.
    """
    handicap = {"black": 0.4, "grey": 0.5}
    return max(COLORS, key=lambda name: shares[name] * handicap.get(name, 1.0))


def _with_lightness(color: str, lightness: float) -> str:
    if color in ("white", "black", "pink", "brown"):
        return color
    if lightness < 35:
        return f"dark {color}"
    return f"light {color}" if lightness > 68 and color not in ("yellow", "orange") else color
