"""Rows of a descriptor that has a path for each, in the order of a delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iv_pipeline.errors import DeliveryError, Notice
from iv_pipeline.storage.matching import Entries, closest_names, match, normalized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upath import UPath

_FIX = "deliver one vector of every image, keyed by its path"


def rows_by_path(
    keys: Sequence[str], image_paths: Sequence[str], file: UPath
) -> tuple[list[int] | None, list[Notice]]:
    """The row of each image.

    Keys may have other folders before them than the paths have, or another letter case: they are matched as the
    names in an archive are, see `iv_pipeline.storage.matching.match`.

    Parameters
    ----------
    keys
        Path of each row, as the file has it.
    image_paths
        Normalized paths of the delivery.
    file
        The descriptor's file.

    Returns
    -------
    rows
        Row of each image; None if the rows are in that order already.
    notices
        How keys were matched, and how many vectors belong to no image.

    Raises
    ------
    DeliveryError
        If an image has no vector or could have several.
    """
    keys = [normalized(key) for key in keys]
    if keys == image_paths:
        return None, []
    row_of = {key: row for row, key in enumerate(keys)}
    if len(row_of) < len(keys):
        row = next(row for row, key in enumerate(keys) if row_of[key] != row)
        raise DeliveryError(
            f"has two vectors of {keys[row]}, in rows {row:,} and {row_of[keys[row]]:,} (counted from 0)",
            where=file,
            fix=_FIX,
        )
    entries = Entries(row_of)
    matching, notices = match(image_paths, entries)
    found = [entries.find(path, matching) for path in image_paths]
    missing = [path for path, key in zip(image_paths, found, strict=True) if key is None]
    if missing:
        raise _lacks(missing, entries, file)
    n_others = len(keys) - len(image_paths)
    others = [Notice(f"{n_others:,} vectors are of images that the delivery lacks")] if n_others else []
    told = [Notice(notice.what, str(file), notice.fix) for notice in [*notices, *others]]
    return [row_of[key] for key in found if key is not None], told


def _lacks(missing: Sequence[str], entries: Entries, file: UPath) -> DeliveryError:
    fits = closest_names(missing[0], entries)
    more = f", for which {' and '.join(fits)} would do" if len(fits) > 1 else ""
    return DeliveryError(
        f"has no vector of {missing[0]}{more} ({len(missing):,} such images)", where=file, fix=_FIX
    )
