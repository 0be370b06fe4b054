"""DataFrames in pickles: columns of numbers, of text, or of vectors, whatever version of pandas wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.storage.matrix import FormatError, Matrix, choose_key, choose_matrix, finished, ignored
from iv_pipeline.storage.pickle_machine import Call
from iv_pipeline.storage.pickled_arrays import array_of, object_items, raw_bytes, stack, text_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ARROW_OFFSETS = {"string": "<i4", "large_string": "<i8"}
_INDEX = "the index"


def read_frame(frame: Call, data: NDArray[np.uint8]) -> Matrix:
    """The numeric columns of a DataFrame or its column of vectors, and its text index or text column.

    Raises
    ------
    FormatError
        If the frame is damaged, or it is not clear what of it is the matrix.
    """
    blocks, columns, index = _managed(frame)
    table = _Columns(_names(columns, data))
    for block in blocks:
        values, positions = _block(block, data)
        _add_block(table, values, positions, data)
    return table.matrix(_index_text(index, data))


def read_object_table(shape: tuple[int, ...], items: list[Any], data: NDArray[np.uint8]) -> Matrix:
    """An array of Python objects, shape ``(n_rows, n_columns)``: numbers, of which one column may be text.

    Raises
    ------
    FormatError
        If a column holds something else.
    """
    table = _Columns(None)
    for j in range(shape[1]):
        _add_objects(table, items[j :: shape[1]], j, data)
    return table.matrix(None)


@dataclass
class _Columns:
    """Columns of a frame by what they hold; `names` are None where columns have only their positions."""

    names: list[Any] | None

    def __post_init__(self) -> None:
        self.numeric: list[tuple[Sequence[int], NDArray[Any]]] = []
        self.texts: dict[Any, Sequence[str]] = {}
        self.vectors: dict[Any, NDArray[Any]] = {}
        self.others: dict[Any, FormatError] = {}

    def name(self, position: int) -> Any:
        return self.names[position] if self.names and position < len(self.names) else position

    def matrix(self, index: list[str] | None) -> Matrix:
        texts = self.texts if index is None else {_INDEX: index, **self.texts}
        keys, notices = choose_key(texts)
        if self.vectors:
            name = choose_matrix({n: "{:,} × {:,}".format(*v.shape) for n, v in self.vectors.items()})
            beside = [self.name(i) for positions, _ in self.numeric for i in positions]
            notices += ignored([*beside, *self.others], f"the vectors, {name!r}")
            return finished(self.vectors[name], keys, notices)
        for name, error in self.others.items():
            raise FormatError(
                f"has a column {name!r} that {error.what}", "leave it out, or convert it to numbers"
            )
        positions = sorted(i for positions, _ in self.numeric for i in positions)
        return finished(_side_by_side(self.numeric), keys, notices, [self.name(i) for i in positions])


def _managed(frame: Call) -> tuple[Sequence[Any], Any, Any]:
    """Blocks, columns and index of a DataFrame."""
    match frame.state:
        case {"_mgr": Call("pandas.BlockManager", (tuple(blocks), [columns, index]))}:
            return blocks, columns, index
        case (
            {"_mgr": Call("pandas.BlockManager", _, (_, _, _, {"0.14.1": state}))}
            | {"_data": Call("pandas.BlockManager", _, (_, _, _, {"0.14.1": state}))}
            | Call("pandas.BlockManager", _, (_, _, _, {"0.14.1": state}))
        ):  # up to pandas 1.2
            pass
        case _:
            raise FormatError("holds a DataFrame that this version cannot read")
    match state:
        case {"axes": [columns, index], "blocks": [*parts]} if all(
            isinstance(part, dict) and {"values", "mgr_locs"} <= part.keys() for part in parts
        ):
            made = [Call("pandas._unpickle_block", (part["values"], part["mgr_locs"], 2)) for part in parts]
            return made, columns, index
    raise FormatError("is damaged: its DataFrame has no columns")


def _names(columns: Any, data: NDArray[np.uint8]) -> list[Any] | None:
    """Names of the columns, as far as they are known: text, or text and numbers."""
    match columns:
        case Call("pandas._new_Index", (_, {"data": values})) if (found := object_items(values)) is not None:
            return found[1]
    return _index_text(columns, data)


def _add_block(table: _Columns, values: Any, positions: Sequence[int], data: NDArray[np.uint8]) -> None:
    found = object_items(_backing(values))
    if found is not None and len(found[0]) == 2 and found[0][0] == len(positions):
        n_rows = found[0][1]
        for i, position in enumerate(positions):
            _add_objects(table, found[1][i * n_rows : (i + 1) * n_rows], position, data)
    elif (text := _text(values, data)) is not None:
        table.texts.update({table.name(position): text for position in positions})
    else:
        _add_numbers(table, values, positions, data)


def _add_numbers(table: _Columns, values: Any, positions: Sequence[int], data: NDArray[np.uint8]) -> None:
    try:
        array = array_of(values, data)
    except FormatError as error:
        table.others.update({table.name(position): error for position in positions})
        return
    if array.ndim != 2 or len(array) != len(positions):
        raise FormatError("is damaged: a block of its DataFrame has the wrong shape")
    table.numeric.append((positions, array))


def _add_objects(table: _Columns, items: list[Any], position: int, data: NDArray[np.uint8]) -> None:
    """A column of Python objects: text, numbers, or vectors."""
    name = table.name(position)
    if (text := text_items(items, data)) is not None:
        table.texts[name] = text
    elif any(isinstance(item, str) for item in items):
        if all(isinstance(item, str) or item is None or isinstance(item, float) for item in items):
            raise FormatError(f"lacks an entry in column {name!r}", "give every row its image path")
        table.others[name] = FormatError("holds Python objects, not real numbers")
    else:
        try:
            if items and isinstance(items[0], Call | list | tuple) and not _is_scalar(items[0]):
                table.vectors[name] = stack(items, data)
            else:
                table.numeric.append(([position], stack([items], data)))
        except FormatError as error:
            table.others[name] = error


def _is_scalar(item: Any) -> bool:
    return isinstance(item, Call) and item.name == "numpy.scalar"


def _backing(values: Any) -> Any:
    """The array behind an extension array of text."""
    match values:
        case Call("pandas.__pyx_unpickle_NDArrayBacked", _, (_, Call() as array, *_)):
            return array
    return values


def _block(block: Any, data: NDArray[np.uint8]) -> tuple[Any, Sequence[int]]:
    """The values of a block of columns, and the columns' positions."""
    match block:
        case Call("pandas._unpickle_block", (values, Call("builtins.slice", (*bounds,)), _)):
            if len(bounds) == 3 and all(type(x) is int and abs(x) < 2**31 for x in bounds) and bounds[2]:
                return values, range(*bounds)
        case Call("pandas._unpickle_block", (values, Call() as positions, _)):
            array = array_of(positions, data)
            if array.dtype.kind == "i":
                return values, array.reshape(-1).tolist()
    raise FormatError("is damaged: a block of its DataFrame has no columns")


