"""A delivery: the paths of its images, their labels, its descriptors and its archive.

Row i of the paths' CSV belongs to row i of every descriptor. How a delivery is laid out is configuration
(`iv_pipeline.config.DeliveryConfig`); what it must hold to be used is checked here, where it is read.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from iv_pipeline.errors import ConfigError, DeliveryError, Notice
from iv_pipeline.storage.archive import ImageArchive, normalised
from iv_pipeline.storage.matrices import SUFFIXES, open_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from upath import UPath

    from iv_pipeline.config import DeliveryConfig
    from iv_pipeline.storage.matrix import ChunkedRows, Matrix

_PATH_COLUMNS = ("paths", "path", "image_path")
_LISTED = 10  # files that a message lists
_FIRST_ROW = 2  # line 1 is the header
_ABSOLUTE = re.compile(r"/|[A-Za-z]:")
_NAMELESS = "\x1f"  # such as the row numbers that pandas writes before the columns
_NO_DELIMITER = "\x1f"  # a CSV of one column needs none, and its paths may hold commas


@dataclass(frozen=True)
class Delivery:
    """A folder with descriptors, the paths of their images and, perhaps, the images and labels.

    Attributes
    ----------
    folder
        The delivery.
    config
        How it is laid out.
    files
        The file of each descriptor, relative to `folder`.
    """

    folder: UPath
    config: DeliveryConfig
    files: Mapping[str, str]

    @cached_property
    def paths(self) -> list[str]:
        """Normalised path of every image, in the delivery's order.

        Raises
        ------
        DeliveryError
            If the folder or its CSV of paths is missing, or the CSV is empty, has no column of paths, or has
            a path that is blank, absolute, repeated or leads out of the folder.
        """
        self._require_folder()
        return _read_csv(self.folder / self.config.paths, "delivery.paths").paths

    def image_index(self) -> pd.DataFrame:
        """One row per image, in the delivery's order.

        Returns
        -------
        pandas.DataFrame
            ``image_id`` (int64, from 0), ``image_path`` (str), ``vehicle_id`` (str, missing where the path
            has none; only if `config` says what an identity is), and a column per column of the labels (str,
            missing where an image has none).

        Raises
        ------
        DeliveryError
            If the paths or the labels cannot be used.
        """
        index = pd.DataFrame({"image_id": np.arange(len(self.paths), dtype=np.int64)})
        index["image_path"] = pd.Series(self.paths, dtype="str")
        if self.config.identity is not None:
            index["vehicle_id"] = pd.Series(self._identities(self.config.identity), dtype="str")
        if self._labels is not None:
            row_of = {path: row for row, path in enumerate(self._labels.paths)}
            rows = [row_of.get(path) for path in self.paths]
            for name, values in self._labels.others.items():
                labels = [None if row is None else values[row].strip() or None for row in rows]
                index[name] = pd.Series(labels, dtype="str")
        return index

    def notices(self) -> list[Notice]:
        """What is odd about the delivery and yet no error.

        Raises
        ------
        DeliveryError
            If the paths, the labels or a descriptor cannot be used.
        """
        notices = []
        if self._labels is not None:
            known = set(self.paths)
            strangers = [path for path in self._labels.paths if path not in known]
            if strangers:
                notices.append(
                    Notice(
                        f"labels {len(strangers):,} images that the delivery lacks, such as {strangers[0]}",
                        where=str(self._labels.file),
                    )
                )
        if self.config.identity is not None:
            without = self._identities(self.config.identity).count(None)
            if without:
                notices.append(Notice(f"{without:,} of {len(self.paths):,} paths have no vehicle identity"))
        return [*notices, *(notice for name in self.files for notice in self.descriptor_notices(name))]

    def descriptor_notices(self, name: str) -> list[Notice]:
        """What is odd about the file of descriptor `name` and yet no error.

        The file is opened and closed again: cheap where it is mapped, while one that has to be read into memory
        is read once more for it.

        Raises
        ------
        DeliveryError
            If it is missing or cannot be used, or its rows are not those of the paths.
        """
        file, notices = self._find(name), []
        named = self.folder / self.files[name]
        if file != named:
            notices.append(
                Notice(
                    f"read in place of {named.name}, which is not there",
                    where=str(file),
                    fix=f"set descriptors.{name} in pipeline.yaml to {self._within(file)}",
                )
            )
        return [*notices, *self._open(name).notices]

    def matrix(self, name: str) -> NDArray[Any] | ChunkedRows:
        """The vectors of descriptor `name`, in the delivery's order.

        Parameters
        ----------
        name
            One of `files`.

        Returns
        -------
        numpy.ndarray
            Shape ``(n_images, n_features)``, of the real dtype that the file has; a read-only memory map
            where the file holds an array, and its rows are in the delivery's order.

        Raises
        ------
        ConfigError
            If there is no such descriptor.
        DeliveryError
            If its file is missing or cannot be used, or its rows are not those of the paths.
        """
        matrix = self._open(name)
        if matrix.keys is None:
            return matrix.array
        return self._in_order(self._find(name), matrix.array, matrix.keys)

    def _open(self, name: str) -> Matrix:
        file = self._find(name)
        matrix = open_matrix(file)
        if len(matrix.array) != len(self.paths):
            raise DeliveryError(
                f"has {len(matrix.array):,} rows, but {self.folder / self.config.paths} has "
                f"{len(self.paths):,} paths",
                where=file,
                fix="deliver the two that were made together",
            )
        return matrix

    def _find(self, name: str) -> UPath:
        """The file of descriptor `name`; in its place, one of the same name with another known suffix."""
        if name not in self.files:
            raise ConfigError(
                f"there is no descriptor {name!r}",
                where="descriptors",
                fix=f"name one of {', '.join(self.files)}",
            )
        self._require_folder()
        path = self.folder / self.files[name]
        if path.is_file():
            return path
        candidates = self._same_name(path)
        if len(candidates) == 1:
            return candidates[0]
        setting = f"set descriptors.{name} in pipeline.yaml"
        if candidates:
            listed = ", ".join(file.name for file in candidates)
            raise DeliveryError(
                f"there is no such file, but {listed}", where=path, fix=f"{setting} to one of them"
            )
        raise DeliveryError(
            f"there is no such file; {_listing(path.parent)}",
            where=path,
            fix=f"copy it there, or {setting} to where it is, relative to the delivery",
        )

    def _same_name(self, path: UPath) -> list[UPath]:
        """Files beside `path` with its name but for case, and any known suffix."""
        if not path.parent.is_dir():
            return []
        stem = _stem(path.name)
        files = (file for file in path.parent.iterdir() if file.name.lower().endswith(SUFFIXES))
        return sorted((f for f in files if _stem(f.name) == stem and f.is_file()), key=lambda file: file.name)

    def _within(self, file: UPath) -> str:
        return file.path[len(self.folder.path) :].lstrip("/\\")

    def archive(self) -> ImageArchive | None:
        """The archive of the images; None if the delivery has none.

        Raises
        ------
        DeliveryError
            If the archive is damaged, or the paths cannot be used.
        """
        file = self.archive_file()
        return None if file is None else ImageArchive.matching(file, self.paths)

    def archive_file(self) -> UPath | None:
        """Where the archive of the images is; None if the delivery has none."""
        self._require_folder()
        if self.config.archive is None or not (self.folder / self.config.archive).is_file():
            return None
        return self.folder / self.config.archive

    def has(self, name: str) -> bool:
        """Whether the file of descriptor `name` is there."""
        path = self.folder / self.files[name]
        return path.is_file() or bool(self._same_name(path))

    def _require_folder(self) -> None:
        if not self.folder.is_dir():
            raise DeliveryError(
                f"there is no delivery at {self.folder}: set IV_DELIVERY to its folder, "
                "or draw the demo with 'make demo'"
            )

    @cached_property
    def _labels(self) -> _Rows | None:
        file = self._labels_file()
        if file is None:
            return None
        rows = _read_csv(file, "delivery.labels")
        others = {_label_name(name): values for name, values in rows.others.items()}
        if not others:
            raise DeliveryError(f"{file} has no labels beside its paths: add a column, such as 'label'")
        if len(others) < len(rows.others):
            raise DeliveryError(f"{file} has a column with and without 'label_' before its name: rename one")
        return _Rows(file, rows.paths, others)

    def _labels_file(self) -> UPath | None:
        if self.config.labels is not None:
            return self.folder / self.config.labels
        found = [folder / "labels.csv" for folder in (self.folder, self.folder.parent)]
        return next((file for file in found if file.is_file()), None)

    def _identities(self, pattern: str) -> list[str | None]:
        search = re.compile(pattern).search
        return [found.group(1) if (found := search(path)) else None for path in self.paths]

    def _in_order(
        self, path: UPath, array: NDArray[Any] | ChunkedRows, keys: Sequence[str]
    ) -> NDArray[Any] | ChunkedRows:
        """Rows of a keyed matrix in the delivery's order."""
        keys = [normalised(key) for key in keys]
        if keys == self.paths:
            return array
        row_of = {key: row for row, key in enumerate(keys)}
        missing = [image for image in self.paths if image not in row_of]
        if missing:
            raise DeliveryError(
                f"has no vector of {missing[0]} ({len(missing):,} such images)",
                where=path,
                fix="deliver the vectors of all images",
            )
        return array[[row_of[image] for image in self.paths]]


