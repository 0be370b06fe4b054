"""The traffic camera: where a point of the scene falls in the picture, and what a pixel sees of the road."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT = 112, 84
"""Size of the photos, pixels."""

SUPERSAMPLING = 3
"""Vehicles are painted this many times larger and reduced, which smooths their edges."""

_AZIMUTH = 24.0
"""Usual angle between the road and the line of sight, degrees: the camera stands at the roadside."""

_ZOOM = 68.0
"""Usual scale, supersampled pixels per metre; small vehicles are seen larger, and what would not fit smaller."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera and the crop that a vehicle detector took from its picture.

    Attributes
    ----------
    eye
        Position, metres, shape ``(3,)``.
    axes
        Rows point right, down and forward, shape ``(3, 3)``.
    crop
        From the image plane to supersampled pixels, affine, shape ``(2, 3)``.
    """

    eye: NDArray[np.float64]
    axes: NDArray[np.float64]
    crop: NDArray[np.float64]

    def depth(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of `points` (shape ``(n, 3)``) along the line of sight, metres."""
        return np.asarray((points - self.eye) @ self.axes[2])

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where `points` (shape ``(n, 3)``) fall, supersampled pixels, shape ``(n, 2)``."""
        seen = (points - self.eye) @ self.axes.T
        return np.asarray(seen[:, :2] / seen[:, 2:] @ self.crop[:, :2].T + self.crop[:, 2])

    def road(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """What pixels at columns `x` and rows `y` (shape ``(n,)``) see of the road plane.

        Returns
        -------
        numpy.ndarray
            x and y on the road and the distance from the eye, metres, shape ``(3, n)``; pixels above the
            horizon see points very far away.
        """
        rays = np.linalg.inv(self.crop[:, :2]).T @ self.axes[:2]
        origin = self.axes[2] - self.crop[:, 2] @ rays
        a, b, c = np.vstack([rays, origin]).astype(np.float32)
        reach = np.float32(self.eye[2]) / np.maximum(-(a[2] * x + b[2] * y + c[2]), np.float32(5e-3))
        eye = self.eye.astype(np.float32)
        return np.stack([eye[i] + (a[i] * x + b[i] * y + c[i]) * reach for i in (0, 1)] + [reach])


def aim(vehicle: NDArray[np.float64], view: str, rng: np.random.Generator) -> Camera:
    """A camera above the road that sees a vehicle from the front or from the rear.

    Parameters
    ----------
    vehicle
        Corners of the vehicle, shape ``(n, 3)``; the crop is taken around it, not quite exactly.
    view
        ``front`` or ``rear``.
    rng
        Draws the angle, distance, tilt, skew and crop.
    """
    azimuth = np.deg2rad(rng.normal(_AZIMUTH, 6)) + (np.pi if view == "rear" else 0)
    elevation = np.deg2rad(rng.uniform(17, 23))
    center = (vehicle.min(axis=0) + vehicle.max(axis=0)) / 2
    towards = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    distance = rng.uniform(12, 17)
    eye = center + towards * distance
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    axes = np.stack([right, -np.cross(towards, right), -towards])
    return Camera(eye, axes, _crop(Camera(eye, axes, np.eye(2, 3)).pixels(vehicle), distance, rng))


def _crop(plane: NDArray[np.float64], distance: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Tilt, skew and scale the image plane so that points `plane`, shape ``(n, 2)``, fill most of a photo."""
    tilt = np.deg2rad(rng.normal(0, 1.2))
    skew = np.array([[1.0, rng.normal(0, 0.03)], [rng.normal(0, 0.02), rng.uniform(0.94, 1.06)]])
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]) @ skew
    low, high = (plane @ turn.T).min(axis=0), (plane @ turn.T).max(axis=0)
    size = np.array([WIDTH, HEIGHT]) * SUPERSAMPLING
    fit = float(np.min(size / (high - low)))
    scale = rng.uniform(0.88, 1.0) * min(fit, fit**0.25 * (distance * _ZOOM) ** 0.75)
    shift = rng.normal(0, 0.02, 2) * size
    return np.column_stack([scale * turn, size / 2 - scale * (low + high) / 2 + shift])