def _side_by_side(blocks: list[tuple[Sequence[int], NDArray[Any]]]) -> NDArray[Any]:
    """Blocks of columns in the order of their positions, shape ``(n_rows, n_columns)``."""
    if not blocks:
        raise FormatError("holds a DataFrame without columns of numbers")
    if len(blocks) == 1 and all(i < j for i, j in pairwise(blocks[0][0])):
        return blocks[0][1].T
    if len({array.shape[1] for _, array in blocks}) > 1:
        raise FormatError("is damaged: the columns of its DataFrame differ in length")
    order = np.argsort(np.concatenate([positions for positions, _ in blocks]), kind="stable")
    place = np.argsort(order)
    out = np.empty((blocks[0][1].shape[1], len(order)), np.result_type(*(array for _, array in blocks)))
    start = 0
    for _, array in blocks:
        out[:, place[start : start + len(array)]] = array.T
        start += len(array)
    return out


# Text


def _index_text(index: Any, data: NDArray[np.uint8]) -> list[str] | None:
    """The labels of an index of text; None for any other index."""
    match index:
        case Call("pandas._new_Index", (_, {"data": values})):
            return _text(values, data)
    return None


def _text(values: Any, data: NDArray[np.uint8]) -> list[str] | None:
    """The entries of a column of text; None if it holds something else."""
    match values:
        case Call("pandas.ArrowStringArray", _, {"_pa_array": Call("pyarrow._restore_array", (parts,))}):
            return _arrow_text(parts, data)
    found = object_items(_backing(values))
    if found is None:
        return None
    if any(isinstance(item, str) for item in found[1]) and not all(isinstance(i, str) for i in found[1]):
        raise FormatError("lacks an entry in a column of text", "give every row its image path")
    return text_items(found[1], data)


def _arrow_text(parts: Any, data: NDArray[np.uint8]) -> list[str]:
    """Entries of an Arrow string array: offsets into one stretch of UTF-8."""
    match parts:
        case (
            Call("pyarrow.type_for_alias", (str(alias),)),
            int(length),
            int(nulls),
            int(offset),
            [_, offsets, content],
            *_,
        ) if alias in _ARROW_OFFSETS and length >= 0 and offset >= 0:
            pass
        case _:
            raise FormatError("holds a column of text that this version cannot read")
    if nulls:
        raise FormatError("lacks an entry in a column of text", "give every row its image path")
    dtype, raw = np.dtype(_ARROW_OFFSETS[alias]), raw_bytes(offsets, data)
    ends = raw[: len(raw) // dtype.itemsize * dtype.itemsize].view(dtype)[offset : offset + length + 1]
    text = bytes(raw_bytes(content, data)) if length else b""
    if len(ends) != length + 1 or np.any(np.diff(ends) < 0) or not 0 <= ends[0] <= ends[-1] <= len(text):
        raise FormatError("is damaged: the text of a column does not fit its offsets")
    try:
        return [text[start:stop].decode() for start, stop in pairwise(ends.tolist())]
    except UnicodeDecodeError:
        raise FormatError("is damaged: a column of text is no text") from None
