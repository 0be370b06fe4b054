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
from iv_pipeline.storage.matching import normalised
from iv_pipeline.storage.path_lists import PathList, read_path_list
from iv_pipeline.storage.pickles import open_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from upath import UPath

    from iv_pipeline.config import DeliveryConfig
    from iv_pipeline.storage.image_store import ImageStore

LABELS = "labels.csv"
"""Name of the true labels, in a delivery or beside it."""


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
            If the paths or the labels cannot be used.
        """
        notices = [*self._listed.notices, *self._labels_beside.notices]
        if self._labels is not None:
            notices += self._labels.notices
            known = set(self.paths)
            strangers = [path for path in self._labels.paths if path not in known]
            if strangers:
                notices.append(
                    Notice(
                        f"labels {len(strangers):,} images that the delivery lacks, such as {strangers[0]}",
                        where=str(self._labels.file),
                    )
                )
        if self._identities is not None:
            without = self._identities.count(None)
            if without:
                notices.append(Notice(f"{without:,} of {len(self.paths):,} paths have no vehicle identity"))
        return notices

    def matrix(self, name: str) -> NDArray[Any]:
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
        if name not in self.files:
            raise ConfigError(f"there is no descriptor {name!r}; the delivery has {', '.join(self.files)}")
        self._require_folder()
        path = self.folder / self.files[name]
        if not path.is_file():
            raise DeliveryError(
                f"there is no file {path}: copy it there, or set descriptors.{name} to where it is, "
                "relative to the delivery"
            )
        matrix = open_matrix(path)
        if len(matrix.array) != len(self.paths):
            raise DeliveryError(
                f"{path} has {len(matrix.array):,} rows, but {self.folder / self.config.paths} has "
                f"{len(self.paths):,} paths: deliver the two that were made together"
            )
        return matrix.array if matrix.keys is None else self._in_order(path, matrix.array, matrix.keys)

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
        return (self.folder / self.files[name]).is_file()

    def _require_folder(self) -> None:
        if not self.folder.is_dir():
            raise DeliveryError(
                f"there is no delivery at {self.folder}",
                fix="set IV_DELIVERY to its folder, or draw the demo with 'make demo'",
            )

    @cached_property
    def _listed(self) -> PathList:
        self._require_folder()
        return read_path_list(self.folder / self.config.paths, "delivery.paths", self.config.archive)

    @cached_property
    def _labels(self) -> PathList | None:
        """Labels that the configuration names, or that lie in the delivery or beside it."""
        within = self.folder / (self.config.labels or LABELS)
        if self.config.labels is not None or within.is_file():
            return self._read_labels(within)
        return self._labels_beside.labels

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
        rows = read_path_list(file, "delivery.labels", self.config.archive)
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

    def _in_order(self, path: UPath, array: NDArray[Any], keys: Sequence[str]) -> NDArray[Any]:
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


@dataclass(frozen=True)
class _Beside:
    """What `labels.csv` beside a delivery is: its labels, or nothing, and why."""

    labels: PathList | None = None
    notices: tuple[Notice, ...] = ()


def _label_name(name: str) -> str:
    """The column of the index for a column of the labels; never one that the index has itself."""
    return name if name.startswith("label") else f"label_{name}"
