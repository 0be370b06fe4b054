"""A photo of a vehicle: where it stands, in what light and weather, what is in the way, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from iv_pipeline.demo import road
from iv_pipeline.demo.camera import HEIGHT, SUPERSAMPLING, WIDTH, Camera, aim
from iv_pipeline.demo.shapes import RGB, Light, paint

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from iv_pipeline.demo.vehicles import Vehicle

FLAWS = ("glare", "dark", "overexposed", "empty")
"""What can be wrong with a photo, so that it should not be learnt from."""


@dataclass(frozen=True)
class _Weather:
    """What the air and the light do to a photo.

    Attributes
    ----------
    chance
        How often it is drawn.
    tint
        What the light is multiplied with.
    haze
        Color of the air.
    fog
        Share of the haze in what is seen of the vehicle, at most.
    ambient, diffuse
        See `Light`.
    lamps
        How strongly lamps shine.
    """

    chance: float
    tint: RGB
    haze: RGB
    fog: float = 0.05
    ambient: float = 0.62
    diffuse: float = 0.0
    lamps: float = 0.0
    sun: bool = False
    rain: bool = False


_WEATHERS = (
    _Weather(0.36, (1.03, 1.0, 0.95), (190, 212, 232), ambient=0.5, diffuse=0.6, sun=True),
    _Weather(0.26, (0.95, 0.97, 1.0), (200, 206, 210), ambient=0.72, diffuse=0.25),
    _Weather(0.1, (1.06, 0.9, 0.76), (234, 190, 150), ambient=0.42, diffuse=0.6, lamps=0.35, sun=True),
    _Weather(0.12, (0.38, 0.43, 0.58), (24, 28, 44), ambient=0.7, diffuse=0.3, lamps=1.0),
    _Weather(
        0.09, (0.74, 0.8, 0.86), (150, 160, 168), fog=0.22, ambient=0.75, diffuse=0.15, lamps=0.4, rain=True
    ),
    _Weather(0.07, (0.96, 0.98, 1.0), (206, 210, 212), fog=0.62, ambient=0.75, diffuse=0.15, lamps=0.3),
)


def photograph(
    vehicle: Vehicle, neighbor: Vehicle, view: str, flaw: str | None, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """One photo, shape ``(HEIGHT, WIDTH, 3)``.

    Parameters
    ----------
    vehicle
        Who is in it, unless the flaw is ``empty``: then the detector took an empty road for it.
    neighbor
        Another vehicle, which sometimes is partly in view.
    view
        ``front`` or ``rear``.
    flaw
        One of `FLAWS`, or None.
    rng
        Draws everything else.
    """
    camera = aim(vehicle.corners, view, rng)
    weather = _WEATHERS[int(rng.choice(len(_WEATHERS), p=[w.chance for w in _WEATHERS]))]
    if flaw in ("glare", "overexposed", "empty") and weather.lamps == 1.0:
        weather = _WEATHERS[1]
    light = _light(weather, rng)
    canvas = road.picture(camera, weather.haze, rng)
    draw = ImageDraw.Draw(canvas)
    sun = light.sun if weather.sun else None

    def park(who: Vehicle, shift: NDArray[np.float64]) -> None:
        road.cast_shadow(canvas, who.corners + shift, camera, sun)
        paint(draw, who.parts, shift, camera, light)

    if flaw != "empty":
        _traffic(vehicle, neighbor, camera, park, rng)
        if rng.random() < 0.1:
            _branch(draw, rng)
        elif rng.random() < 0.05:
            _pole(draw, rng)
    pixels = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32)
    lamps = None if flaw == "empty" else camera.pixels(_lamps(vehicle, view)) / SUPERSAMPLING
    return _expose(_atmosphere(pixels, weather, lamps, view, rng), flaw, rng)


def _light(weather: _Weather, rng: np.random.Generator) -> Light:
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.2)
    sun = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    return Light(sun, weather.ambient * rng.uniform(0.85, 1.12), weather.diffuse)


def _lamps(vehicle: Vehicle, view: str) -> NDArray[np.float64]:
    return vehicle.headlights if view == "front" else vehicle.taillights


def _traffic(
    vehicle: Vehicle,
    neighbor: Vehicle,
    camera: Camera,
    park: Callable[[Vehicle, NDArray[np.float64]], None],
    rng: np.random.Generator,
) -> None:
    """Park the vehicle and, in one photo of seven, the other one in the next lane or before or behind it."""
    here = np.zeros(3)
    if rng.random() > 0.14:
        park(vehicle, here)
        return
    side, ahead = rng.choice([-1, 1], 2)
    gap = (np.ptp(vehicle.corners[:, 0]) + np.ptp(neighbor.corners[:, 0])) / 2 + rng.uniform(0.8, 2.5)
    beside = np.array([rng.uniform(-3, 3), side * rng.uniform(2.6, 3.5), 0.0])
    there = beside if rng.random() < 0.6 else np.array([ahead * gap, rng.normal(0, 0.4), 0.0])
    if _hides(neighbor, there, vehicle, camera):
        park(vehicle, here)
        return
    both = [(vehicle, here), (neighbor, there)]
    for who, shift in sorted(both, key=lambda pair: -camera.depth(pair[1][None])[0]):
        park(who, shift)


def _hides(other: Vehicle, shift: NDArray[np.float64], vehicle: Vehicle, camera: Camera) -> bool:
    """Whether `other` is too close to the camera, or covers more of `vehicle` than a neighbor may."""
    depth = camera.depth(other.corners + shift)
    if depth.min() < 2.0:
        return True
    if depth.mean() > camera.depth(vehicle.corners).mean():
        return False
    boxes = [camera.pixels(other.corners + shift), camera.pixels(vehicle.corners)]
    low = np.max([pixels.min(axis=0) for pixels in boxes], axis=0)
    high = np.min([pixels.max(axis=0) for pixels in boxes], axis=0)
    return bool(np.prod(np.maximum(high - low, 0)) > 0.25 * np.prod(np.ptp(boxes[1], axis=0)))


def _branch(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Leaves that hang into the picture, close to the camera."""
    width, height = WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING
    start = np.array([rng.choice([-8.0, width + 8.0]), rng.uniform(-10, 0.6 * height)])
    end = np.array([width * rng.uniform(0.3, 0.7), rng.uniform(0, 0.5 * height)])
    draw.line([*start.tolist(), *end.tolist()], fill=(66, 50, 36), width=5)
    n = int(rng.integers(14, 34))
    along = start + (end - start) * rng.uniform(0, 1, n)[:, None] + rng.normal(0, 13, (n, 2))
    sizes, tones = rng.uniform(6, 15, (n, 2)), rng.uniform(0.6, 1.25, n)
    for (x, y), (a, b), tone in zip(along.tolist(), sizes.tolist(), tones.tolist(), strict=True):
        leaf = (int(62 * tone), int(104 * tone), int(44 * tone))
        draw.ellipse([x - a, y - b, x + a, y + b], fill=leaf)


