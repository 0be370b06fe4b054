"""The paths of a delivery's images, from a CSV: relative, each once, in the order of the descriptors' rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iv_pipeline.errors import DeliveryError, Notice
from iv_pipeline.storage.csv_files import TextTable, read_text_table
from iv_pipeline.storage.matching import normalized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upath import UPath

PATH_COLUMNS = ("paths", "path", "image_path")
"""Names of the column of paths; case does not matter. Another column is taken if it alone looks like paths."""
_ABSOLUTE = re.compile(r"/|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+:/")
_SAMPLE = 1000
_LIKELY = 0.9
"""Share of the values of a column of paths that look like one."""
_LOOKS_LIKE_A_PATH = re.compile(r"[/\\]|\.(jpe?g|png|bmp|gif|tiff?|webp)$", re.IGNORECASE)


@dataclass(frozen=True)
class PathList:
    """A CSV with a column of paths.

    Attributes
    ----------
    file
        Where it is.
    paths
        Normalized, relative, each once.
    others
        The other columns as text, by name.
    notices
        What was guessed or cut off.
    """

    file: UPath
    paths: list[str]
    others: dict[str, list[str]]
    notices: tuple[Notice, ...] = ()


def read_path_list(
    file: UPath, setting: str, archive: str | None = None, *, anywhere: bool = False
) -> PathList:
    """Read a CSV of paths, and check them.

    Absolute paths are read if all of them share the folders before one that is named as the archive: these are cut
    off, with a notice. The same path is then given to an image wherever the list was made.

    Parameters
    ----------
    file
        The CSV.
    setting
        The one that names it.
    archive
        The archive of the images, or their folder, as configured.
    anywhere
        Whether paths may lead out of the delivery and be absolute: then they are kept as they are.

    Raises
    ------
    DeliveryError
        If it is not there, empty or no table, has no column of paths, or has a path that is blank, absolute,
        repeated or leads out of the folder; with file and line.
    """
    try:
        table = read_text_table(file, PATH_COLUMNS)
    except FileNotFoundError:
        raise DeliveryError(
            f"there is no file {file}", fix=f"copy it there, or set {setting} to where it is"
        ) from None
    name, notices = _column_of_paths(table)
    if not table.lines:
        raise DeliveryError("has a header and no rows", where=file, fix="give it the path of every image")
    raw = table.columns.pop(name)
    paths = [normalized(path.strip()) for path in raw]
    if not anywhere:
        paths, cut = _relative(table, raw, paths, archive)
        notices += cut
    _check(table, name, raw, paths, anywhere=anywhere)
    return PathList(file, paths, table.columns, (*table.notices, *notices))


def _column_of_paths(table: TextTable) -> tuple[str, list[Notice]]:
    """The column of paths: by its name, or else the only one whose values look like paths, with a notice."""
    named = [name for name in table.columns if name.lower() in PATH_COLUMNS]
    if named:
        return named[0], []
    likely = [name for name, values in table.columns.items() if _are_likely(values)]
    if len(likely) != 1 or any(map(_LOOKS_LIKE_A_PATH.search, table.columns)):
        raise _without_paths(table)
    notice = Notice(
        f"the column {likely[0]!r} is taken for the paths",
        where=str(table.file),
        fix=f"name it {PATH_COLUMNS[0]!r} to have this no longer said",
    )
    return likely[0], [notice]


def _are_likely(values: Sequence[str]) -> bool:
    sample = values[:: max(1, len(values) // _SAMPLE)]
    n_likely = sum(_LOOKS_LIKE_A_PATH.search(value.strip()) is not None for value in sample)
    return bool(sample) and n_likely >= _LIKELY * len(sample)


def _without_paths(table: TextTable) -> DeliveryError:
    path = next((name for name in table.columns if _LOOKS_LIKE_A_PATH.search(name)), None)
    if path is not None:
        return DeliveryError(
            f"holds a path, {path}, and not the name of a column",
            where=f"{table.file}, line 1",
            fix=f"put a line with the name {PATH_COLUMNS[0]!r} before it",
        )
    names = ", ".join(map(repr, table.columns)) or "columns without a name"
    return DeliveryError(
        f"there is no column {', '.join(PATH_COLUMNS[:-1])} or {PATH_COLUMNS[-1]}, only {names}",
        where=f"{table.file}, line 1",
        fix=f"name the column of paths {PATH_COLUMNS[0]!r}",
    )


def _relative(
    table: TextTable, raw: Sequence[str], paths: list[str], archive: str | None
) -> tuple[list[str], list[Notice]]:
    """Paths without what all absolute ones have before the folder that is named as the archive."""
    row = next((row for row, path in enumerate(paths) if _ABSOLUTE.match(path)), None)
    if row is None:
        return paths, []
    shared = _shared_folders(paths)
    folder = normalized(archive).rpartition("/")[2].partition(".")[0].lower() if archive else ""
    folders = [part.lower() for part in shared]
    if not folder or folder not in folders:
        whole = f"{'/'.join(shared)}/, or the part of it that" if any(shared) else "what"
        raise DeliveryError(
            f"the path {raw[row]} leads out of the delivery",
            where=table.where(row),
            fix=f"cut off {whole} stands before the folders that the archive has",
        )
    before = "/".join(shared[: len(folders) - 1 - folders[::-1].index(folder)]) + "/"
    notice = Notice(
        f"its {len(paths):,} paths are absolute, and are read without {before}", where=str(table.file)
    )
    return [path[len(before) :] for path in paths], [notice]


def _shared_folders(paths: Sequence[str]) -> list[str]:
    """Folders that all paths begin with."""
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    shared = []
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        shared.append(one)
    return shared


def _check(table: TextTable, name: str, raw: Sequence[str], paths: Sequence[str], *, anywhere: bool) -> None:
    """Refuse paths that are blank, broken or repeated, or lead out of the folder."""
    for row, path in enumerate(paths):
        if not path:
            raise DeliveryError("the path is blank", where=table.where(row), fix="give every image its path")
        if path == name:
            raise DeliveryError("the header is repeated", where=table.where(row), fix="remove that line")
        if "\n" in path:
            raise DeliveryError("the path has a line break", where=table.where(row), fix="fix its quotes")
        if not anywhere and ".." in path and ".." in path.split("/"):
            raise DeliveryError(
                f"the path {raw[row]} leads out of the delivery",
                where=table.where(row),
                fix="give it relative to the archive, without '..'",
            )
    if len(set(paths)) < len(paths):
        first, second = _first_duplicate(paths)
        raise DeliveryError(
            f"lines {table.lines[first]} and {table.lines[second]} have the same path, {paths[first]}",
            where=table.file,
            fix="keep one of them",
        )


def _first_duplicate(paths: Sequence[str]) -> tuple[int, int]:
    seen: dict[str, int] = {}
    second = next(row for row, path in enumerate(paths) if seen.setdefault(path, row) != row)
    return seen[paths[second]], second
