"""Matrices from Parquet and from Arrow files, which Feather is: columns of numbers, or one of vectors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iv_pipeline.storage.matrix import (
    COPY_AGAIN,
    ChunkedRows,
    FormatError,
    Matrix,
    check_expansion,
    choose_key,
    choose_matrix,
    finished,
    ignored,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

_BATCH_ROWS = 8192
_FAILURES = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError)


def read_parquet(data: NDArray[np.uint8]) -> Matrix:
    """Read the matrix in a Parquet file into memory as float32, batch by batch.

    Parameters
    ----------
    data
        All bytes of the file, shape ``(n_bytes,)``; may be a memory map.

    Raises
    ------
    FormatError
        If the file is damaged, or it is not clear which of its columns are the matrix.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data)))
        n_rows = file.metadata.num_rows
        return _loaded(file.schema_arrow, lambda: file.iter_batches(_BATCH_ROWS), n_rows, len(data))
    except _FAILURES as error:
        raise _damaged() from error


def read_arrow(data: NDArray[np.uint8]) -> Matrix:
    """Read the matrix in an Arrow file; uncompressed, its rows stay in the file until they are asked for.

    Parameters
    ----------
    data
        All bytes of the file, shape ``(n_bytes,)``; may be a memory map.

    Returns
    -------
    Matrix
        Compressed, as Feather files are by default, it is in memory as float32.

    Raises
    ------
    FormatError
        If the file is damaged, or it is not clear which of its columns are the matrix.
    """
    try:
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(data)))
        before = pa.total_allocated_bytes()
        first = reader.get_batch(0) if reader.num_record_batches else None
        is_compressed = first is not None and pa.total_allocated_bytes() > before
        numbers = range(reader.num_record_batches)
        if is_compressed:
            n_rows = sum(reader.get_batch(i).num_rows for i in numbers)
            return _loaded(reader.schema, lambda: map(reader.get_batch, numbers), n_rows, len(data))
        return _mapped(reader.schema, [reader.get_batch(i) for i in numbers])
    except _FAILURES as error:
        raise _damaged() from error


def read_arrow_stream(data: NDArray[np.uint8]) -> Matrix:
    """Read the matrix in a stream of Arrow batches; its rows stay in the file as those of an Arrow file do.

    Raises
    ------
    FormatError
        If the stream is damaged, or it is not clear which of its columns are the matrix.
    """
    try:
        reader = pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(data)))
        return _mapped(reader.schema, list(reader))
    except _FAILURES as error:
        raise _damaged() from error


def _damaged() -> FormatError:
    """Arrow's own words name its classes and the machine's addresses: they stay with the cause of the error."""
    return FormatError("is damaged, or written in a way that pyarrow does not read", COPY_AGAIN)