def _stem(name: str) -> str:
    """Name of a file in lower case, without a suffix that descriptor files have."""
    name = name.lower()
    found = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    return name[: -len(max(found, key=len))] if found else name


def _listing(folder: UPath) -> str:
    """What lies in a folder, in words."""
    if not folder.is_dir():
        return f"there is no folder {folder.name} either"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"the folder has {', '.join(names[:_LISTED])}{more}" if names else "the folder is empty"


@dataclass(frozen=True)
class _Rows:
    """A CSV with a column of paths, normalised, and its other columns."""

    file: UPath
    paths: list[str]
    others: dict[str, list[str]]


def _label_name(name: str) -> str:
    """The column of the index for a column of the labels; never one that the index has itself."""
    return name if name.startswith("label") else f"label_{name}"


def _read_csv(file: UPath, setting: str) -> _Rows:
    """Read a CSV of paths, and check them; `setting` is the one that names the file."""
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise DeliveryError(
            f"there is no file {file}: copy it there, or set {setting} to where it is"
        ) from None
    columns = _columns(file, content)
    name = next((name for name in _PATH_COLUMNS if name in columns), None)
    if name is None:
        raise DeliveryError(
            f"{file} has no column {', '.join(_PATH_COLUMNS[:-1])} or {_PATH_COLUMNS[-1]}, only "
            f"{', '.join(map(repr, columns))}: name the column of paths in line 1"
        )
    paths = columns.pop(name)
    return _Rows(file, _checked(file, paths), columns)


