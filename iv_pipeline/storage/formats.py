"""How a value is written to a file and read again, by the file's suffix."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from iv_pipeline.errors import InputError
from iv_pipeline.storage.batches import read_labelled, write_labelled
from iv_pipeline.storage.hand_off import read_csv, write_csv
from iv_pipeline.storage.models import read_model, write_model
from iv_pipeline.storage.scaled import read_scaled
from iv_pipeline.storage.tables import replacing, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from upath import UPath


@dataclass(frozen=True)
class Format:
    """Reads and writes one kind of file; a write replaces the file only when it is whole."""

    read: Callable[[UPath], Any]
    write: Callable[[Any, UPath], None]


def read_parquet(path: UPath) -> pd.DataFrame:
    """A small table.

    Raises
    ------
    InputError
        If it is damaged.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        return pd.read_parquet(content)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"is damaged ({error})", where=path, fix="remove it, and materialize its stage again"
        ) from None


def write_parquet(frame: pd.DataFrame, path: UPath) -> None:
    """Write a small table."""
    with replacing(path) as sink:
        frame.to_parquet(sink, index=False)


def read_arrays(path: UPath) -> dict[str, np.ndarray[Any, Any]]:
    """Named arrays; nothing in the file is executed."""
    with path.open("rb") as source, np.load(source, allow_pickle=False) as stored:
        return dict(stored)


def write_arrays(arrays: Mapping[str, np.ndarray[Any, Any]], path: UPath) -> None:
    """Write named arrays."""
    with replacing(path) as sink:
        np.savez(sink, allow_pickle=False, **arrays)


def arrays_to_bytes(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Named arrays as the bytes of an ``npz`` file, to be kept in a table's metadata."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def arrays_from_bytes(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The inverse of `arrays_to_bytes`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)


def read_text(path: UPath) -> str:
    """A text, such as a web page."""
    return path.read_text(encoding="utf-8")


def write_text(text: str, path: UPath) -> None:
    """Write a text."""
    with replacing(path) as sink:
        sink.write(text.encode("utf-8"))


def read_json(path: UPath) -> Any:
    """Facts."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(facts: Mapping[str, Any], path: UPath) -> None:
    """Write facts, for people to read as well."""
    write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", path)


def format_of(path: UPath) -> Format:
    """How the file is read and written: by its name, if that has a format of its own, or by its suffix."""
    return BY_NAME.get(path.name) or FORMATS[path.suffix]


FORMATS: dict[str, Format] = {
    ".arrow": Format(read_scaled, write_table),
    ".parquet": Format(read_parquet, write_parquet),
    ".csv": Format(read_csv, write_csv),
    ".npz": Format(read_arrays, write_arrays),
    ".html": Format(read_text, write_text),
    ".json": Format(read_json, write_json),
}
BY_NAME: dict[str, Format] = {
    "model.json": Format(read_model, write_model),
    "batch.json": Format(read_labelled, write_labelled),
}
