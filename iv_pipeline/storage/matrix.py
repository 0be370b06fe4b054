"""A matrix of vectors as a file holds it, whatever its format: rows, their keys, and what is odd about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import BATCH_ROWS
from iv_pipeline.errors import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

PATH_COLUMNS = ("paths", "path", "image_path")
"""Names of a column of image paths."""
SAVE_AGAIN = "save it again with np.save(file, array), the array of shape (rows, features)"
COPY_AGAIN = "copy it again from where it was made"
_NUMBERS = frozenset(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"))
_KINDS = {
    "O": "Python objects",
    "c": "complex numbers",
    "b": "booleans",
    "U": "text",
    "S": "bytes",
    "M": "dates",
    "m": "durations",
    "V": "records",
}
_INDEX_NAME = re.compile(r"Unnamed: [\d.]+|index|level_\d+|__index_level_\d+__")  # what pandas calls an index
_MIN_ROWS = 10  # fewer integers may be consecutive by chance
_EXPANSION, _SMALL = 100, 2**26  # vectors of floats hardly compress: more is damage, or an attack


class FormatError(Exception):
    """Content of a file that is no matrix of real numbers: what it is, and what to do about it."""

    def __init__(self, what: str, fix: str = SAVE_AGAIN) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


@dataclass(frozen=True)
class Matrix:
    """The matrix that a file holds.

    Attributes
    ----------
    array
        Shape ``(n_rows, n_features)``, of the real dtype and byte order of the file; read-only, and a memory
        map where the file holds the matrix in one piece. It may not be aligned to its item size. Of an
        uncompressed Arrow file, rows that stay in the file until they are asked for.
    keys
        The text that the file gives each row, its image path; None where rows have only their order.
    notices
        What was left out of the file, and other things that people should know.
    """

    array: NDArray[Any] | ChunkedRows
    keys: list[str] | None = None
    notices: tuple[Notice, ...] = ()


class ChunkedRows:
    """Rows of a file that lie there in chunks; each access reads what it asks for, as float32.

    Parameters
    ----------
    lengths
        Number of rows of each chunk.
    n_features
        Of each row.
    read
        Reads rows of a chunk, given its position and a slice or an integer array of its rows.
    columns
        Features to return; None for all.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        lengths: Sequence[int],
        n_features: int,
        read: Callable[[int, slice | NDArray[np.int64]], NDArray[np.float32]],
        columns: NDArray[np.int64] | None = None,
    ) -> None:
        self._ends = np.cumsum(np.asarray(lengths, np.int64))
        self._read, self._columns = read, columns
        self.shape = int(self._ends[-1]), n_features if columns is None else len(columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return self._slice(start, stop)
        wanted = np.asarray(rows, np.int64)
        out = np.empty((len(wanted), self.shape[1]), np.float32)
        chunks = np.searchsorted(self._ends, wanted, side="right")
        for chunk in np.unique(chunks).tolist():
            here = np.flatnonzero(chunks == chunk)
            out[here] = self._rows(chunk, wanted[here] - self._begin(chunk))
        return out

    def without(self, columns: Sequence[int]) -> ChunkedRows:
        """The same rows without some columns."""
        kept = np.arange(self.shape[1]) if self._columns is None else self._columns
        lengths = np.diff(self._ends, prepend=0).tolist()
        return ChunkedRows(lengths, self.shape[1], self._read, np.delete(kept, columns))

    def _slice(self, start: int, stop: int) -> NDArray[np.float32]:
        first, last = np.searchsorted(self._ends, [start, max(stop - 1, start)], side="right")
        parts = []
        for chunk in range(int(first), min(int(last), len(self._ends) - 1) + 1):
            begin, end = self._begin(chunk), int(self._ends[chunk])
            parts.append(self._rows(chunk, slice(max(start - begin, 0), max(min(stop, end) - begin, 0))))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _rows(self, chunk: int, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        values = self._read(chunk, rows)
        return values if self._columns is None else values[:, self._columns]

    def _begin(self, chunk: int) -> int:
        return int(self._ends[chunk - 1]) if chunk else 0


def is_number(dtype: str) -> bool:
    """Whether a dtype such as ``<f4`` is one of real numbers."""
    return dtype.lstrip("<>|=") in _NUMBERS


def require_numbers(dtype: str) -> None:
    """Check that a dtype such as ``<f4`` is one of real numbers.

    Raises
    ------
    FormatError
        If it is not.
    """
    if not is_number(dtype):
        raise FormatError(
            f"holds {_KINDS.get(dtype.lstrip('<>|=')[:1], 'values')} (dtype {dtype!r}), not real numbers"
        )


def check_expansion(n_bytes: int, n_stored: int) -> None:
    """Check that what lies compressed in a file does not take absurdly more memory.

    Raises
    ------
    FormatError
        If it takes more than a hundred times the file, and more than 64 MiB.
    """
    if n_bytes > max(_EXPANSION * n_stored, _SMALL):
        raise FormatError(
            f"takes more than {_EXPANSION} times its size when it is unpacked",
            "save it uncompressed, with np.save(file, array)",
        )


def two_dimensional(array: NDArray[Any]) -> NDArray[Any]:
    """The array without inner axes of length one, if two axes are left.

    Raises
    ------
    FormatError
        If they are not, or there are no numbers.
    """
    if array.ndim > 2:
        longer = [length for length in array.shape[1:] if length != 1]
        if len(longer) == 1:
            array = array.reshape(array.shape[0], longer[0])
    if array.ndim != 2:
        raise FormatError(f"holds an array of shape {array.shape}, not of shape (rows, features)")
    if 0 in array.shape:
        raise FormatError(f"holds no numbers, but an array of shape {array.shape}")
    return array


def finished(
    array: NDArray[Any] | ChunkedRows,
    keys: Sequence[str] | None = None,
    notices: Sequence[Notice] = (),
    names: Sequence[Any] | None = None,
) -> Matrix:
    """The matrix without columns that only count its rows.

    A column does so if it is 0, 1, 2, … or 1, 2, 3, … in all of at least ten rows, whatever its name; or if it
    has a name that pandas gives to an index, as ``Unnamed: 0``, and no integer in it occurs twice. Other
    columns are kept, however they grow.

    Parameters
    ----------
    array
        Shape ``(n_rows, n_features)``.
    keys
        Image path of each row.
    notices
        What is known to be odd already.
    names
        Names of the columns, if they have any.

    Raises
    ------
    FormatError
        If the array has no rows of numbers, or another number of rows than of keys.
    """
    if isinstance(array, np.ndarray):
        array = two_dimensional(array)
    if keys is not None and len(keys) != len(array):
        raise FormatError(f"has {len(keys):,} image paths for {len(array):,} rows", "save the two together")
    counters = _counting_columns(array, names)
    notices = [*notices, *(_counts_rows(i if names is None else names[i]) for i in counters)]
    if counters:
        array = array.without(counters) if isinstance(array, ChunkedRows) else _without(array, counters)
    stripped = None if keys is None else [key.strip() for key in keys]
    return Matrix(array, stripped, tuple(notices))


def _counting_columns(array: NDArray[Any] | ChunkedRows, names: Sequence[Any] | None) -> list[int]:
    """Positions of the columns that only count the rows; none if nothing would be left."""
    head = array[:_MIN_ROWS]  # a memory map is read no further if no column begins like a count
    found = [j for j in range(head.shape[1]) if len(head) == _MIN_ROWS and _counts(head[:, j], 0) is not None]
    counted = [j for j, is_count in zip(found, _count_throughout(array, found), strict=True) if is_count]
    named = [j for j, name in enumerate(names or ()) if _INDEX_NAME.fullmatch(str(name))]
    counters = sorted({*counted, *(j for j in named if _are_distinct_integers(_column(array, j)))})
    return counters if len(counters) < head.shape[1] else []


def _counts(values: NDArray[Any], start: int) -> int | None:
    """First number, 0 or 1, of a count that has `values` from row `start` on; None if they are no such."""
    for first in (0, 1):
        if np.array_equal(values, np.arange(start + first, start + first + len(values)).astype(values.dtype)):
            return first
    return None


def _count_throughout(array: NDArray[Any] | ChunkedRows, columns: list[int]) -> list[bool]:
    seen: list[set[int | None]] = [set() for _ in columns]
    for start in range(0, len(array) if columns else 0, BATCH_ROWS):
        rows = array[start : start + BATCH_ROWS]
        for firsts, j in zip(seen, columns, strict=True):
            firsts.add(_counts(rows[:, j], start))
        if all(None in firsts for firsts in seen):
            break
    return [len(firsts) == 1 and None not in firsts for firsts in seen]


def _column(array: NDArray[Any] | ChunkedRows, j: int) -> NDArray[Any]:
    starts = range(0, len(array), BATCH_ROWS)
    return np.concatenate([array[start : start + BATCH_ROWS][:, j] for start in starts])


def _are_distinct_integers(values: NDArray[Any]) -> bool:
    if not np.isfinite(values).all():
        return False
    return bool(np.all(values == np.floor(values))) and len(np.unique(values)) == len(values)


def _without(array: NDArray[Any], columns: list[int]) -> NDArray[Any]:
    """The other columns; still a memory map if those that go are the first ones."""
    n = len(columns)
    return array[:, n:] if columns == list(range(n)) else np.delete(array, columns, axis=1)


def _counts_rows(name: Any) -> Notice:
    return Notice(f"column {name!r} only counts the rows: it is not used as a feature")


def choose_key(texts: Mapping[Any, Sequence[str]]) -> tuple[Sequence[str] | None, list[Notice]]:
    """The column of image paths among columns of text, and what is said of the others.

    Parameters
    ----------
    texts
        The text of each column, by name.

    Raises
    ------
    FormatError
        If there are several and none has the name of a column of paths, or more than one.
    """
    names = list(texts)
    if len(names) > 1:
        names = [name for name in names if name in PATH_COLUMNS]
        if len(names) != 1:
            listed = ", ".join(map(repr, texts))
            raise FormatError(
                f"has several columns of text ({listed}; the index may be one)",
                "keep one, the image paths, or name it 'paths'",
            )
    if not names:
        return None, []
    return texts[names[0]], ignored([name for name in texts if name != names[0]], f"the paths, {names[0]!r}")


def choose_matrix(widths: Mapping[Any, str]) -> Any:
    """The name of the one matrix that a file holds.

    Parameters
    ----------
    widths
        Shape of each matrix in words, by name.

    Raises
    ------
    FormatError
        If there is none, or more than one.
    """
    if len(widths) != 1:
        listed = ", ".join(f"{name!r} ({shape})" for name, shape in widths.items())
        raise FormatError(
            f"holds several matrices: {listed}" if widths else "holds no matrix of numbers",
            "save the one of this descriptor alone, with np.save(file, array)",
        )
    return next(iter(widths))


def ignored(names: Sequence[Any], beside: str) -> list[Notice]:
    """What is said of columns that are not read."""
    listed = ", ".join(map(repr, names))
    return [Notice(f"not read: {listed}, beside {beside}")] if names else []
