"""A delivery of drawn photos in the layout of a real one, with the truth beside it."""

from __future__ import annotations

import csv
import io
import multiprocessing
import pickle
import shutil
import tempfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iv_pipeline.demo.features import EXTRACTORS
from iv_pipeline.demo.photo import FLAWS, photograph
from iv_pipeline.demo.vehicles import BODIES, PAINTS, Vehicle, build
from iv_pipeline.engine import blas_threads, n_workers
from iv_pipeline.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

_BATCH = 100
_BATCHES_WORTH_PROCESSES = 10
_VEHICLES_PER_FOLDER = 50
_EPOCH = (2020, 1, 1, 0, 0, 0)
_DECK = {"sedan": 4, "hatchback": 4, "suv": 4, "pickup": 3, "minibus": 3, "truck": 3, "motorcycle": 2}


@dataclass(frozen=True)
class Shot:
    """What is known of a photo before it is drawn.

    Attributes
    ----------
    number
        Of the photo in the delivery, from 0.
    vehicle
        Index of the vehicle.
    view
        ``front`` or ``rear``.
    flaw
        One of `iv_pipeline.demo.photo.FLAWS`, or None.
    """

    number: int
    vehicle: int
    view: str
    flaw: str | None

    @property
    def path(self) -> str:
        """Batch, vehicle and photo, as in the archive."""
        folder = self.vehicle // _VEHICLES_PER_FOLDER + 1
        return f"veriwild/{folder}/{self.vehicle + 1:05d}/{self.number + 1:06d}.jpg"


def draw_delivery(
    folder: Path, n_images: int = 2000, seed: int = 0, progress: Callable[[str], None] | None = None
) -> None:
    """Draw a delivery: photos of vehicles, four descriptors of them, and their true labels.

    The same arguments give the same bytes. The folder appears when all of it is written.

    Parameters
    ----------
    folder
        Where to; it must not exist, or be empty.
    n_images
        Number of photos; there are about nine of each vehicle, and one in fifty is flawed.
    seed
        Chooses the vehicles and everything about their photos.
    progress
        Called with a sentence now and then.

    Raises
    ------
    InputError
        If there is something at `folder` already, or `n_images` is not positive.
    """
    if n_images < 1:
        raise InputError(f"a demo of {n_images} images cannot be drawn: ask for at least one")
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: name another folder for the demo, or remove this one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        _write(temporary, n_images, seed, progress or (lambda _: None))
        temporary.chmod(0o755)
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(folder: Path, n_images: int, seed: int, progress: Callable[[str], None]) -> None:
    shots = plan(n_images, seed)
    fleet = _fleet(shots[-1].vehicle + 1, seed)
    for name in ("descriptors", "raw_data"):
        (folder / name).mkdir()
    progress(f"Drawing {n_images} photos of {len(fleet)} vehicles")
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in EXTRACTORS}
    with zipfile.ZipFile(folder / "raw_data" / "veriwild.zip", "w") as archive:
        for batch, (files, features) in _drawn(shots, fleet, seed):
            for shot, data in zip(batch, files, strict=True):
                archive.writestr(zipfile.ZipInfo(shot.path, _EPOCH), data)
            for name, vectors in features.items():
                parts[name].append(vectors)
            progress(f"Drew {batch[-1].number + 1} of {n_images} photos")
    for name, blocks in parts.items():
        with (folder / "descriptors" / f"{name}.pickle").open("wb") as file:
            pickle.dump(np.concatenate(blocks), file, protocol=4)
    _write_tables(folder, shots, fleet)


