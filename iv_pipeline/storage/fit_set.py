"""The fit set: the images that clusters are learnt from, those of the delivery and of batches that have joined.

It only grows at its end: the delivery's images come first, in their order, then those of each batch, in the order
in which they joined. Images that it has already are left out, whatever else they were known from when they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from iv_pipeline.engine import BATCH_ROWS
from iv_pipeline.errors import DeliveryError, Notice
from iv_pipeline.storage.batches import CONTENT, DUPLICATE_OF, StoredBatch
from iv_pipeline.storage.tables import IMAGE_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from iv_pipeline.storage.delivery import Delivery
    from iv_pipeline.storage.image_store import ImageStore
    from iv_pipeline.storage.matrix import ChunkedRows
    from iv_pipeline.storage.tables import VectorColumn


@dataclass(frozen=True)
class FitSet:
    """The delivery, and the batches that have joined it.

    Attributes
    ----------
    delivery
        What the first fit was made of.
    batches
        In the order in which they joined.
    """

    delivery: Delivery
    batches: Sequence[StoredBatch] = ()

    @cached_property
    def paths(self) -> list[str]:
        """Path of every image, in the order of the fit set.

        Raises
        ------
        DeliveryError
            If the paths cannot be used.
        """
        paths = list(self.delivery.paths)
        for batch, rows in zip(self.batches, self._rows, strict=True):
            paths += batch.index[IMAGE_PATH][rows].to_list()
        return paths

    @cached_property
    def _rows(self) -> list[NDArray[np.bool_]]:
        """Which images of each batch join: those that are in nothing before it, by their path or another."""
        return self._rows_of(self.batches)

    def _rows_of(self, batches: Sequence[StoredBatch]) -> list[NDArray[np.bool_]]:
        known = set(self.delivery.paths)
        return [_join(known, batch) for batch in batches]

    def with_new_images(self, batches: Sequence[StoredBatch]) -> list[StoredBatch]:
        """Those of some batches that have images which neither this fit set nor one before them has."""
        rows = self._rows_of([*self.batches, *batches])[len(self.batches) :]
        return [batch for batch, join in zip(batches, rows, strict=True) if join.any()]

    def image_index(self) -> pd.DataFrame:
        """One row an image, as `iv_pipeline.storage.delivery.Delivery.image_index` says, and `content`.

        Raises
        ------
        DeliveryError
            If the paths, the labels or the archive cannot be used.
        """
        first = with_content(self.delivery.image_index(), self.delivery.archive())
        if not self.batches:
            return first
        pairs = zip(self.batches, self._rows, strict=True)
        parts = [batch.index[rows].drop(columns=DUPLICATE_OF) for batch, rows in pairs]
        index = pd.concat([first, *parts], ignore_index=True)
        return index.assign(image_id=np.arange(len(index), dtype=np.int64))

    def notices(self, descriptors: Iterable[str] | None = None) -> list[Notice]:
        """What is odd about the delivery and yet no error."""
        return self.delivery.notices(descriptors)

    def vectors(self, descriptor: str) -> FitVectors:
        """Raw vectors of a descriptor, in the order of the fit set.

        Raises
        ------
        ConfigError
            If there is no such descriptor.
        DeliveryError
            If its file cannot be used, or a batch has vectors of another length.
        """
        matrix = self.delivery.matrix(descriptor)
        parts: list[_Rows] = [_Matrix(matrix)]
        for batch, rows in zip(self.batches, self._rows, strict=True):
            if descriptor not in batch.descriptors:
                raise DeliveryError(
                    f"has joined the fit without {descriptor}",
                    where=f"batch {batch.name}",
                    fix="name it under refit.exclude, and deliver its images again under another name with all "
                    "descriptors",
                )
            column = batch.vectors(descriptor)
            if column.shape[1] != matrix.shape[1]:
                raise DeliveryError(
                    f"has {column.shape[1]:,} features of {descriptor}, and the delivery that it joins "
                    f"{matrix.shape[1]:,}",
                    where=f"batch {batch.name}",
                    fix="deliver the descriptor of the same network",
                )
            parts.append(_Chosen(column, np.flatnonzero(rows)))
        return FitVectors(parts, matrix.shape[1], matrix)

    def joined(self, descriptor: str, last: int) -> FitVectors:
        """Raw vectors of a descriptor of the `last` batches alone."""
        start = len(self.batches) - last
        columns = [batch.vectors(descriptor) for batch in self.batches[start:]]
        parts = [
            _Chosen(c, np.flatnonzero(rows)) for c, rows in zip(columns, self._rows[start:], strict=True)
        ]
        return FitVectors(parts, columns[0].shape[1])

    def archive(self) -> ImageStore | None:
        """The images of delivery and batches; None if there are none."""
        opened = [self.delivery.archive(), *(batch.archive() for batch in self.batches)]
        archives = [archive for archive in opened if archive is not None]
        if not archives:
            return None
        archives[0].others = tuple(archives[1:])
        return archives[0]

    def archive_notices(self) -> list[Notice]:
        """Where the delivery's images were found and how, or why there are none."""
        return self.delivery.archive_notices()


