"""Arrays in pickles: views of the file's bytes, lists of vectors, and arrays of Python objects or text."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.storage.matrix import FormatError, is_number, require_numbers
from iv_pipeline.storage.pickle_machine import ByteText, Call, Name, Span, holds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def array_of(node: Any, data: NDArray[np.uint8]) -> NDArray[Any]:
    """The numeric array that a record describes, a view of the file's bytes."""
    shape, code, order, content = described(node)
    require_numbers(code)
    if 0 in shape:
        raise FormatError(f"holds no numbers, but an array of shape {shape}")
    dtype, raw = np.dtype(code), raw_bytes(content, data)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise FormatError(f"is damaged: {len(raw):,} bytes are no {dtype} array of shape {shape}")
    return raw.view(dtype).reshape(shape, order=order)


def described(node: Any) -> tuple[tuple[int, ...], str, Any, Any]:
    """Shape, dtype, order and content of the array that a record describes."""
    match node:
        case Call("numpy._mareconstruct"):
            raise FormatError("holds a masked array", "fill the masked values, and save a plain array")
        case Call(
            "numpy._reconstruct",
            (Name("numpy.ndarray" | "numpy.memmap" | "numpy.matrix"), *_),
            (_, tuple() as shape, dtype, bool() as is_fortran, content),
        ):
            order = "F" if is_fortran else "C"
        case Call("numpy._frombuffer", (content, dtype, tuple() as shape, "C" | "F" as order, *_)):
            pass
        case Call(foreign=foreign) if foreign is not None:
            raise holds(foreign)
        case Call(name):
            raise FormatError(f"holds a {name} where an array is expected")
        case _:
            raise FormatError("is damaged: a part of it is no array")
    if len(shape) > 32 or not all(type(length) is int and length >= 0 for length in shape):
        raise FormatError(f"is damaged: an array has the shape {shape}")
    return shape, _code(dtype), order, content


def _code(node: Any) -> str:
    """The dtype that a record describes, such as ``<f4``."""
    match node:
        case Call("numpy.dtype", (str(code), *_), (_, "<" | ">" | "|" | "=" as order, *_)):
            return f"{order}{code}"
    raise FormatError("is damaged: an array has no dtype")


def raw_bytes(content: Any, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes of an array; protocol 2 writes them as text, which cannot be mapped."""
    match content:
        case Span(start, stop):
            return data[start:stop]
        case ByteText(raw=raw):
            return np.frombuffer(raw, np.uint8)
        case Call("builtins.bytearray" | "pyarrow.py_buffer", (inner,)):
            return raw_bytes(inner, data)
        case Call("_codecs.encode", (str(text), "latin1")):
            return np.frombuffer(_latin1(text), np.uint8)
    raise FormatError("is damaged: an array has no bytes")


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise FormatError("is damaged: the bytes of an array are no bytes") from None


# Objects


def object_items(node: Any) -> tuple[tuple[int, ...], list[Any]] | None:
    """Shape and items of an array of Python objects, in C order; None of any other array."""
    match node:
        case Call(
            "numpy._reconstruct",
            _,
            (_, tuple() as shape, Call("numpy.dtype", ("O8" | "O4" | "O" | "|O", *_)), _, list(items)),
        ):
            pass
        case _:
            return None
    if any(isinstance(item, np.ndarray) for item in items):
        items = list(chain.from_iterable(x.tolist() if isinstance(x, np.ndarray) else [x] for x in items))
    if not all(type(length) is int for length in shape) or math.prod(shape) != len(items):
        raise FormatError(f"is damaged: {len(items):,} objects are no array of shape {shape}")
    return shape, items


def text_items(node: Any, data: NDArray[np.uint8]) -> list[str] | None:
    """Entries of a list or an array of text; None of anything else."""
    if isinstance(node, list | tuple):
        items = list(node)
        return items if items and all(isinstance(item, str) for item in items) else None
    if (found := object_items(node)) is not None:
        return text_items(found[1], data)
    match node:
        case Call("numpy._reconstruct" | "numpy._frombuffer"):
            shape, code, _, content = described(node)
        case _:
            return None
    kind, size = code.lstrip("<>|=")[:1], code.lstrip("<>|=")[1:]
    raw = raw_bytes(content, data)
    if kind not in {"U", "S"} or not size.isdigit() or len(shape) != 1:
        return None
    dtype = np.dtype(f"{code[0] if kind == 'U' else '|'}{kind}{int(size)}")
    if dtype.itemsize == 0 or len(raw) != shape[0] * dtype.itemsize:
        raise FormatError(f"is damaged: {len(raw):,} bytes are no text of shape {shape}")
    try:
        values = np.frombuffer(raw.tobytes(), dtype).tolist()
        return [value if isinstance(value, str) else value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise FormatError("holds text that is not in UTF-8", "save its paths as text") from error


# Rows one by one


def stack(rows: Sequence[Any], data: NDArray[np.uint8], keys: Sequence[str] | None = None) -> NDArray[Any]:
    """Rows of equal length as a matrix in memory."""
    if not rows:
        raise FormatError("holds no rows")
    data = data.view(np.ndarray)  # views of a memory map are slow to make, and there may be millions
    vectors = []
    for i, row in enumerate(rows):
        where = f"row {i} (counted from 0)" if keys is None else f"the vector of {keys[i]!r}"
        vectors.append(_vector(row, data, where))
        if len(vectors[i]) != len(vectors[0]):
            raise FormatError(
                f"is ragged: {where} has {len(vectors[i]):,} numbers, the first has {len(vectors[0]):,}"
            )
    return np.stack(vectors)


def _vector(row: Any, data: NDArray[np.uint8], where: str) -> NDArray[Any]:
    if isinstance(row, Call) and (items := object_items(row)) is not None and len(items[0]) == 1:
        return _numbers(items[1], data, where)
    if isinstance(row, Call):
        vector = array_of(row, data)
        if vector.ndim == 2 and vector.shape[0] == 1:
            vector = vector[0]
        if vector.ndim != 1:
            raise FormatError(f"is no list of vectors: {where} has the shape {vector.shape}")
        return vector
    if isinstance(row, list | tuple):
        return _numbers(row, data, where)
    raise FormatError(f"is no list of vectors: {where} is not a vector")


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
            code, raw = _code(dtype), raw_bytes(content, data)
            if is_number(code) and len(raw) == np.dtype(code).itemsize:
                return raw.view(code)[0]
    raise FormatError(f"holds something in {where} that is no real number")
