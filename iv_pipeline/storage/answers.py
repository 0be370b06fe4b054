"""What people say of clusters, groups and single images: the files in `Names`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from iv_pipeline.config import IMAGES
from iv_pipeline.errors import InputError, Notice
from iv_pipeline.storage.csv_files import TextTable, read_text_table
from iv_pipeline.storage.junk import is_junk
from iv_pipeline.storage.layout import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from upath import UPath

    Values: TypeAlias = Mapping[str, Sequence[str] | None]
    """Attributes, and the values that each may have; None for any."""

Key = TypeVar("Key", int, str)
OUTLIER = "is_outlier"
"""Its column that overrules the verdict on an image."""

_CLUSTER = re.compile(r"\s*(-?\d{1,9})(?:[.,]0*)?\s*")
"""The number of a cluster as table programs write it."""
_TRUTH = {
    **dict.fromkeys(("true", "1", "1.0", "yes", "да", "истина"), True),
    **dict.fromkeys(("false", "0", "0.0", "no", "нет", "ложь"), False),
}
"""Words for yes and no, as people and table programs write them."""


@dataclass(frozen=True)
class ClusterAnswers:
    """Answers about clusters of a descriptor, or about groups; also about those that are gone.

    Attributes
    ----------
    names
        By cluster.
    said
        Values by attribute and cluster, where the cluster determines the attribute.
    asked
        Clusters that have been looked at for their attributes, whatever the answer was.
    notices
        What was guessed to read them.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    said: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    asked: frozenset[int] = frozenset()
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class ImageAnswers:
    """Answers about single images, which are facts.

    Attributes
    ----------
    said
        Values by attribute and path of the image, with ``/``.
    outliers
        Verdicts of people on whether an image is an outlier, by its path.
    asked
        Images that have been looked at for their attributes.
    notices
        What was guessed to read them.
    """

    said: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    outliers: Mapping[str, bool] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    notices: tuple[Notice, ...] = ()


def read_answers(data_root: UPath, descriptor: str, attributes: Values | None = None) -> ClusterAnswers:
    """Answers in `Names/<descriptor>.csv`, as any table program saves it; none without that file.

    Parameters
    ----------
    data_root
        Where `Names` lies.
    descriptor
        A descriptor, a combination, or `groups`.
    attributes
        Columns to be read beside `name`, and the values that each may have.

    Raises
    ------
    InputError
        If the file cannot be read or has no column `cluster` and another one that is known, or if a cluster is no
        number, has two names or two values, or a value that its attribute cannot have; with file and line.
    """
    attributes = attributes or {}
    path = data_root / NAMES.format(descriptor=descriptor)
    table, notices = _read(path, ("cluster", "name"), attributes)
    if table is None:
        return ClusterAnswers(notices=notices)
    columns = _columns(table, path, "cluster", ("name", *attributes))
    numbers = [_number(text, table, row) for row, text in enumerate(columns.pop("cluster"))]
    given = {
        name: _by_key(numbers, columns[name], name, table, attributes.get(name), "cluster {}".format)
        for name in ("name", *attributes)
        if name in columns
    }
    names = given.pop("name", {})
    return ClusterAnswers(names, given, frozenset(numbers) if given else frozenset(), notices)


def read_image_answers(data_root: UPath, attributes: Values) -> ImageAnswers:
    """Answers in `Names/images.csv`; none without that file.

    Parameters
    ----------
    data_root
        Where `Names` lies.
    attributes
        Columns to be read, and the values that each may have.

    Raises
    ------
    InputError
        If the file cannot be read or lacks a column `image_path` and another one that is known, or if an image has
        two values or one that its attribute cannot have; with file and line.
    """
    path = data_root / NAMES.format(descriptor=IMAGES)
    table, notices = _read(path, ("image_path", OUTLIER), attributes)
    if table is None:
        return ImageAnswers(notices=notices)
    columns = _columns(table, path, "image_path", (OUTLIER, *attributes))
    paths = [text.strip().replace("\\", "/") for text in columns.pop("image_path")]
    allowed = {**attributes, OUTLIER: None}
    given = {
        name: _by_key(paths, columns[name], name, table, allowed[name], "image {}".format)
        for name in (OUTLIER, *attributes)
        if name in columns
    }
    row_of = {path: row for row, path in enumerate(paths)}
    outliers = {path: _truth(text, table, row_of[path]) for path, text in given.pop(OUTLIER, {}).items()}
    return ImageAnswers(given, outliers, frozenset(paths) if given else frozenset(), notices)


