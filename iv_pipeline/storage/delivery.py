"""A delivery: the paths of its images, their labels, its descriptors and its archive.

Row i of the paths' CSV belongs to row i of every descriptor. How a delivery is laid out is configuration
(`iv_pipeline.config.DeliveryConfig`); what it must hold to be used is checked here, where it is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from iv_pipeline.config import AUTO
from iv_pipeline.errors import ConfigError, DeliveryError, Notice
from iv_pipeline.storage.finding import FoundImages, find_images
from iv_pipeline.storage.folder import files_below
from iv_pipeline.storage.junk import is_junk
from iv_pipeline.storage.keyed import rows_by_path
from iv_pipeline.storage.matching import Entries, match
from iv_pipeline.storage.matrices import SUFFIXES, open_matrix
from iv_pipeline.storage.path_lists import PathList, read_path_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from upath import UPath

    from iv_pipeline.config import DeliveryConfig
    from iv_pipeline.storage.image_store import ImageStore
    from iv_pipeline.storage.matrix import ChunkedRows, Matrix

LABELS = "labels.csv"
"""Name of the true labels, in a delivery or beside it."""
_LISTED = 10  # files that a message lists


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
        """Normalized path of every image, in the delivery's order.

        Raises
        ------
        DeliveryError
            If the folder is missing, or its CSV of paths cannot be used, see
            `iv_pipeline.storage.path_lists.read_path_list`.
        """
        return self._listed.paths

    def image_index(self) -> pd.DataFrame:
        """One row per image, in the delivery's order.

        Returns
        -------
        pandas.DataFrame
            ``image_id`` (int64, from 0), ``image_path`` (str), ``vehicle_id`` (str, missing where the path
            has none; only if `config` has a pattern for it), and a column per column of the labels (str,
            missing where an image has none).

        Raises
        ------
        DeliveryError
            If the paths or the labels cannot be used.
        """
        index = pd.DataFrame({"image_id": np.arange(len(self.paths), dtype=np.int64)})
        index["image_path"] = pd.Series(self.paths, dtype="str")
        if self._identities is not None:
            index["vehicle_id"] = pd.Series(self._identities, dtype="str")
        if self._labels is not None:
            rows = self._label_rows.rows
            for name, values in self._labels.others.items():
                labels = [None if row is None else values[row].strip() or None for row in rows]
                index[name] = pd.Series(labels, dtype="str")
        return index

    def notices(self, descriptors: Iterable[str] | None = None) -> list[Notice]:
        """What is odd about the delivery and yet no error.

        Parameters
        ----------
        descriptors
            Descriptors whose files are opened; all by default.

        Raises
        ------
        DeliveryError
            If the paths, the labels or a descriptor cannot be used.
        """
        notices = [*self._listed.notices, *self._labels_beside.notices]
        if self._labels is not None:
            notices += self._labels.notices
            notices += self._label_rows.notices
        if self._identities is not None:
            without = self._identities.count(None)
            if without:
                notices.append(Notice(f"{without:,} of {len(self.paths):,} paths have no vehicle identity"))
        wanted = self.files if descriptors is None else descriptors
        return [*notices, *(notice for name in wanted for notice in self.descriptor_notices(name))]

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
                    f"read in place of {self.files[name]}, which is not there",
                    where=str(file),
                    fix=f"set descriptors.{name} in pipeline.yaml to {self._within(file)}",
                )
            )
        return [*notices, *self._open(name)[2]]

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
        matrix, rows, _ = self._open(name)
        return matrix.array if rows is None else matrix.array[rows]

    def _open(self, name: str) -> tuple[Matrix, list[int] | None, list[Notice]]:
        """The matrix of a descriptor, its rows in the delivery's order if they have another, and what is odd."""
        file = self._find(name)
        matrix = open_matrix(file)
        if matrix.keys is None or len(matrix.keys) < len(self.paths):
            self._require_rows(file, matrix.array.shape)
        rows, notices = (None, []) if matrix.keys is None else rows_by_path(matrix.keys, self.paths, file)
        return matrix, rows, [*matrix.notices, *notices]

    def _require_rows(self, file: UPath, shape: tuple[int, ...]) -> None:
        n_rows, n_paths = shape[0], len(self.paths)
        if n_rows == n_paths:
            return
        what = f"has {n_rows:,} rows, but {self.folder / self.config.paths} has {n_paths:,} paths"
        fix = "deliver the two that were made together"
        if shape[1] == n_paths:
            what, fix = (
                f"{what}: it looks transposed",
                "save it with a row for each image: np.save(file, array.T)",
            )
        elif n_rows == n_paths + 1:
            what = f"{what}: one row may be of the header line of the paths"
        raise DeliveryError(what, where=file, fix=fix)

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
            listed = ", ".join(map(self._within, candidates))
            raise DeliveryError(
                f"there is no such file, but {listed}", where=path, fix=f"{setting} to one of them"
            )
        raise DeliveryError(
            f"there is no such file; {_listing(path.parent)}",
            where=path,
            fix=f"copy it there, or {setting} to where it is, relative to the delivery",
        )

    def _same_name(self, path: UPath) -> list[UPath]:
        """Files with the name of `path` but for case, and any known suffix: beside it, or else in the delivery."""
        stem = _stem(path.name)
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        found = [file for file in beside if _is_descriptor(file.name, stem) and file.is_file()]
        if not found:
            names = (name for name in files_below(self.folder) if not is_junk(name))
            found = [self.folder / name for name in names if _is_descriptor(name.rpartition("/")[2], stem)]
        return sorted(found, key=lambda file: file.path)

    def _within(self, file: UPath) -> str:
        return file.path[len(self.folder.path) :].lstrip("/\\")

    def archive(self) -> ImageStore | None:
        """The images, in an archive or a folder; None if the delivery has none.

        Raises
        ------
        DeliveryError
            If the archive is damaged, or the paths cannot be used.
        """
        return self._images.store

    def archive_notices(self) -> list[Notice]:
        """Where the images were found, how their names were matched to the paths, or why there are none.

        Raises
        ------
        DeliveryError
            If the archive is damaged, or the paths cannot be used.
        """
        return self._images.notices

    @cached_property
    def _images(self) -> FoundImages:
        self._require_folder()
        if self.config.archive is None:
            return FoundImages(None, [])
        return find_images(self.folder, self.config.archive, self.paths)

    def has(self, name: str) -> bool:
        """Whether the file of descriptor `name` is there."""
        path = self.folder / self.files[name]
        return path.is_file() or bool(self._same_name(path))

    def _require_folder(self) -> None:
        if not self.folder.is_dir():
            raise DeliveryError(
                f"there is no delivery at {self.folder}",
                fix="set IV_DELIVERY to its folder, or draw the demo with 'make demo'",
            )

    @cached_property
    def _listed(self) -> PathList:
        self._require_folder()
        named = self.folder / self.config.paths
        found = named if named.is_file() else _in_other_case(named)
        if found is None:
            raise DeliveryError(
                f"there is no file {named}; {_listing(named.parent)}",
                fix="copy it there, or set delivery.paths to where it is",
            )
        return read_path_list(found, "delivery.paths", self.config.archive)

    @cached_property
    def _labels(self) -> PathList | None:
        """Labels that the configuration names, or that lie in the delivery or beside it."""
        within = self.folder / (self.config.labels or LABELS)
        if self.config.labels is not None or within.is_file():
            return self._read_labels(within)
        return self._labels_beside.labels

    @cached_property
    def _label_rows(self) -> _LabelRows:
        """The row of the labels for each image, matched as the names in an archive are."""
        if self._labels is None:
            return _LabelRows([None] * len(self.paths))
        row_of = {path: row for row, path in enumerate(self._labels.paths)}
        entries = Entries(row_of)
        matching, told = match(self.paths, entries)
        found = [entries.find(path, matching) for path in self.paths]
        rows = [None if name is None else row_of[name] for name in found]
        where = str(self._labels.file)
        notices = [Notice(notice.what, where, notice.fix) for notice in told]
        used = set(found)
        strangers = [path for path in row_of if path not in used]
        if strangers:
            what = f"labels {len(strangers):,} images that the delivery lacks, such as {strangers[0]}"
            notices.append(Notice(what, where))
        return _LabelRows(rows, tuple(notices))

    @cached_property
    def _labels_beside(self) -> _Beside:
        """Labels beside the delivery, if they are of its images: the folder around it may hold anything."""
        beside, within = self.folder.parent / LABELS, self.folder / LABELS
        if self.config.labels is not None or within.is_file() or not beside.is_file():
            return _Beside()
        try:
            labels = self._read_labels(beside)
        except DeliveryError as error:
            return _Beside(notices=(self._unused(beside, error.what),))
        if set(labels.paths).isdisjoint(self.paths):
            return _Beside(notices=(self._unused(beside, "it has no image of the delivery"),))
        return _Beside(labels)

    def _unused(self, beside: UPath, why: str) -> Notice:
        return Notice(
            f"lies beside the delivery and is not used: {why}",
            where=str(beside),
            fix=f"if it has the labels of these images, put it into {self.folder}",
        )

    def _read_labels(self, file: UPath) -> PathList:
        rows = read_path_list(file, "delivery.labels", anywhere=True)
        others = {_label_name(name): values for name, values in rows.others.items()}
        if not others:
            raise DeliveryError(
                "has no labels beside its paths", where=file, fix="add a column, such as 'label'"
            )
        if len(others) < len(rows.others):
            raise DeliveryError(
                "has a column with and without 'label_' before its name", where=file, fix="rename one"
            )
        return replace(rows, others=others)

    @cached_property
    def _identities(self) -> list[str | None] | None:
        """Identity of the vehicle in each image; None if paths carry none, or nobody has found out yet."""
        if self.config.identity in (None, AUTO):
            return None
        search = re.compile(str(self.config.identity)).search
        return [found.group(1) if (found := search(path)) else None for path in self.paths]


