"""Matrices from pickles, without unpickling: arrays are mapped where they lie in the file.

A pickled NumPy array is a short header and then its raw bytes; `iv_pipeline.storage.inert` reads the header,
and the bytes stay on disk. Lists of vectors, DataFrames, and dictionaries from path to vector are understood
too. Which versions of NumPy and pandas wrote the file does not matter: neither is asked to load it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.errors import DeliveryError
from iv_pipeline.storage.inert import Call, Name, Refused, Span, read_inert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from upath import UPath

_ADMITTED = {
    "builtins": ("bytearray", "slice"),
    "_codecs": ("encode",),
    "collections": ("OrderedDict",),
    "numpy": (
        *("ndarray", "memmap", "dtype", "scalar", "_reconstruct", "_frombuffer"),
        *("MaskedArray", "_mareconstruct"),  # only to say that they are not read
    ),
    "pandas": (
        *("DataFrame", "BlockManager", "_unpickle_block", "Index", "RangeIndex", "_new_Index"),
        *("StringDtype", "StringArray", "ArrowStringArray", "__pyx_unpickle_NDArrayBacked"),
        *("Series", "SingleBlockManager"),  # only to say that they are not read
    ),
    "pyarrow": ("_restore_array", "type_for_alias", "py_buffer"),
}
_NAMES = frozenset(f"{package}.{name}" for package, names in _ADMITTED.items() for name in names)
_NUMBERS = frozenset(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"))
_KINDS = {"O": "Python objects", "c": "complex numbers", "b": "booleans", "U": "text", "S": "bytes"}
_ARROW_OFFSETS = {"string": "<i4", "large_string": "<i8"}


@dataclass(frozen=True)
class PickledMatrix:
    """The matrix that a pickle holds.

    Attributes
    ----------
    array
        Shape ``(n_rows, n_features)``, of the real dtype and byte order that was pickled; read-only, and a
        memory map where the file holds the matrix in one piece. It may not be aligned to its item size.
    keys
        The text that the file gives each row, its image path; None where rows have only their order.
    """

    array: NDArray[Any]
    keys: list[str] | None


def open_matrix(path: UPath) -> PickledMatrix:
    """Open the matrix in a pickle of protocol 2 to 5; nothing that the pickle names is run.

    Parameters
    ----------
    path
        A file with an array of shape ``(n_rows, n_features)``, a list of vectors or of pairs of path and
        vector, a dictionary from path to vector, or a DataFrame, whose text index or one text column are
        keys. Local files are mapped, others are read into memory.

    Raises
    ------
    DeliveryError
        If there is no such file, or it is no pickle, is damaged, names a callable that no array needs, or
        holds anything but rows of real numbers of one length.
    """
    if not path.is_file():
        raise DeliveryError(
            f"there is no file {path}: copy it there, or correct its name in the configuration"
        )
    data = _bytes_of(path)
    try:
        return _matrix(read_inert(data, _NAMES), data)
    except Refused as refused:
        raise DeliveryError(f"{path} {refused}") from refused


def _bytes_of(path: UPath) -> NDArray[np.uint8]:
    if path.protocol in ("", "file", "local") and path.stat().st_size:
        return np.memmap(str(path), np.uint8, mode="r")
    return np.frombuffer(path.read_bytes(), np.uint8)


def _matrix(content: Any, data: NDArray[np.uint8]) -> PickledMatrix:
    keys = None
    match content:
        case Call("pandas.DataFrame"):
            array, keys = _frame(content, data)
        case Call():
            array = _array(content, data)
        case dict():
            array, keys = _stack(list(content.values()), data, list(content)), list(content)
        case list() | tuple() if _are_pairs(content):
            keys = [key for key, _ in content]
            array = _stack([vector for _, vector in content], data, keys)
        case list() | tuple():
            array = _stack(content, data)
        case _:
            raise Refused("holds no rows of numbers")
    return PickledMatrix(_two_dimensional(array), keys)


def _two_dimensional(array: NDArray[Any]) -> NDArray[Any]:
    """The array without inner axes of length one, if two axes are left."""
    if array.ndim > 2:
        longer = [length for length in array.shape[1:] if length != 1]
        if len(longer) == 1:
            array = array.reshape(array.shape[0], longer[0])
    if array.ndim != 2:
        raise Refused(f"holds an array of shape {array.shape}, not of shape (rows, features)")
    if 0 in array.shape:
        raise Refused(f"holds no numbers, but an array of shape {array.shape}")
    return array


# Arrays


def _array(node: Any, data: NDArray[np.uint8]) -> NDArray[Any]:
    """The numeric array that a record describes, a view of the file's bytes."""
    shape, code, order, content = _described(node)
    if code.lstrip("<>|=") not in _NUMBERS:
        kind = _KINDS.get(code.lstrip("<>|=")[:1], "values")
        raise Refused(f"holds {kind} (dtype {code!r}), not real numbers")
    if 0 in shape:
        raise Refused(f"holds no numbers, but an array of shape {shape}")
    dtype, raw = np.dtype(code), _raw(content, data)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise Refused(f"is damaged: {len(raw):,} bytes are no {dtype} array of shape {shape}")
    return raw.view(dtype).reshape(shape, order=order)


