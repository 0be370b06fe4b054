"""What the camera sees of the road: asphalt, markings, verges, the horizon, and the shadow of a vehicle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage
from scipy.spatial import ConvexHull

from iv_pipeline.demo.camera import HEIGHT, SUPERSAMPLING, WIDTH, Camera

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from iv_pipeline.demo.shapes import RGB

_LANE = 3.5
_VERGES: dict[str, RGB] = {
    "grass": (98, 128, 62),
    "dry grass": (164, 150, 92),
    "pavement": (172, 166, 158),
    "sand": (190, 170, 132),
    "hedge": (58, 88, 50),
}
_TILE = 128


def picture(camera: Camera, haze: RGB, rng: np.random.Generator) -> Image.Image:
    """An empty road, supersampled; it fades into `haze` towards the horizon."""
    x, y, distance = camera.road(*_PIXELS)
    road = _Road(x, y, np.clip(distance * 0.008, 0.03, 1.0), rng)
    color = road.color()
    color += np.clip((distance - 25) / 90, 0, 1) * (np.array(haze, np.float32)[:, None] - color)
    half = _half_size()
    small = np.clip(color, 0, 255).astype(np.uint8).T.reshape(half[1], half[0], 3)
    size = (WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING)
    return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)


def _half_size() -> tuple[int, int]:
    return WIDTH * SUPERSAMPLING // 2, HEIGHT * SUPERSAMPLING // 2


@dataclass(frozen=True)
class _Road:
    """A road along x, as seen by pixels at `x` and `y` (shape ``(n,)``) that are `blur` metres wide."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    blur: NDArray[np.float32]
    rng: np.random.Generator

    def color(self) -> NDArray[np.float32]:
        """Red, green and blue of each pixel, shape ``(3, n)``."""
        rng = self.rng
        y = self.y + np.float32(rng.normal(0, 0.3))
        tone = rng.uniform(88, 162) * np.array([1.0, 1.0, rng.uniform(0.94, 1.04)])
        color = np.asarray(tone, np.float32)[:, None] + (self._noise(30.0) * 9 + self._noise(4.0) * 7)
        self._cover(color, 0.25 * self._stripe(y, rng.choice([-0.8, 0.8]), 0.5), tone * 0.6)
        self._markings(color, y)
        if rng.random() < 0.35:
            zebra = self._stripe(self.x, rng.choice([-4.5, 4.5]), 1.4) * self._dashes(y, 1.0)
            self._cover(color, 0.9 * zebra, (222, 222, 216))
        if rng.random() < 0.65:
            self._verge(color, y, _LAND_SIDES[int(rng.integers(3))])
        return color

    def _markings(self, color: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        paint = (226, 224, 214) if self.rng.random() < 0.8 else (226, 178, 60)
        worn = self.rng.uniform(0.5, 0.95)
        kind = self.rng.choice(["none", "dashed", "solid", "both"])
        for side in () if kind == "none" else (-1, 1):
            line = self._stripe(y, side * _LANE / 2, 0.08)
            if kind == "dashed" or (kind == "both" and side > 0):
                line = line * self._dashes(self.x + np.float32(self.rng.uniform(0, 6)), 3.0)
            self._cover(color, np.float32(worn) * line, paint)

    def _verge(self, color: NDArray[np.float32], y: NDArray[np.float32], sides: tuple[int, ...]) -> None:
        names = list(_VERGES)
        name = names[int(self.rng.integers(len(names)))]
        rough = 10.0 if name in ("pavement", "sand") else 30.0
        ground = np.asarray(_VERGES[name], np.float32)[:, None] + self._noise(14.0) * np.float32(rough)
        start = float(self.rng.choice([2.1, 2.6, 4.5, 5.6]))
        for side in sides:
            self._cover(color, np.clip((side * y - start) / self.blur + 0.5, 0, 1), ground)
            self._cover(color, self._stripe(y, side * start, 0.13), (186, 184, 178))

    def _stripe(self, value: NDArray[np.float32], middle: float, half: float) -> NDArray[np.float32]:
        """How much of each pixel lies within `half` of `middle`."""
        inside = np.clip((np.float32(half) - np.abs(value - np.float32(middle))) / self.blur + 0.5, 0, 1)
        return np.asarray(inside * np.minimum(1, 3 * half / self.blur))

    def _dashes(self, value: NDArray[np.float32], period: float) -> NDArray[np.float32]:
        wave = np.sin(value * np.float32(2 * np.pi / period)) * np.float32(period / 6)
        return np.asarray(np.clip(wave / self.blur + 0.5, 0, 1))

    @staticmethod
    def _cover(color: NDArray[np.float32], share: NDArray[np.float32], paint: ArrayLike) -> None:
        covering = np.asarray(paint, np.float32)
        color += share * ((covering if covering.ndim == 2 else covering[:, None]) - color)

    def _noise(self, per_meter: float) -> NDArray[np.float32]:
        """Grain of unit variance that lies on the ground; it fades where it is finer than the pixels."""
        row, column = self.rng.integers(_TILE, size=2).astype(np.int32)
        rows = (self.x * per_meter).astype(np.int32) + row & (_TILE - 1)
        columns = (self.y * per_meter).astype(np.int32) + column & (_TILE - 1)
        return np.asarray(_GRAIN.ravel()[rows * _TILE + columns] * np.minimum(1, 1.5 / per_meter / self.blur))


def _grain() -> NDArray[np.float32]:
    """A tile of smooth noise that can be laid without a seam."""
    tile = ndimage.gaussian_filter(np.random.default_rng(7).standard_normal((_TILE, _TILE)), 1.2, mode="wrap")
    return np.asarray(tile / tile.std(), np.float32)


def _pixel_grid() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    width, height = _half_size()
    x, y = np.meshgrid(np.arange(width) * 2 + 1, np.arange(height) * 2 + 1)
    return x.ravel().astype(np.float32), y.ravel().astype(np.float32)


_GRAIN = _grain()
_PIXELS = _pixel_grid()
_LAND_SIDES: tuple[tuple[int, ...], ...] = ((1,), (-1,), (1, -1))


def cast_shadow(
    image: Image.Image, corners: NDArray[np.float64], camera: Camera, sun: NDArray[np.float64] | None
) -> None:
    """Darken `image` where a vehicle (`corners`, shape ``(n, 3)``) keeps light from the road.

    Parameters
    ----------
    image
        Changed in place.
    corners
        Corners of the vehicle, metres.
    camera
        Where the road is seen from.
    sun
        Unit vector towards the sun; None if it does not shine, which leaves a soft shadow underneath.
    """
    flat = corners * [1.03, 1.08, 0.0]
    if sun is not None:
        cast = corners - sun * (corners[:, 2:] / sun[2])
        flat = np.concatenate([flat, cast])
    if camera.depth(flat).min() < 1.0:
        return
    pixels = camera.pixels(flat) / 2
    outline = pixels[ConvexHull(pixels).vertices].reshape(-1).tolist()
    mask = Image.new("L", _half_size())
    ImageDraw.Draw(mask).polygon(outline, fill=150 if sun is not None else 120)
    soft = mask.filter(ImageFilter.BoxBlur(1.2 if sun is not None else 5)).resize(image.size)
    image.paste((24, 25, 32), (0, 0), soft)