def _columns(file: UPath, content: bytes) -> dict[str, list[str]]:
    """The columns of a CSV as text; its delimiter is the one that line 1 has."""
    content = content.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    if not content.strip():
        raise DeliveryError(f"{file} is empty: copy it again from where it was made")
    if b"\n" not in content:
        raise DeliveryError(f"{file} has a header and no rows: give it the path of every image")
    header = content.partition(b"\n")[0].decode(errors="replace")
    delimiter = next((mark for mark in ",;\t" if mark in header), _NO_DELIMITER)
    names = [name.strip().strip('"').strip() for name in header.split(delimiter)]
    names = [name or f"{_NAMELESS}{i}" for i, name in enumerate(names)]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DeliveryError(f"{file} has two columns {repeated[0]!r}: rename one of them in line 1")
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(content),
            pa.csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
            pa.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise DeliveryError(
            f"{file} is no CSV in UTF-8 ({' '.join(str(error).split())}): save it as one"
        ) from None
    return {name: table.column(name).to_pylist() for name in names if not name.startswith(_NAMELESS)}


def _checked(file: UPath, raw: Sequence[str]) -> list[str]:
    """Normalised paths; every one of them is relative, stays in its folder, and is there once."""
    paths = [normalised(path.strip()) for path in raw]
    for row, path in enumerate(paths, _FIRST_ROW):
        if not path:
            raise DeliveryError(f"{file}: the path in line {row} is blank: give every image its path")
        if "\n" in path or "\r" in path:
            raise DeliveryError(f"{file}: the path in line {row} has a line break: mend its quotes")
        if _ABSOLUTE.match(path) or (".." in path and ".." in path.split("/")):
            raise DeliveryError(
                f"{file}: the path in line {row}, {raw[row - _FIRST_ROW]}, leads out of the delivery: "
                "give it relative to the archive, without '..'"
            )
    if len(set(paths)) < len(paths):
        first, second = _first_duplicate(paths)
        raise DeliveryError(
            f"{file}: lines {first + _FIRST_ROW} and {second + _FIRST_ROW} have the same path, "
            f"{paths[first]}: keep one of them"
        )
    return paths


def _first_duplicate(paths: Sequence[str]) -> tuple[int, int]:
    seen: dict[str, int] = {}
    second = next(row for row, path in enumerate(paths) if seen.setdefault(path, row) != row)
    return seen[paths[second]], second
