"""Vector tables: one uncompressed Arrow IPC file per stage and descriptor, memory-mapped.

A table has `image_path` and fixed-size-list columns (one a set of vectors), in batches of equal size.
Tables are lazy: a batch is read, or computed from other tables, when somebody asks for it, so that no stage
holds a whole matrix. `pandas.read_feather` and pyarrow read the files as they are.
"""

from __future__ import annotations

import contextlib
import glob
import os
import uuid
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iv_pipeline.engine import BATCH_ROWS, blas_threads, map_batches, map_ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from upath import UPath

IMAGE_PATH = "image_path"


@dataclass(frozen=True)
class VectorTable:
    """A table that is read, or computed, batch by batch.

    Attributes
    ----------
    schema
        Arrow schema; its metadata may hold facts that belong to the vectors.
    n_rows
        Number of rows.
    read
        Takes the index of a batch, returns its `pyarrow.RecordBatch`; safe to call on any thread.
    batch_rows
        Rows of every batch but the last.
    is_portable
        Whether `read` refers to files alone, so that a worker elsewhere can call it.
    """

    schema: pa.Schema
    n_rows: int
    read: Callable[[int], pa.RecordBatch]
    batch_rows: int = BATCH_ROWS
    is_portable: bool = False

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return -(-self.n_rows // self.batch_rows)

    @property
    def vector_columns(self) -> list[str]:
        """Names of the columns that hold vectors."""
        return [field.name for field in self.schema if pa.types.is_fixed_size_list(field.type)]

    def vectors(self, column: str) -> VectorColumn:
        """The vectors of `column`, as a batched matrix.

        Raises
        ------
        KeyError
            If there is no such column of vectors.
        """
        if column not in self.vector_columns:
            raise KeyError(f"no vectors {column!r} in this table, only {', '.join(self.vector_columns)}")
        return VectorColumn(self, column)

    def column(self, name: str) -> pa.Array:
        """All rows of one column; meant for narrow ones."""
        index = self.schema.get_field_index(name)
        chunks = [self.read(i).column(index) for i in range(self.n_batches)]
        return pa.chunked_array(chunks, type=self.schema.field(name).type).combine_chunks()

    def derive(
        self, n_features: Mapping[str, int], compute: Callable[[pa.RecordBatch], Sequence[NDArray[Any]]]
    ) -> VectorTable:
        """A table of the same images whose vectors are computed from this one's, batch by batch.

        Parameters
        ----------
        n_features
            Name of each new column of float32 vectors, and how long they are.
        compute
            Takes a batch of this table, returns the new columns' matrices in the order of `n_features`.
        """
        schema = pa.schema(
            [self.schema.field(IMAGE_PATH), *(pa.field(c, vector_type(n)) for c, n in n_features.items())]
        )

        def read(index: int) -> pa.RecordBatch:
            batch = self.read(index)
            columns = [batch.column(IMAGE_PATH), *map(as_vectors, compute(batch))]
            return pa.RecordBatch.from_arrays(columns, schema=schema)

        return VectorTable(schema, self.n_rows, read, self.batch_rows, self.is_portable)

    def with_metadata(self, metadata: Mapping[bytes, bytes]) -> VectorTable:
        """The same table, whose schema says something about it."""
        return replace(self, schema=self.schema.with_metadata(dict(metadata)))


@dataclass(frozen=True)
class VectorColumn:
    """The vectors of one column as a `iv_pipeline.engine.BatchedMatrix`."""

    table: VectorTable
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_features)``."""
        return self.table.n_rows, self.table.schema.field(self.name).type.list_size

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return self.table.n_batches

    @property
    def is_portable(self) -> bool:
        """Whether a worker elsewhere can read it."""
        return self.table.is_portable

    def batch(self, index: int) -> NDArray[Any]:
        """Rows of batch `index`, a view of the file where the table is stored."""
        return as_matrix(self.table.read(index).column(self.name))

    def to_array(self) -> NDArray[Any]:
        """All rows in anonymous memory, C order; for reduced vectors, not for whole descriptors."""
        dtype = self.table.schema.field(self.name).type.value_type.to_pandas_dtype()
        out = np.empty(self.shape, dtype=dtype)
        for i in range(self.n_batches):
            start = i * self.table.batch_rows
            rows = self.batch(i)
            out[start : start + len(rows)] = rows
        return out

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The vectors of `rows` (sorted, without repetition), shape ``(len(rows), n_features)``."""
        batches = rows // self.table.batch_rows
        parts = [
            self.batch(int(i))[rows[batches == i] - i * self.table.batch_rows] for i in np.unique(batches)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), np.float32)


