"""A delivery of any size: the layout, dimensions and spectra of a real one, streamed to disk.

Each image has a vehicle, and a vehicle a type and a color; a photo has a view and its own conditions. All of
these are points of a latent space that every descriptor weighs differently, and that a random layer with a
rectifier turns into features. So features are skewed and partly zero, descriptors agree where the images do,
and the components that keep 90 % of the standardized variance are about as many as published for the real
descriptors: 20 (vdc_type), 69 (vdc_color), 153 (osnet), over 1,000 (efficientnet-b7).

What sets one vehicle of a type apart, and one photo of a vehicle, has few degrees of freedom, as in real
images: both lie on curved surfaces of `FREEDOM` dimensions, which bend through all of the latent space. So the
dimension of a neighborhood, which decides what finding neighbors costs, is 10 to 19 on 4,800 images, where the
descriptors of a real delivery of that size have 7 to 12.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.stream import stream_array
from iv_pipeline.engine import blas_threads, map_ordered
from iv_pipeline.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

TYPES = ("sedan", "suv", "hatchback", "mpv", "van", "pickup", "minibus", "truck", "bus", "estate")
TYPE_SHARES = (0.32, 0.18, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02)
COLORS = {
    "white": (235, 235, 235),
    "black": (25, 25, 25),
    "silver": (180, 184, 188),
    "gray": (110, 110, 112),
    "red": (170, 30, 35),
    "blue": (35, 60, 150),
    "brown": (95, 65, 40),
    "yellow": (225, 185, 40),
    "green": (40, 105, 60),
}
COLOR_SHARES = (0.3, 0.2, 0.14, 0.11, 0.08, 0.08, 0.04, 0.03, 0.02)
VIEWS = ("front", "rear")

FREEDOM = 6
"""Degrees of freedom of a vehicle among those of its type and color, and of a photo among those of a vehicle."""
_BEND = 2.0
"""Radians by which a latent dimension turns where one degree of freedom moves by a standard deviation, about."""
LEAST_PHOTOS, MOST_PHOTOS = 8, 12
"""Of a vehicle."""
_VEHICLES_PER_FOLDER = 500
_VEHICLES_PER_BLOCK = 400
_EPOCH = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Network:
    """How a descriptor sees an image.

    Attributes
    ----------
    n_features
        Width of the descriptor.
    n_latent
        Dimensions of the latent space.
    decay
        The variance of latent dimension i is proportional to ``i ** -decay``.
    weights
        Shares of the latent variance, up to a factor: type, color, view, vehicle, photo.
    noise
        Standard deviation of what is independent in every feature, against 1 of the latent part.
    bias
        Added before the rectifier: the larger, the fewer features are zero.
    """

    n_features: int
    n_latent: int
    decay: float
    weights: tuple[float, float, float, float, float]
    noise: float
    bias: float


NETWORKS = {
    "efficientnet-b7": Network(2560, 256, 0.6, (2, 2, 1.5, 3, 3), noise=0.5, bias=0.5),
    "osnet": Network(512, 192, 0.8, (0.6, 0.6, 0.5, 4, 2), noise=0.2, bias=0.75),
    "vdc_type": Network(512, 24, 1.0, (4, 0.3, 2, 0.6, 1), noise=0.165, bias=0.95),
    "vdc_color": Network(128, 96, 0.5, (0.2, 4, 0.5, 0.7, 2), noise=0.33, bias=0.5),
}
"""Weights, noise and bias were fitted to the published numbers of components."""


@dataclass(frozen=True)
class Plan:
    """What each image shows.

    Attributes
    ----------
    vehicle
        Of each image, ascending from 0 without gaps, shape ``(n_rows,)``, int32.
    view
        Of each image, an index of `VIEWS`, shape ``(n_rows,)``, int8.
    type, color
        Of each vehicle, indices of `TYPES` and `COLORS`, shape ``(n_vehicles,)``, int8.
    """

    vehicle: NDArray[np.int32]
    view: NDArray[np.int8]
    type: NDArray[np.int8]
    color: NDArray[np.int8]

    @property
    def n_rows(self) -> int:
        """Number of images."""
        return len(self.vehicle)

    def blocks(self) -> list[slice]:
        """Stretches of rows that end where a vehicle ends."""
        firsts = np.arange(0, len(self.type), _VEHICLES_PER_BLOCK)
        starts = np.searchsorted(self.vehicle, firsts).tolist()
        return [slice(*bounds) for bounds in zip(starts, [*starts[1:], self.n_rows], strict=True)]

    def paths(self) -> Iterator[str]:
        """Path of each image as a delivery spells it, with Windows separators."""
        for image, vehicle in enumerate(self.vehicle.tolist(), 1):
            folder = vehicle // _VEHICLES_PER_FOLDER + 1
            yield f"veriwild\\{folder}\\{vehicle + 1:05d}\\{image:06d}.jpg"


def write_delivery(
    folder: Path,
    n_rows: int,
    seed: int = 0,
    images: bool = False,
    descriptors: Sequence[str] = tuple(NETWORKS),
) -> None:
    """Write a delivery; memory does not grow with it beyond some bytes a row.

    The same arguments give the same bytes on the same machine. The folder appears when all of it is written.

    Parameters
    ----------
    folder
        Where to; it must not exist, or be empty.
    n_rows
        Number of images, about ten of each vehicle.
    seed
        Chooses the vehicles and everything about their photos.
    images
        Whether there is an archive, with a small picture of each image.
    descriptors
        Which of `NETWORKS`.

    Raises
    ------
    InputError
        If there is something at `folder` already, or `n_rows` is not positive.
    """
    if n_rows < 1:
        raise InputError(f"a delivery of {n_rows} images cannot be written: ask for at least one")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: name another folder, or remove this one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        _write(temporary, make_plan(n_rows, seed), seed, images, descriptors)
        temporary.chmod(0o755)
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def delivery_bytes(n_rows: int, descriptors: Iterable[str] = NETWORKS) -> int:
    """About how large a delivery without images is."""
    return n_rows * (4 * sum(NETWORKS[name].n_features for name in descriptors) + 90)


def make_plan(n_rows: int, seed: int) -> Plan:
    """Which vehicle each image shows, from where, and what the vehicles are.

    A longer delivery of the same seed begins with the same vehicles and photos.
    """
    counts, view, of_type, of_color = (np.random.default_rng([seed, 0, part]) for part in range(4))
    photos = counts.integers(LEAST_PHOTOS, MOST_PHOTOS + 1, size=n_rows // LEAST_PHOTOS + 1)
    vehicle = np.repeat(np.arange(len(photos), dtype=np.int32), photos)[:n_rows]
    n_vehicles = int(vehicle[-1]) + 1
    return Plan(
        vehicle=vehicle,
        view=view.integers(0, len(VIEWS), size=n_rows, dtype=np.int8),
        type=of_type.choice(len(TYPES), size=n_vehicles, p=TYPE_SHARES).astype(np.int8),
        color=of_color.choice(len(COLORS), size=n_vehicles, p=COLOR_SHARES).astype(np.int8),
    )


@dataclass(frozen=True)
class _Surface:
    """A curved surface through the latent space: a wave of random direction and phase in each dimension."""

    directions: NDArray[np.float32]
    phases: NDArray[np.float32]
    amplitudes: NDArray[np.float32]

    @classmethod
    def draw(cls, rng: np.random.Generator, deviations: NDArray[np.float32]) -> _Surface:
        """A surface whose latent dimensions have these standard deviations, shape ``(n_latent,)``."""
        directions = rng.standard_normal((FREEDOM, len(deviations)), dtype=np.float32)
        directions *= np.float32(_BEND / np.sqrt(FREEDOM))
        phases = rng.uniform(0, 2 * np.pi, len(deviations)).astype(np.float32)
        return cls(directions, phases, np.sqrt(np.float32(2)) * deviations)

    def points(self, rng: np.random.Generator, n: int) -> NDArray[np.float32]:
        """`n` points of it, shape ``(n, n_latent)``."""
        where = rng.standard_normal((n, FREEDOM), dtype=np.float32)
        points: NDArray[np.float32] = np.cos(where @ self.directions + self.phases)
        points *= self.amplitudes
        return points


def feature_blocks(name: str, plan: Plan, seed: int, first_block: int = 0) -> Iterator[NDArray[np.float32]]:
    """The features of descriptor `name`, block by block from `first_block` on, computed on threads.

    Yields
    ------
    numpy.ndarray
        Consecutive rows, shape ``(rows_of_block, n_features)``, float32, not negative.
    """
    network, stream = NETWORKS[name], 1 + list(NETWORKS).index(name)
    rng = np.random.default_rng([seed, stream])
    shares = np.arange(1, network.n_latent + 1) ** -network.decay
    spread = np.sqrt(shares / shares.sum()).astype(np.float32)
    parts = np.sqrt(np.divide(network.weights, sum(network.weights))).astype(np.float32)

    def draw(of: Collection[str], part: int) -> NDArray[np.float32]:
        points: NDArray[np.float32] = rng.standard_normal((len(of), network.n_latent), dtype=np.float32)
        points *= parts[part] * spread
        return points

    types, colors, views = (draw(of, part) for part, of in enumerate((TYPES, COLORS, VIEWS)))
    layer = rng.standard_normal((network.n_latent, network.n_features), dtype=np.float32)
    of_vehicles, of_photos = (_Surface.draw(rng, parts[part] * spread) for part in (3, 4))
    blocks = plan.blocks()[first_block:]

    def compute(i: int) -> NDArray[np.float32]:
        rng, rows = np.random.default_rng([seed, stream, first_block + i]), blocks[i]
        vehicle = plan.vehicle[rows]
        latent = types[plan.type[vehicle]] + colors[plan.color[vehicle]] + views[plan.view[rows]]
        latent += of_vehicles.points(rng, _VEHICLES_PER_BLOCK)[vehicle - vehicle[0]]
        latent += of_photos.points(rng, len(vehicle))
        features = rng.standard_normal((len(vehicle), network.n_features), dtype=np.float32)
        features *= np.float32(network.noise)
        features += np.float32(network.bias)
        features += latent @ layer
        return np.maximum(features, 0, out=features)

    with blas_threads(
        1
    ):  # blocks run in parallel; and the last bit of a sum depends on the number of threads
        yield from map_ordered(compute, len(blocks))


def _write(folder: Path, plan: Plan, seed: int, images: bool, descriptors: Sequence[str]) -> None:
    (folder / "descriptors").mkdir()
    for name in descriptors:
        with (folder / "descriptors" / f"{name}.pickle").open("wb") as file:
            stream_array(file, (plan.n_rows, NETWORKS[name].n_features), feature_blocks(name, plan, seed))
    _write_tables(folder, plan)
    if images:
        _write_archive(folder / "raw_data" / "veriwild.zip", plan, seed)


def _write_tables(folder: Path, plan: Plan) -> None:
    _write_csv(folder / "images_paths.csv", ["paths"], ([path] for path in plan.paths()))
    colors = list(COLORS)
    truth = (
        [path, TYPES[plan.type[vehicle]], colors[plan.color[vehicle]], VIEWS[view]]
        for path, vehicle, view in zip(plan.paths(), plan.vehicle, plan.view, strict=True)
    )
    _write_csv(folder / "labels.csv", ["paths", "label", "color", "view"], truth)
    (folder / "delivery.yaml").write_text("identity: '^[^/]+/[^/]+/([^/]+)/'\n", encoding="utf-8")


def _write_csv(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_archive(path: Path, plan: Plan, seed: int) -> None:
    path.parent.mkdir()
    paints = np.array(list(COLORS.values()), np.float32)[plan.color[plan.vehicle]]
    with zipfile.ZipFile(path, "w") as archive:
        pictures = map_ordered(lambda i: _picture(paints[i], seed, i), plan.n_rows)
        for name, data in zip(plan.paths(), pictures, strict=True):
            archive.writestr(zipfile.ZipInfo(name.replace("\\", "/"), _EPOCH), data)


def _picture(paint: NDArray[np.float32], seed: int, image: int) -> bytes:
    """A car's worth of paint on a road, 128 × 96 pixels, as a JPEG."""
    from PIL import Image

    rng = np.random.default_rng([seed, 1 + len(NETWORKS), image])
    pixels = np.full((96, 128, 3), rng.uniform(70, 150), np.float32)
    pixels[20:80, 24:104] = paint * rng.uniform(0.7, 1.05)
    pixels += rng.normal(0, 8, size=(96, 128, 1))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return file.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a delivery from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delivery", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", action="store_true")
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    write_delivery(given.folder, given.rows, given.seed, given.images)
    sys.stdout.write(f"{given.rows:,} rows in {time.perf_counter() - began:.1f} s: {given.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