def plan(n_images: int, seed: int) -> list[Shot]:
    """Which vehicle each photo shows, from where, and which photos are flawed."""
    rng = np.random.default_rng([seed, 0])
    vehicles: list[int] = []
    while len(vehicles) < n_images:
        vehicles += [vehicles[-1] + 1 if vehicles else 0] * int(rng.integers(8, 11))
    views = rng.permuted(np.resize(["front", "rear"], n_images))
    flaws = np.full(n_images, "", dtype=object)
    chosen = rng.permutation(n_images)[: len(FLAWS) * round(n_images / 200)]
    flaws[chosen] = np.resize(FLAWS, len(chosen))
    return [Shot(i, vehicles[i], str(views[i]), str(flaws[i]) or None) for i in range(n_images)]


def _fleet(n_vehicles: int, seed: int) -> list[Vehicle]:
    """Vehicles whose body types and colors come up about as often as they should, however few they are."""
    rng = np.random.default_rng([seed, 1])
    bodies = _shuffled_decks(
        [*BODIES], [body for body, n in _DECK.items() for _ in range(n - 1)], n_vehicles, rng
    )
    colors = _shuffled_decks([*PAINTS], [], n_vehicles, rng)
    return [
        build(body, color, np.random.default_rng([seed, 2, i]))
        for i, (body, color) in enumerate(zip(bodies, colors, strict=True))
    ]


def _shuffled_decks(first: list[str], rest: list[str], n: int, rng: np.random.Generator) -> list[str]:
    """`n` cards from decks shuffled one after another, in each of which `first` comes before `rest`."""
    cards: list[str] = []
    while len(cards) < n:
        cards += [
            str(card) for part in (first, rest) for card in rng.permutation(np.array(part, dtype=object))
        ]
    return cards[:n]


Drawn = tuple[list[bytes], dict[str, "NDArray[np.float32]"]]
"""Encoded photos, and their descriptors."""


def _drawn(shots: list[Shot], fleet: list[Vehicle], seed: int) -> Iterator[tuple[list[Shot], Drawn]]:
    """Batches of photos in their order; many are drawn in processes, for drawing holds the interpreter lock."""
    batches = [shots[start : start + _BATCH] for start in range(0, len(shots), _BATCH)]
    draw = partial(_draw, fleet=fleet, seed=seed)
    workers = min(n_workers(), len(batches))
    if workers == 1 or len(batches) < _BATCHES_WORTH_PROCESSES:
        yield from zip(batches, map(draw, batches), strict=True)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield from zip(batches, pool.map(draw, batches), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _draw(shots: list[Shot], fleet: list[Vehicle], seed: int) -> Drawn:
    files = [_jpeg(shot, fleet, seed) for shot in shots]
    photos = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in files])  # as they will be read
    with blas_threads(1):  # the order of a sum, and so its last bit, depends on the number of threads
        return files, {name: extract(photos) for name, extract in EXTRACTORS.items()}


def _jpeg(shot: Shot, fleet: list[Vehicle], seed: int) -> bytes:
    rng = np.random.default_rng([seed, 3, shot.number])
    neighbor = fleet[int(rng.integers(len(fleet)))]
    photo = photograph(fleet[shot.vehicle], neighbor, shot.view, shot.flaw, rng)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=int(rng.integers(60, 94)))
    return file.getvalue()


def _write_tables(folder: Path, shots: list[Shot], fleet: list[Vehicle]) -> None:
    paths = [shot.path.replace("/", "\\") for shot in shots]
    _write_csv(folder / "images_paths.csv", ["paths"], ([path] for path in paths))
    truth = (
        [path, shot.flaw or fleet[shot.vehicle].body, *_seen(shot, fleet)]
        for path, shot in zip(paths, shots, strict=True)
    )
    _write_csv(folder / "labels.csv", ["paths", "label", "color", "view"], truth)
    identity = "identity: '^[^/]+/[^/]+/([^/]+)/'\n"
    (folder / "delivery.yaml").write_text(identity, encoding="utf-8")


def _seen(shot: Shot, fleet: list[Vehicle]) -> tuple[str, str]:
    return ("", "") if shot.flaw == "empty" else (fleet[shot.vehicle].color, shot.view)


def _write_csv(path: Path, header: list[str], rows: Iterable[Iterable[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