def _pole(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A post between the camera and the road."""
    x, half = rng.uniform(0.1, 0.9) * WIDTH * SUPERSAMPLING, rng.uniform(4, 9)
    bottom = HEIGHT * SUPERSAMPLING
    draw.rectangle([x - half, 0, x + half, bottom], fill=(112, 114, 116))
    draw.rectangle([x - half, 0, x - half / 3, bottom], fill=(142, 144, 146))


_ROWS, _COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)


def _atmosphere(
    pixels: NDArray[np.float32],
    weather: _Weather,
    lamps: NDArray[np.float64] | None,
    view: str,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Tint, shade, light up, fog and wet the scene."""
    pixels = pixels * np.asarray(weather.tint, np.float32)
    if weather.sun and rng.random() < 0.3:
        pixels *= _dapple(rng)
    if lamps is not None and weather.lamps:
        pixels += _glow(lamps, view, weather.lamps)
    fog = weather.fog * rng.uniform(0.5, 1.0) * (1.15 - 0.4 * _ROWS / HEIGHT)[..., None]
    pixels += fog.astype(np.float32) * (np.asarray(weather.haze, np.float32) - pixels)
    return pixels + _rain(rng) if weather.rain else pixels


def _dapple(rng: np.random.Generator) -> NDArray[np.float32]:
    """The shade of trees or of a building: 1 in the sun."""
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        across = (_COLUMNS - WIDTH / 2) * np.cos(angle) + (_ROWS - HEIGHT / 2) * np.sin(angle)
        shade = np.clip(across / 2 + rng.normal(0, 8), 0, 1)
    else:
        blobs = Image.fromarray((rng.random((10, 13)) * 255).astype(np.uint8))
        grown = np.asarray(blobs.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        shade = np.clip((grown - 90) / 80, 0, 1)
    return np.asarray(1 - rng.uniform(0.3, 0.5) * shade[..., None], np.float32)


def _glow(lamps: NDArray[np.float64], view: str, strength: float) -> NDArray[np.float32]:
    color = np.array([255, 244, 206] if view == "front" else [230, 40, 30], np.float32)
    halo = np.zeros_like(_ROWS)
    for x, y in lamps.tolist():
        away = (_COLUMNS - x) ** 2 + (_ROWS - y) ** 2
        halo += np.exp(-away / 18) + 0.3 * np.exp(-away / 160)
    return np.asarray(strength * 0.8 * halo[..., None] * color, np.float32)


def _rain(rng: np.random.Generator) -> NDArray[np.float32]:
    streaks = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(streaks)
    slant = rng.uniform(-3, 3)
    for x, y in rng.uniform(0, WIDTH, (45, 2)).tolist():
        draw.line([x, y, x + slant, y + 9], fill=int(rng.integers(25, 70)))
    return np.asarray(streaks, np.float32)[..., None]


def _expose(pixels: NDArray[np.float32], flaw: str | None, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What lens and sensor make of the scene."""
    pixels = pixels * np.float32(rng.uniform(0.82, 1.18))
    if flaw == "glare":
        pixels += _flare(rng)
    elif flaw == "dark":
        pixels *= np.float32(rng.uniform(0.03, 0.09))
    elif flaw == "overexposed":
        pixels = pixels * np.float32(rng.uniform(1.8, 2.6)) + np.float32(rng.uniform(90, 130))
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0.5, 6.0))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    return np.asarray(image)


def _flare(rng: np.random.Generator) -> NDArray[np.float32]:
    """The sun in the lens: a burst, its rays, and ghosts on the line through the middle of the picture."""
    x, y = rng.uniform(0.2, 0.8) * WIDTH, rng.uniform(0.15, 0.6) * HEIGHT
    dx, dy = _COLUMNS - x, _ROWS - y
    away = np.hypot(dx, dy) + 0.5
    radius = rng.uniform(15, 22)
    rays = 0.5 + 0.5 * np.cos(np.arctan2(dy, dx) * rng.integers(6, 10) + rng.uniform(0, 6))
    burst = 600 * np.exp(-((away / radius) ** 2)) + 150 * (0.4 + 0.6 * rays) * np.exp(-away / (2.2 * radius))
    flare = burst[..., None] * np.array([1.0, 0.96, 0.84])
    for step, tone in ((0.6, (90, 60, 110)), (1.3, (50, 110, 70)), (1.8, (110, 80, 40))):
        gx, gy = x + step * (WIDTH / 2 - x) * 1.6, y + step * (HEIGHT / 2 - y) * 1.6
        ghost = np.hypot(_COLUMNS - gx, _ROWS - gy) < rng.uniform(4, 9)
        flare += ghost[..., None] * np.asarray(tone)
    return np.asarray(flare, np.float32)
