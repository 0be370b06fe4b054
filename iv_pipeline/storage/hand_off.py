"""The CSVs that are handed on: written for people and their programs, and read back as they were written."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import pandas as pd

from iv_pipeline.errors import InputError
from iv_pipeline.storage.columns import TEXT
from iv_pipeline.storage.tables import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upath import UPath


def read_csv(path: UPath) -> pd.DataFrame:
    """A hand-off table; columns of text hold the text that was written, empty where there was none.

    Nothing in columns of `iv_pipeline.storage.columns.TEXT` or of an attribute is taken for a number, a date or a
    missing value, whatever it looks like; in other columns an empty field is NaN.

    Raises
    ------
    InputError
        If it is no table, as after another program has written it.
    """
    try:
        with path.open("rb") as source:
            names = pd.read_csv(source, nrows=0).columns
        text = {*TEXT.intersection(names), *_attributes(names)}
        with path.open("rb") as source:
            return pd.read_csv(
                source,
                dtype=dict.fromkeys(text, "str"),
                keep_default_na=False,
                na_values={name: [""] for name in names if name not in text},
                low_memory=False,  # one type a column, however long it is
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read ({error})", where=path, fix="remove it, and materialize its stage again"
        ) from None


def attributes_in(path: UPath) -> list[str]:
    """Attributes that a hand-off table has columns of.

    Raises
    ------
    InputError
        If it is not there.
    """
    if not path.exists():
        raise InputError("is not there", where=path, fix="materialize 'attributes'")
    with path.open("rb") as source:
        return _attributes(pd.read_csv(source, nrows=0).columns)


def _attributes(columns: Iterable[str]) -> list[str]:
    names = list(columns)
    return [name for name in names if f"{name}_confidence" in names]


def write_csv(frame: pd.DataFrame, path: UPath) -> None:
    """Write a hand-off table: UTF-8, comma, six significant digits."""
    with replacing(path) as sink:
        write_rows(frame, sink)


def write_rows(frame: pd.DataFrame, sink: IO[bytes]) -> None:
    """Write a hand-off table into an open file."""
    frame.to_csv(sink, index=False, float_format="%.6g", lineterminator="\n", encoding="utf-8")
