"""Names that people give to clusters."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from iv_pipeline.errors import InputError, Notice
from iv_pipeline.storage.csv_files import read_text_table
from iv_pipeline.storage.junk import is_junk
from iv_pipeline.storage.layout import NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upath import UPath

_CLUSTER = re.compile(r"\s*(-?\d{1,9})(?:[.,]0*)?\s*")
"""The number of a cluster as table programs write it."""


@dataclass(frozen=True)
class GivenNames:
    """Names that people gave to clusters, also to those that are gone.

    Attributes
    ----------
    names
        By cluster.
    notices
        What was guessed to read them.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


def read_names(data_root: UPath, descriptor: str) -> GivenNames:
    """Names that people gave in `Names/<descriptor>.csv`, as any table program saves it; none without that file.

    Raises
    ------
    InputError
        If the file cannot be read or has no columns `cluster` and `name`, or if a cluster is no number or has two
        names; with file and line.
    """
    path, notices = _find(data_root / NAMES.format(descriptor=descriptor))
    try:
        table = read_text_table(path, ("cluster", "name"), error=InputError, skip_blank=True)
    except FileNotFoundError:
        return GivenNames(notices=notices)
    columns = {name.lower(): values for name, values in table.columns.items()}
    if not {"cluster", "name"} <= columns.keys():
        raise InputError(
            f"there are no columns 'cluster' and 'name', only {', '.join(map(repr, table.columns))}",
            where=f"{path}, line 1",
            fix="write 'cluster,name' there",
        )
    names: dict[int, str] = {}
    for row, (cluster, name) in enumerate(zip(columns["cluster"], columns["name"], strict=True)):
        number = _CLUSTER.fullmatch(cluster)
        if number is None:
            raise InputError(
                f"{cluster!r} is no cluster number", where=table.where(row), fix="take one of the Final CSV"
            )
        if not name.strip():
            continue
        given = names.setdefault(int(number[1]), name.strip())
        if given != name.strip():
            raise InputError(
                f"cluster {number[1]} is named both {given!r} and {name.strip()!r}",
                where=table.where(row),
                fix="keep one of them",
            )
    return GivenNames(names, table.notices)


def _find(path: UPath) -> tuple[UPath, tuple[Notice, ...]]:
    """The file of names, in other letter case if need be, and what else bears its name and is not read."""
    if path.is_file() or not path.parent.is_dir():
        return path, ()
    start = path.name.lower().removesuffix("csv")
    beside = sorted(file for file in path.parent.iterdir() if file.name.lower().startswith(start))
    others = [file for file in beside if not is_junk(file.name) and file.is_file()]
    same = [file for file in others if file.name.lower() == path.name.lower()]
    if len(same) == 1:
        return same[0], ()
    return path, tuple(Notice("is not read", str(file), f"save it as CSV, as {path.name}") for file in others)


def given_names(data_root: UPath, descriptor: str) -> dict[int, str]:
    """The names alone, see `read_names`.

    Raises
    ------
    InputError
        If the file of names is wrong.
    """
    return dict(read_names(data_root, descriptor).names)