def _described(node: Any) -> tuple[tuple[int, ...], str, Any, Any]:
    """Shape, dtype, order and content of the array that a record describes."""
    match node:
        case Call("numpy._mareconstruct"):
            raise Refused("holds a masked array", "fill the masked values, and save a plain array")
        case Call(
            "numpy._reconstruct",
            (Name("numpy.ndarray" | "numpy.memmap"), *_),
            (_, tuple() as shape, dtype, bool() as is_fortran, content),
        ):
            order = "F" if is_fortran else "C"
        case Call("numpy._frombuffer", (content, dtype, tuple() as shape, "C" | "F" as order, *_)):
            pass
        case Call(name):
            raise Refused(f"holds a {name} where an array is expected")
        case _:
            raise Refused("is damaged: a part of it is no array")
    if len(shape) > 32 or not all(type(length) is int and length >= 0 for length in shape):
        raise Refused(f"is damaged: an array has the shape {shape}")
    return shape, _code(dtype), order, content


def _code(node: Any) -> str:
    """The dtype that a record describes, such as ``<f4``."""
    match node:
        case Call("numpy.dtype", (str(code), *_), (_, "<" | ">" | "|" | "=" as order, *_)):
            return f"{order}{code}"
    raise Refused("is damaged: an array has no dtype")


