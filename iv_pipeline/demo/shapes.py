"""Solids that vehicles are put together from, and how they are painted: polygons, far ones first.

Coordinates are metres: x forward, y to the vehicle's left, z up from the road.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from PIL import ImageDraw

    from iv_pipeline.demo.camera import Camera

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Face:
    """A polygon seen from one side only: its corners run counter-clockwise around the outward normal.

    Attributes
    ----------
    corners
        Shape ``(n, 3)``, metres.
    color
        Red, green, blue, 0 to 255, in full light.
    shines
        Whether it keeps its color whatever the light: a lamp.
    """

    corners: NDArray[np.float64]
    color: RGB
    shines: bool = False


class Prism:
    """A profile in the x–z plane, drawn out to both sides.

    Parameters
    ----------
    profile
        ``(x, z)`` of its vertices from front bottom over the top to rear bottom, the vehicle facing +x.
    half_widths
        Distance of each vertex from the middle plane, or one for all.
    y
        Where the middle plane lies.
    """

    def __init__(
        self, profile: Sequence[tuple[float, float]], half_widths: Sequence[float] | float, y: float = 0.0
    ) -> None:
        self._profile = np.asarray(profile, dtype=np.float64)
        self._widths = np.broadcast_to(np.asarray(half_widths, np.float64), len(self._profile))
        self._y = y

    def strip(
        self, index: int, uv: Sequence[tuple[float, float]] = ((0, 0), (1, 0), (1, 1), (0, 1))
    ) -> NDArray[np.float64]:
        """A polygon on the face between vertex `index` and the next; u runs right to left, v along the profile."""
        ends = [index, (index + 1) % len(self._profile)]
        (x0, z0), (x1, z1) = self._profile[ends]
        w0, w1 = self._widths[ends]
        u, v = np.asarray(uv, dtype=np.float64).T
        width = w0 + v * (w1 - w0)
        return np.column_stack([x0 + v * (x1 - x0), self._y + (2 * u - 1) * width, z0 + v * (z1 - z0)])

    def side(self, sign: int, polygon: Sequence[tuple[float, float]] | None = None) -> NDArray[np.float64]:
        """The left (`sign` 1) or right (-1) side, or a polygon of ``(x, z)`` on it, running as profiles do."""
        points = self._profile if polygon is None else np.asarray(polygon, dtype=np.float64)
        order = np.argsort(self._profile[:, 1], kind="stable")
        by_height = np.interp(points[:, 1], self._profile[order, 1], self._widths[order])
        width = self._widths if polygon is None else by_height
        corners = np.column_stack([points[:, 0], self._y + sign * width, points[:, 1]])
        return corners[::-1] if sign > 0 else corners

    def faces(self, color: RGB, strips: dict[int, RGB] | None = None) -> list[Face]:
        """All faces in one color, apart from the `strips` that have their own."""
        own = strips or {}
        around = [Face(self.strip(i), own.get(i, color)) for i in range(len(self._profile))]
        return [*around, Face(self.side(1), color), Face(self.side(-1), color)]


def box(x: tuple[float, float], half_width: float, z: tuple[float, float], y: float = 0.0) -> Prism:
    """A cuboid from ``x[0]`` (rear) to ``x[1]`` (front); strips 0 to 3 are front, top, rear and bottom."""
    return Prism([(x[1], z[0]), (x[1], z[1]), (x[0], z[1]), (x[0], z[0])], half_width, y)


def disc(x: float, z: float, radius: float, n: int = 14, lowest: float = -1.0) -> list[tuple[float, float]]:
    """A circle in the x–z plane, running as profiles do, cut off below `lowest`."""
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False) - np.pi / 2
    return [(x + radius * np.cos(a), max(z + radius * np.sin(a), lowest)) for a in angles]


@dataclass(frozen=True)
class Part:
    """Faces that hide each other by their order alone: later ones are painted over earlier ones.

    Attributes
    ----------
    faces
        In the order of painting.
    layer
        Parts of a lower layer are painted first; within a layer the farther ones are.
    anchor
        The point whose distance from the camera counts.
    """

    faces: tuple[Face, ...]
    layer: int = 0
    anchor: RGB = (0.0, 0.0, 0.0)

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """Corners of all faces, shape ``(n, 3)``."""
        return np.concatenate([face.corners for face in self.faces])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Row of `corners` where each face starts."""
        return np.cumsum([0, *(len(face.corners) for face in self.faces[:-1])])

    @cached_property
    def following(self) -> NDArray[np.int64]:
        """Row of the corner that follows each corner around its face."""
        following = np.arange(1, len(self.corners) + 1)
        following[[*(self.starts[1:] - 1), -1]] = self.starts
        return following

    @cached_property
    def normals(self) -> NDArray[np.float64]:
        """Outward unit normal of each face by Newell's method, shape ``(n_faces, 3)``."""
        sums = np.add.reduceat(np.cross(self.corners, self.corners[self.following]), self.starts)
        return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9))

    @cached_property
    def colors(self) -> NDArray[np.float64]:
        """Color of each face, shape ``(n_faces, 3)``."""
        return np.array([face.color for face in self.faces], dtype=np.float64)

    @cached_property
    def shining(self) -> NDArray[np.bool_]:
        """Which faces shine."""
        return np.array([face.shines for face in self.faces])


@dataclass(frozen=True)
class Light:
    """A sun and the sky around it.

    Attributes
    ----------
    sun
        Unit vector towards the sun.
    ambient, diffuse
        Share of a color seen in the shade, and what the sun adds where it falls at a right angle.
    """

    sun: NDArray[np.float64]
    ambient: float
    diffuse: float

    def shade(self, part: Part) -> NDArray[np.uint8]:
        """Colors of the faces of `part` in this light, shape ``(n_faces, 3)``."""
        sky = 0.12 * part.normals[:, 2]
        level = self.ambient + sky + self.diffuse * np.maximum(part.normals @ self.sun, 0)
        level = np.where(part.shining, 1.0, level)
        return np.asarray(np.clip(part.colors * level[:, None], 0, 255).astype(np.uint8))


def paint(
    draw: ImageDraw.ImageDraw, parts: Iterable[Part], shift: NDArray[np.float64], camera: Camera, light: Light
) -> None:
    """Paint `parts`, moved by `shift` (shape ``(3,)``), as `camera` sees them in `light`."""
    eye = camera.eye - shift
    for part in sorted(parts, key=lambda p: (p.layer, -float(np.sum((eye - p.anchor) ** 2)))):
        pixels = camera.pixels(part.corners + shift)
        x, y = pixels.T
        x_next, y_next = pixels[part.following].T
        area = np.add.reduceat(x * y_next - x_next * y, part.starts)
        flat = pixels.reshape(-1).tolist()
        ends = [*part.starts[1:].tolist(), len(pixels)]
        colors = light.shade(part).tolist()
        for i in np.flatnonzero(
            area < 0
        ).tolist():  # rows run down: what faces the camera turns the other way
            draw.polygon(flat[2 * part.starts[i] : 2 * ends[i]], fill=tuple(colors[i]))