def given_names(data_root: UPath, descriptor: str) -> dict[int, str]:
    """The names of clusters alone, see `read_answers`.

    Raises
    ------
    InputError
        If the file of names is wrong.
    """
    return dict(read_answers(data_root, descriptor).names)


def has_answers(data_root: UPath, descriptor: str) -> bool:
    """Whether people have said anything of clusters of `descriptor`."""
    return _find(data_root / NAMES.format(descriptor=descriptor))[0].exists()


def _read(
    path: UPath, known: Sequence[str], attributes: Values
) -> tuple[TextTable | None, tuple[Notice, ...]]:
    """The table, None if there is no file, and what to tell of other files."""
    path, notices = _find(path)
    columns = [*known, *(name.lower() for name in attributes)]
    try:
        table = read_text_table(path, columns, error=InputError, skip_blank=True)
    except FileNotFoundError:
        return None, notices
    return table, (*notices, *table.notices)


def _find(path: UPath) -> tuple[UPath, tuple[Notice, ...]]:
    """The file of answers, in other letter case if need be, and what else bears its name and is not read."""
    if path.is_file() or not path.parent.is_dir():
        return path, ()
    start = path.name.lower().removesuffix("csv")
    beside = sorted(file for file in path.parent.iterdir() if file.name.lower().startswith(start))
    others = [file for file in beside if not is_junk(file.name) and file.is_file()]
    same = [file for file in others if file.name.lower() == path.name.lower()]
    if len(same) == 1:
        return same[0], ()
    return path, tuple(Notice("is not read", str(file), f"save it as CSV, as {path.name}") for file in others)


def _columns(table: TextTable, path: UPath, key: str, others: Sequence[str]) -> dict[str, list[str]]:
    """The columns that are known, by their names in the right case."""
    spelled = {name.lower(): name for name in (key, *others)}
    columns = {
        spelled[name.strip().lower()]: values
        for name, values in table.columns.items()
        if name.strip().lower() in spelled
    }
    if key not in columns or (len(columns) < 2 and len(others) > 1):
        raise InputError(
            f"there are no columns {key!r} and {' or '.join(map(repr, others))}, only "
            f"{', '.join(map(repr, table.columns))}",
            where=f"{path}, line 1",
            fix=f"write '{key},{others[0]}' there",
        )
    return columns


def _number(text: str, table: TextTable, row: int) -> int:
    number = _CLUSTER.fullmatch(text)
    if number is None:
        raise InputError(
            f"{text!r} is no cluster number", where=table.where(row), fix="take one of the Final CSV"
        )
    return int(number[1])


def _by_key(
    keys: Sequence[Key],
    values: Sequence[str],
    column: str,
    table: TextTable,
    allowed: Sequence[str] | None,
    called: Callable[[Key], str],
) -> dict[Key, str]:
    """Values that are not empty, by their keys; each key has one."""
    found: dict[Key, str] = {}
    spelled = {value.casefold(): value for value in allowed or ()}
    for row, (key, text) in enumerate(zip(keys, values, strict=True)):
        value = text.strip()
        if not value:
            continue
        if allowed is not None and value.casefold() not in spelled:
            raise InputError(
                f"{value!r} is no value of {column!r}",
                where=table.where(row),
                fix=f"choose one of {', '.join(allowed)}, or add it to 'attributes' in pipeline.yaml",
            )
        value = spelled.get(value.casefold(), value)
        before = found.setdefault(key, value)
        if before != value:
            verb = "is named" if column == "name" else f"has as {column}"
            raise InputError(
                f"{called(key)} {verb} both {before!r} and {value!r}",
                where=table.where(row),
                fix="keep one of them",
            )
    return found


def _truth(text: str, table: TextTable, row: int) -> bool:
    if text.casefold() not in _TRUTH:
        raise InputError(
            f"{text!r} in {OUTLIER!r} is neither true nor false",
            where=table.where(row),
            fix="write one of these",
        )
    return _TRUTH[text.casefold()]