def _raw(content: Any, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes of an array; protocol 2 writes them as text, which cannot be mapped."""
    match content:
        case Span(start, stop):
            return data[start:stop]
        case Call("builtins.bytearray" | "pyarrow.py_buffer", (inner,)):
            return _raw(inner, data)
        case Call("_codecs.encode", (str(text), "latin1")):
            return np.frombuffer(_latin1(text), np.uint8)
    raise Refused("is damaged: an array has no bytes")


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise Refused("is damaged: the bytes of an array are no bytes") from None


# Rows one by one


def _are_pairs(rows: Sequence[Any]) -> bool:
    return bool(rows) and all(
        isinstance(row, tuple) and len(row) == 2 and isinstance(row[0], str) for row in rows
    )


def _stack(rows: Sequence[Any], data: NDArray[np.uint8], keys: Sequence[str] | None = None) -> NDArray[Any]:
    """Rows of equal length as a matrix in memory."""
    if not rows:
        raise Refused("holds no rows")
    data = data.view(np.ndarray)  # views of a memory map are slow to make, and there may be millions
    vectors = []
    for i, row in enumerate(rows):
        where = f"row {i} (counted from 0)" if keys is None else f"the vector of {keys[i]!r}"
        vectors.append(_vector(row, data, where))
        if len(vectors[i]) != len(vectors[0]):
            raise Refused(
                f"is ragged: {where} has {len(vectors[i]):,} numbers, the first has {len(vectors[0]):,}"
            )
    return np.stack(vectors)


def _vector(row: Any, data: NDArray[np.uint8], where: str) -> NDArray[Any]:
    if isinstance(row, Call):
        vector = _array(row, data)
        if vector.ndim == 2 and vector.shape[0] == 1:
            vector = vector[0]
        if vector.ndim != 1:
            raise Refused(f"is no list of vectors: {where} has the shape {vector.shape}")
        return vector
    if isinstance(row, list | tuple):
        return _numbers(row, data, where)
    raise Refused(f"is no list of vectors: {where} is not a vector")


def _numbers(row: Sequence[Any], data: NDArray[np.uint8], where: str) -> NDArray[Any]:
    """A vector given number by number, some of them gathered already."""
    if len(row) == 1 and isinstance(row[0], np.ndarray):
        return row[0]
    numbers = [x if isinstance(x, np.ndarray) else [_number(x, data, where)] for x in row]
    return np.array(list(chain.from_iterable(numbers))) if numbers else np.empty(0)


def _number(value: Any, data: NDArray[np.uint8], where: str) -> Any:
    match value:
        case bool():
            pass
        case int() if -(2**63) <= value < 2**63:
            return value
        case float():
            return value
        case Call("numpy.scalar", (dtype, content)):
            code, raw = _code(dtype), _raw(content, data)
            if code.lstrip("<>|=") in _NUMBERS and len(raw) == np.dtype(code).itemsize:
                return raw.view(code)[0]
    raise Refused(f"holds something in {where} that is no real number")


# DataFrames


def _frame(frame: Call, data: NDArray[np.uint8]) -> tuple[NDArray[Any], list[str] | None]:
    """The numeric columns of a DataFrame, and its text index or text column."""
    match frame.state:
        case {"_mgr": Call("pandas.BlockManager", (tuple(blocks), [columns, index]))}:
            names = _index_text(columns, data)
        case _:
            raise Refused("holds a DataFrame that this version cannot read")
    keys = [] if (text := _index_text(index, data)) is None else [text]
    numeric: list[tuple[Sequence[int], NDArray[Any]]] = []
    for block in blocks:
        values, positions = _block(block, data)
        if (text := _text(values, data)) is None:
            numeric.append((positions, _column_block(values, positions, names, data)))
        else:
            keys.extend([text] * min(len(positions), 2))
    if len(keys) > 1:
        raise Refused("has several columns of text (its index may be one)", "keep one, the image paths")
    array = _side_by_side(numeric)
    if keys and len(keys[0]) != len(array):
        raise Refused(f"is damaged: it has {len(keys[0]):,} paths for {len(array):,} rows")
    return array, keys[0] if keys else None


def _block(block: Any, data: NDArray[np.uint8]) -> tuple[Any, Sequence[int]]:
    """The values of a block of columns, and the columns' positions."""
    match block:
        case Call("pandas._unpickle_block", (values, Call("builtins.slice", (*bounds,)), _)):
            if len(bounds) == 3 and all(type(x) is int and abs(x) < 2**31 for x in bounds) and bounds[2]:
                return values, range(*bounds)
        case Call("pandas._unpickle_block", (values, Call() as positions, _)):
            array = _array(positions, data)
            if array.dtype.kind == "i":
                return values, array.reshape(-1).tolist()
    raise Refused("is damaged: a block of its DataFrame has no columns")


def _column_block(
    values: Any, positions: Sequence[int], names: list[str] | None, data: NDArray[np.uint8]
) -> NDArray[Any]:
    """Numeric columns, shape ``(n_columns, n_rows)``."""
    try:
        array = _array(values, data)
    except Refused as refused:
        first = positions[0] if positions else 0
        name = names[first] if names and first < len(names) else first
        raise Refused(f"has a column {name!r} that {str(refused).partition(':')[0]}") from None
    if array.ndim != 2 or len(array) != len(positions):
        raise Refused("is damaged: a block of its DataFrame has the wrong shape")
    return array


def _side_by_side(blocks: list[tuple[Sequence[int], NDArray[Any]]]) -> NDArray[Any]:
    """Blocks of columns in the order of their positions, shape ``(n_rows, n_columns)``."""
    if not blocks:
        raise Refused("holds a DataFrame without columns of numbers")
    if len(blocks) == 1 and all(i < j for i, j in pairwise(blocks[0][0])):
        return blocks[0][1].T
    if len({array.shape[1] for _, array in blocks}) > 1:
        raise Refused("is damaged: the columns of its DataFrame differ in length")
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
        case Call("pandas.__pyx_unpickle_NDArrayBacked", _, (_, Call() as array, *_)):
            return _text(array, data)
        case Call("numpy._reconstruct", _, (_, _, Call("numpy.dtype", ("O8" | "O", *_)), _, list(items))):
            return _all_text(items)
    return None


def _all_text(items: Iterable[Any]) -> list[str] | None:
    items = list(items)
    return items if all(isinstance(item, str) for item in items) else None


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
            raise Refused("holds a column of text that this version cannot read")
    if nulls:
        raise Refused("lacks an entry in a column of text", "give every row its image path")
    dtype, raw = np.dtype(_ARROW_OFFSETS[alias]), _raw(offsets, data)
    ends = raw[: len(raw) // dtype.itemsize * dtype.itemsize].view(dtype)[offset : offset + length + 1]
    text = bytes(_raw(content, data)) if length else b""
    if len(ends) != length + 1 or np.any(np.diff(ends) < 0) or not 0 <= ends[0] <= ends[-1] <= len(text):
        raise Refused("is damaged: the text of a column does not fit its offsets")
    try:
        return [text[start:stop].decode() for start, stop in pairwise(ends.tolist())]
    except UnicodeDecodeError:
        raise Refused("is damaged: a column of text is no text") from None