def _join(known: set[str], batch: StoredBatch) -> NDArray[np.bool_]:
    """Which images of a batch join what is `known` by path, shape ``(n_images,)``; they are known from then on.

    An image that was found to be the same as another joins if the other has not: it may be of a batch that cannot.
    """
    paths = batch.index[IMAGE_PATH]
    one_of = batch.index[DUPLICATE_OF].fillna(paths)
    # the set may be a hundred times as large as the batch: asked, it need not be copied
    is_new = [path not in known and same not in known for path, same in zip(paths, one_of, strict=True)]
    join: NDArray[np.bool_] = np.array(is_new, bool) & ~one_of.duplicated().to_numpy(bool)
    known.update(paths)
    known.update(one_of)
    return join


def rows_of(column: VectorColumn, rows: NDArray[np.bool_]) -> FitVectors:
    """Some rows of a stored column."""
    return FitVectors([_Chosen(column, np.flatnonzero(rows))], column.shape[1])


def with_content(index: pd.DataFrame, archive: ImageStore | None) -> pd.DataFrame:
    """An image index with the column `content`, missing where there is no image."""
    content = [None if archive is None else archive.content_of(path) for path in index[IMAGE_PATH]]
    return index.assign(**{CONTENT: pd.Series(content, dtype="str")})


class FitVectors:
    """Vectors of several parts one behind the other, as a `iv_pipeline.engine.BatchedMatrix`.

    Parameters
    ----------
    parts
        In their order.
    n_features
        Of each.
    stored
        The delivery's own matrix, as it was opened, if there is one.
    """

    def __init__(
        self, parts: Sequence[_Rows], n_features: int, stored: NDArray[Any] | ChunkedRows | None = None
    ) -> None:
        self._parts, self.stored = parts, stored
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = int(self._ends[-1]), n_features

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return -(-self.shape[0] // BATCH_ROWS)

    def batch(self, index: int) -> NDArray[np.float32]:
        """Rows of batch `index` as float32; values too large for float32 become infinite."""
        start, stop = index * BATCH_ROWS, min((index + 1) * BATCH_ROWS, self.shape[0])
        rows = [
            part.slice(max(start - before, 0), min(stop - before, len(part)))
            for part, before in self._overlapping(start, stop)
        ]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """The vectors of `rows`, ascending, shape ``(len(rows), n_features)``, float32."""
        parts = [
            part.take(rows[(rows >= before) & (rows < before + len(part))] - before)
            for part, before in self._overlapping(0, self.shape[0])
        ]
        return np.concatenate(parts)

    def _overlapping(self, start: int, stop: int) -> list[tuple[_Rows, int]]:
        """Parts that have any of the rows from `start` to `stop`, and how many rows are before each."""
        begins = [int(end) - len(part) for part, end in zip(self._parts, self._ends, strict=True)]
        return [
            (part, before)
            for part, before in zip(self._parts, begins, strict=True)
            if before < stop and before + len(part) > start
        ]


class _Rows(Protocol):
    """Rows of one part, as float32."""

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int) -> NDArray[np.float32]: ...

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class _Matrix:
    """A whole array, which may be a memory map."""

    array: NDArray[Any] | ChunkedRows

    def __len__(self) -> int:
        return len(self.array)

    def slice(self, start: int, stop: int) -> NDArray[np.float32]:
        return _float32(self.array[start:stop])

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        return _float32(self.array[rows])


@dataclass(frozen=True)
class _Chosen:
    """Some rows of a stored table, ascending."""

    column: VectorColumn
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> NDArray[np.float32]:
        return self.take(np.arange(start, stop))

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        return _float32(self.column.take(self.rows[rows]))


def _float32(rows: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.asarray(rows, dtype=np.float32)