def vector_type(n_features: int, dtype: type[np.generic] = np.float32) -> pa.DataType:
    """Arrow type of a vector of `n_features` numbers."""
    return pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), n_features)


def as_vectors(matrix: NDArray[Any]) -> pa.FixedSizeListArray:
    """A matrix as an Arrow column of vectors, without a copy if it is C-contiguous."""
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def as_strings(values: Any) -> pa.StringArray:
    """Strings as one Arrow array; pandas may hold them in chunks."""
    array = pa.array(values, pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def as_matrix(column: pa.FixedSizeListArray) -> NDArray[Any]:
    """An Arrow column of vectors as a matrix, without a copy; read-only where it maps a file."""
    flat = column.flatten().to_numpy(zero_copy_only=True)
    matrix: NDArray[Any] = flat.reshape(len(column), column.type.list_size)
    return matrix


def table_from_arrays(
    columns: Mapping[str, Any],
    batch_rows: int = BATCH_ROWS,
    metadata: Mapping[bytes, bytes] | None = None,
) -> VectorTable:
    """A table of whole columns in memory: arrays, 2-D arrays (vectors) or Arrow arrays."""
    arrays = {
        name: as_vectors(values) if isinstance(values, np.ndarray) and values.ndim == 2 else pa.array(values)
        for name, values in columns.items()
    }
    whole = pa.RecordBatch.from_pydict(arrays)
    if metadata:
        whole = whole.replace_schema_metadata(dict(metadata))
    return VectorTable(
        whole.schema, whole.num_rows, lambda i: whole.slice(i * batch_rows, batch_rows), batch_rows
    )


def read_table(path: UPath) -> VectorTable:
    """Open a stored table; local files are memory-mapped, others are read through fsspec.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(str(path))
    stored = _StoredBatches(path)
    if not stored.n_batches:
        return VectorTable(stored.schema, 0, stored, is_portable=True)
    first, last = stored(0).num_rows, stored(stored.n_batches - 1).num_rows
    n_rows = first * (stored.n_batches - 1) + last
    return VectorTable(stored.schema, n_rows, stored, first, is_portable=True)


class _StoredBatches:
    """Reads the batches of a file; a copy sent elsewhere opens the file there."""

    def __init__(self, path: UPath) -> None:
        self._path = path
        reader = pa.ipc.open_file(pa.memory_map(str(path)) if is_local(path) else path.fs.open(path.path))
        self.schema = reader.schema
        self.n_batches = reader.num_record_batches
        self._read = reader.get_batch
        if is_local(path):  # views: opening them all at once costs microseconds, and no lock later
            self._read = [reader.get_batch(i) for i in range(self.n_batches)].__getitem__

    def __call__(self, index: int) -> pa.RecordBatch:
        return self._read(index)

    def __reduce__(self) -> tuple[type[_StoredBatches], tuple[UPath]]:
        return _StoredBatches, (self._path,)


def write_table(table: VectorTable, path: UPath) -> None:
    """Write `table` batch by batch, a few batches computed ahead; the file appears when it is whole."""
    batches = (map_batches if table.is_portable else map_ordered)(table.read, table.n_batches)
    with blas_threads(1), replacing(path) as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def remove(path: UPath) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if not is_local(path):  # there are no folders, only files with long names
        if path.exists():
            path.fs.rm(path.path, recursive=True)
    elif path.is_dir():
        for child in path.iterdir():
            remove(child)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def is_local(path: UPath) -> bool:
    """Whether `path` lies on this machine, so that it can be memory-mapped."""
    return path.protocol in ("", "file", "local")


@contextlib.contextmanager
def replacing(path: UPath) -> Iterator[IO[bytes]]:
    """Open a temporary neighbor of `path` for writing and rename it when the block ends well.

    What was at `path` stays whole until then; when the block fails, the temporary file is removed. A killed
    process leaves a ``.tmp`` file, which the next write of the same path removes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not _is_alive(int(stale.name.split(".")[-3])):
            stale.unlink(missing_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as sink:
            yield sink
        if is_local(path):
            temporary.replace(path)
        else:
            path.fs.mv(temporary.path, path.path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
