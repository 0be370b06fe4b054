"""The points of the maps, as numbers that the page's script reads when a map is looked at."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from iv_pipeline.report.pictures import SPRITE_COLUMNS, SPRITE_ROWS, SPRITE_SIZE, sprite_sheets
from iv_pipeline.report.plots import cluster_color
from iv_pipeline.report.sections import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iv_pipeline.storage.image_store import ImageStore

STEPS = 4095
"""A map is this many steps wide: finer than a screen, also if it is enlarged eight times."""
NOWHERE = 0xFFFF
"""In place of the coordinates of an image that is on no map."""
MAX_PICTURES = 5_000
"""Images of which the page carries a thumbnail for the maps: all of a small delivery."""
MAX_SUSPECTS = 1_000
"""Of these, the most suspicious ones; the others lie evenly over the delivery."""

MAX_AT_ONCE = 100_000
"""Points of a map that is drawn as soon as it comes into view; a larger one waits until it is asked for."""

_FLAT, _SOLID = ("x2", "y2"), ("x3", "y3", "z3")
_SCORES, _FLAGGED = 1000, 0x8000


def points_of(
    final: pd.DataFrame | None,
    projection: pd.DataFrame | None,
    profiles: pd.DataFrame | None,
    given: Mapping[int, str],
    paths: pd.Series[str],
) -> dict[str, Any] | None:
    """Every image's place on the maps of one descriptor, its cluster and how suspicious it is.

    Returns
    -------
    dict or None
        ``flat`` and ``solid``: packed coordinates of the 2-D and the 3-D map; ``cluster``: packed numbers plus
        one; ``suspicion``: the outlier score in thousandths, plus 0x8000 where the image is flagged; ``clusters``:
        number, color and name of each; ``at_once``: whether to draw it unasked. None if a stage has not run, or
        places no image.
    """
    if final is None or projection is None:
        return None
    placed = projection.drop_duplicates("image_path").set_index("image_path").reindex(paths)
    labelled = final.drop_duplicates("image_path").set_index("image_path").reindex(paths)
    known = labelled["cluster"].notna().to_numpy() & np.isfinite(placed.to_numpy(float)).all(axis=1)
    if not known.any():
        return None
    cluster = labelled["cluster"].fillna(-1).to_numpy(int)
    score = np.round(_SCORES * labelled["outlier_score"].fillna(0).to_numpy(float)).astype(np.uint16)
    flagged = labelled["is_outlier"].eq(True).to_numpy()
    return {
        "flat": [pack(axis) for axis in _steps(placed[list(_FLAT)].to_numpy(float), known)],
        "solid": [pack(axis) for axis in _steps(placed[list(_SOLID)].to_numpy(float), known)],
        "cluster": pack((cluster + 1).astype(np.uint16)),
        "suspicion": pack(score | np.where(flagged, _FLAGGED, 0).astype(np.uint16)),
        "clusters": _clusters(cluster[known], profiles, given),
        "at_once": int(known.sum()) <= MAX_AT_ONCE,
    }


def _steps(coordinates: NDArray[np.float64], known: NDArray[np.bool_]) -> list[NDArray[np.uint16]]:
    """Coordinates as whole steps, an array for each axis; one step is as long on every axis."""
    low, high = coordinates[known].min(axis=0), coordinates[known].max(axis=0)
    longest = max(float((high - low).max()), np.finfo(float).tiny)
    centered = (coordinates - (low + high) / 2) / longest + 0.5
    steps = np.full(coordinates.shape, NOWHERE, np.uint16)
    steps[known] = np.round(STEPS * centered[known])
    return list(steps.T)


def _clusters(
    numbers: NDArray[np.int_], profiles: pd.DataFrame | None, given: Mapping[int, str]
) -> list[dict[str, Any]]:
    names: dict[int, str] = {}
    if profiles is not None:
        names = dict(zip(profiles["cluster"].astype(int), profiles["proposed_name"].map(text), strict=True))
    names |= given
    return [
        {"number": number, "color": cluster_color(number), "name": names.get(number, "")}
        for number in np.unique(numbers).tolist()
    ]


def images_of(images: pd.DataFrame, suspicious: pd.Series[str], archive: ImageStore | None) -> dict[str, Any]:
    """What the maps of all descriptors share: paths, true labels, and thumbnails of some images.

    Parameters
    ----------
    images
        Columns `image_path`, and `label…` where there are labels.
    suspicious
        Paths, the most suspicious first.
    archive
        None where there are only descriptors, and no thumbnails.

    Returns
    -------
    dict
        ``paths``: packed text; ``labels``: title, values and packed numbers of each column, 0 where there is none,
        and a color for each number; ``pictured``: rows with a thumbnail; ``sheets``: data URIs, in which they lie
        row by row.
    """
    paths = images["image_path"].map(str)
    rows, sheets = _pictures(paths, suspicious.map(str), archive)
    return {
        "paths": pack_text(json.dumps(paths.to_list(), ensure_ascii=False)),
        "labels": [_label(images[column]) for column in images.columns if column.startswith("label")],
        "pictured": rows,
        "sheets": sheets,
        "tile": [*SPRITE_SIZE, SPRITE_COLUMNS, SPRITE_ROWS],
    }


def _label(column: pd.Series[Any]) -> dict[str, Any]:
    codes, values = pd.factorize(column, sort=True)
    title = str(column.name).replace("_", " ")
    return {
        "title": title,
        "values": [str(value) for value in values],
        "colors": [cluster_color(i) for i in range(-1, len(values))],
        "codes": pack((codes + 1).astype(np.uint16)),
    }


def _pictures(
    paths: pd.Series[str], suspicious: pd.Series[str], archive: ImageStore | None
) -> tuple[list[int], list[str]]:
    if archive is None:
        return [], []
    lacking = paths.isin(archive.missing(paths.to_list())).to_numpy()
    there = np.flatnonzero(~lacking)
    if len(there) > MAX_PICTURES:
        first = np.flatnonzero(paths.isin(suspicious.head(MAX_SUSPECTS)).to_numpy() & ~lacking)
        others = np.setdiff1d(there, first)
        evenly = np.linspace(0, len(others) - 1, MAX_PICTURES - len(first)).astype(int)
        there = np.union1d(first, others[evenly])
    return there.tolist(), sprite_sheets(archive, paths.iloc[there].to_list())


def pack(numbers: NDArray[np.uint16]) -> str:
    """Numbers of 16 bits as text: all low bytes, then all high ones, deflated (RFC 1950), base64."""
    planes = numbers.astype("<u2").view(np.uint8).reshape(-1, 2).T
    return _packed(planes.tobytes())


def pack_text(words: str) -> str:
    """Text as base64 of its deflated UTF-8."""
    return _packed(words.encode("utf-8", "surrogatepass"))


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()