def _is_descriptor(name: str, stem: str) -> bool:
    return name.lower().endswith(SUFFIXES) and _stem(name) == stem


def _stem(name: str) -> str:
    """Name of a file in lower case, without a suffix that descriptor files have."""
    name = name.lower()
    found = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    return name[: -len(max(found, key=len))] if found else name


def _in_other_case(file: UPath) -> UPath | None:
    """The one file beside where `file` should be that has its name in other letter case; None if there is none."""
    beside = file.parent.iterdir() if file.parent.is_dir() else ()
    found = [path for path in beside if path.name.lower() == file.name.lower()]
    return found[0] if len(found) == 1 else None


def _listing(folder: UPath) -> str:
    """What lies in a folder, in words."""
    if not folder.is_dir():
        return f"there is no folder {folder.name} either"
    names = sorted(entry.name for entry in folder.iterdir() if not is_junk(entry.name))
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"the folder has {', '.join(names[:_LISTED])}{more}" if names else "the folder is empty"


@dataclass(frozen=True)
class _LabelRows:
    """The row of the labels for each image, None where it has none, and how they were matched."""

    rows: Sequence[int | None]
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class _Beside:
    """What `labels.csv` beside a delivery is: its labels, or nothing, and why."""

    labels: PathList | None = None
    notices: tuple[Notice, ...] = ()


def _label_name(name: str) -> str:
    """The column of the index for a column of the labels; never one that the index has itself."""
    return name if name.startswith("label") else f"label_{name}"