class _Layout:
    """What the columns of a table are for: `features`, or one column of vectors, and columns of text."""

    def __init__(self, schema: pa.Schema) -> None:
        _require_distinct(schema.names)
        indexes = _pandas_indexes(schema)
        self.texts = [field.name for field in schema if _is_text(field.type)]
        vectors = [field.name for field in schema if _is_vector(field.type)]
        numeric = [f.name for f in schema if _is_number(f.type) and f.name not in indexes]
        known = {*self.texts, *vectors, *numeric, *indexes}
        others = {field.name: field.type for field in schema if field.name not in known}
        self.vector = choose_matrix(dict.fromkeys(vectors, "vectors")) if vectors else None
        self.features = [] if vectors else numeric
        self.notices = ignored([*numeric, *others], f"the vectors, {self.vector!r}") if vectors else []
        if others and not vectors:
            name, kind = next(iter(others.items()))
            raise FormatError(
                f"has a column {name!r} that holds {kind}, not real numbers",
                "leave it out, or convert it to numbers",
            )
        if self.vector is None and not self.features:
            raise FormatError("has no columns of numbers", "save the vectors with the paths")

    @property
    def columns(self) -> list[str]:
        return [self.vector] if self.vector is not None else self.features

    def values(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Vectors of a batch, shape ``(n_rows, n_features)``; missing values are NaN."""
        if self.vector is not None:
            return _vectors(batch.column(self.vector), self.vector)
        out = np.empty((batch.num_rows, len(self.features)), np.float32)
        for j, name in enumerate(self.features):
            out[:, j] = _float32(batch.column(name))
        return out


def _loaded(
    schema: pa.Schema, batches: Callable[[], Iterable[pa.RecordBatch]], n_rows: int, n_stored: int
) -> Matrix:
    """The matrix in memory; `n_stored` is what the file takes."""
    layout = _Layout(schema)
    check_expansion(4 * n_rows * len(layout.columns), n_stored)
    texts: dict[str, list[str]] = {name: [] for name in layout.texts}
    out: NDArray[np.float32] | None = None
    start = 0
    for batch in _validated(batches()):
        values = layout.values(batch)
        if out is None:
            check_expansion(4 * n_rows * values.shape[1], n_stored)
            out = np.empty((n_rows, values.shape[1]), np.float32)
        _require_width(values, out.shape[1], start)
        out[start : start + len(values)] = values
        start += len(values)
        _extend(texts, batch)
    if out is None or start != n_rows:
        raise FormatError("holds no rows" if out is None else "ends in the middle of its data", COPY_AGAIN)
    return _matrix(layout, out, texts)


def _mapped(schema: pa.Schema, batches: list[pa.RecordBatch]) -> Matrix:
    """The matrix where it lies in the file."""
    layout = _Layout(schema)
    batches = [batch for batch in _validated(batches) if batch.num_rows]
    if not batches:
        raise FormatError("holds no rows")
    texts: dict[str, list[str]] = {name: [] for name in layout.texts}
    n_features, start = layout.values(batches[0].slice(0, 1)).shape[1], 0
    for batch in batches:
        if layout.vector is not None:
            _require_one_width(batch.column(layout.vector), n_features, start)
        start += batch.num_rows
        _extend(texts, batch)
    narrow = [batch.select(layout.columns) for batch in batches]

    def read(chunk: int, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        if isinstance(rows, slice):
            return layout.values(narrow[chunk].slice(rows.start, rows.stop - rows.start))
        return layout.values(narrow[chunk].take(pa.array(rows)))

    return _matrix(layout, ChunkedRows([batch.num_rows for batch in narrow], n_features, read), texts)


def _matrix(layout: _Layout, array: NDArray[Any] | ChunkedRows, texts: dict[str, list[str]]) -> Matrix:
    keys, notices = choose_key(texts)
    names = None if layout.vector is not None else layout.features
    return finished(array, keys, [*layout.notices, *notices], names)


def _validated(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _extend(texts: dict[str, list[str]], batch: pa.RecordBatch) -> None:
    for name, entries in texts.items():
        column = batch.column(name)
        if column.null_count:
            raise FormatError(f"lacks an entry in column {name!r}", "give every row its image path")
        entries.extend(column.to_pylist())


def _vectors(column: pa.Array, name: str) -> NDArray[np.float32]:
    """A column of vectors; one that is missing is NaN, as an image that could not be read."""
    lengths = pc.unique(pc.list_value_length(column)).drop_null().to_pylist()
    if len(lengths) > 1:
        raise FormatError(
            f"is ragged: column {name!r} has vectors of {lengths[0]:,} and {lengths[1]:,} numbers"
        )
    width = lengths[0] if lengths else getattr(column.type, "list_size", 0)
    out = np.full((len(column), width), np.nan, np.float32)
    flat = _float32(pc.list_flatten(column))
    out[column.is_valid().to_numpy(zero_copy_only=False)] = flat.reshape(-1, width) if width else 0
    return out


def _require_one_width(column: pa.Array, n_features: int, start: int) -> None:
    lengths = pc.list_value_length(column).fill_null(n_features).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != n_features)
    if len(wrong):
        row = start + int(wrong[0])
        raise FormatError(
            f"is ragged: row {row:,} (counted from 0) has {lengths[wrong[0]]:,} numbers, the first {n_features:,}"
        )


def _require_width(values: NDArray[np.float32], n_features: int, start: int) -> None:
    if values.shape[1] != n_features:
        raise FormatError(
            f"is ragged: rows from {start:,} (counted from 0) have {values.shape[1]:,} numbers, "
            f"the first {n_features:,}"
        )


def _float32(column: pa.Array) -> NDArray[np.float32]:
    values = column.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what is too large is infinite, and its row reported
        return np.asarray(values, np.float32)


def _require_distinct(names: list[str]) -> None:
    repeated = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    if repeated:
        raise FormatError(f"has two columns {repeated[0]!r}", "rename one of them")


def _pandas_indexes(schema: pa.Schema) -> set[str]:
    """Columns that were the index of a DataFrame, but for those of text, which may be paths."""
    stored = (schema.metadata or {}).get(b"pandas")
    described = json.loads(stored) if stored else {}
    named = described.get("index_columns", []) if isinstance(described, dict) else []
    names = {name for name in named if isinstance(name, str)} & set(schema.names)
    return {name for name in names if not _is_text(schema.field(name).type)}


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_vector(kind: pa.DataType) -> bool:
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list) and _is_number(kind.value_type)
