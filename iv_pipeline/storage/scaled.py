"""Scaled tables: vectors, or the scalers alone and vectors that are computed while they are read."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iv_pipeline.scaler import Scaler
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, as_matrix, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from upath import UPath

SCALERS_KEY = b"iv_pipeline.scalers"
SOURCE_KEY = b"iv_pipeline.source"


def scaled_table(source: VectorTable, column: str, scalers: Mapping[str, Scaler]) -> VectorTable:
    """The vectors of `column`, once for each scaler, computed batch by batch."""
    n_features = source.vectors(column).shape[1]
    return source.derive(
        dict.fromkeys(scalers, n_features),
        lambda batch: [s.transform(as_matrix(batch.column(column))) for s in scalers.values()],
    )


def parameters_table(
    table: VectorTable, source: str, column: str, scalers: Mapping[str, Scaler]
) -> VectorTable:
    """Image paths alone, with what `read_scaled` needs to compute the vectors of `table` again.

    Parameters
    ----------
    table
        As made by `scaled_table`.
    source
        Path of the table that was scaled, relative to the folder of this one.
    column
        Its column.
    scalers
        By the name of the column that they make.
    """
    parameters = {
        name: {"center": _encode(s.center), "scale": _encode(s.scale)} for name, s in scalers.items()
    }
    metadata = {
        SCALERS_KEY: json.dumps(parameters).encode(),
        SOURCE_KEY: json.dumps({"path": source, "column": column}).encode(),
    }
    schema = pa.schema([table.schema.field(IMAGE_PATH)], metadata)

    def read(index: int) -> pa.RecordBatch:
        start = index * table.batch_rows
        return pa.RecordBatch.from_arrays([paths.slice(start, table.batch_rows)], schema=schema)

    paths = table.column(IMAGE_PATH) if table.n_rows else pa.array([], pa.string())
    return VectorTable(schema, table.n_rows, read, table.batch_rows)


def read_scaled(path: UPath) -> VectorTable:
    """Open a table; one that holds scalers alone reads like one that holds their vectors."""
    table = read_table(path)
    metadata = table.schema.metadata or {}
    if SCALERS_KEY not in metadata:
        return table
    where = json.loads(metadata[SOURCE_KEY])
    parameters = json.loads(metadata[SCALERS_KEY])
    scalers = {n: Scaler(_decode(p["center"]), _decode(p["scale"])) for n, p in parameters.items()}
    return scaled_table(read_table(path.parent / where["path"]), where["column"], scalers)


def _encode(values: NDArray[np.float64]) -> str:
    return base64.b64encode(values.astype("<f8").tobytes()).decode()


def _decode(text: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), "<f8")
