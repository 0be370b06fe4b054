"""Matrices from ``.npy`` and ``.npz`` files: nothing is unpickled, and arrays are mapped where they lie."""

from __future__ import annotations

import io
import math
import tokenize
import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iv_pipeline.storage.matrix import (
    COPY_AGAIN,
    FormatError,
    Matrix,
    check_expansion,
    choose_key,
    choose_matrix,
    finished,
    ignored,
    require_numbers,
)
from iv_pipeline.storage.pickles import read_pickle

if TYPE_CHECKING:
    from numpy.typing import NDArray

NPY_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 2**16
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_DAMAGED = (
    ValueError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    OverflowError,
    MemoryError,
    RecursionError,
)
_LOCAL_HEADER = 30  # bytes of a zip entry before its name
_LONGEST_TEXT = 2**28


def read_npy(data: NDArray[np.uint8]) -> Matrix:
    """Read the matrix in a ``.npy`` file, a view of its bytes.

    Parameters
    ----------
    data
        All bytes of the file, shape ``(n_bytes,)``; may be a memory map.

    Raises
    ------
    FormatError
        If the file is damaged, or holds anything but rows of real numbers.
    """
    content = _content(data)
    return content if isinstance(content, Matrix) else _alone(content)


def _alone(array: NDArray[Any]) -> Matrix:
    """The matrix that is an array by itself, which cannot be text."""
    require_numbers(array.dtype.str)
    return finished(array)


def _content(data: NDArray[np.uint8]) -> NDArray[Any] | Matrix:
    """The array in a ``.npy`` file; one of Python objects is a pickle, and read as such."""
    shape, is_fortran, dtype, start = _header(data)
    if dtype.hasobject and dtype.names is None:
        return read_pickle(data[start:])
    if dtype.kind not in "US":
        require_numbers(dtype.str)
    raw, n_bytes = data[start:], math.prod(shape) * dtype.itemsize
    if len(raw) < n_bytes:
        raise FormatError("ends in the middle of its data", COPY_AGAIN)
    if len(raw) > n_bytes:
        raise FormatError("goes on after its first array ends, and would be read in part")
    if n_bytes == 0:
        raise FormatError(f"holds no numbers, but an array of shape {shape}")
    return raw.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def _header(data: NDArray[np.uint8]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order and dtype of an array, and where its bytes begin."""
    source = io.BytesIO(data[:_HEADER_BYTES].tobytes())
    try:
        read = _READ_HEADER.get(np.lib.format.read_magic(source))
        if read is None:
            raise FormatError("holds records (npy version 3), not real numbers")
        with warnings.catch_warnings(action="ignore"):  # that it was written by Python 2 does not matter
            shape, is_fortran, dtype = read(source)
    except _DAMAGED as error:
        raise FormatError("is an .npy file with a damaged header", COPY_AGAIN) from error
    if any(length < 0 for length in shape):
        raise FormatError("is an .npy file with a damaged header", COPY_AGAIN)
    return shape, is_fortran, dtype, source.tell()


def read_zip(data: NDArray[np.uint8]) -> Matrix:
    """Read the matrix in an ``.npz`` file; uncompressed, it is a view of the bytes, otherwise it is in memory.

    Parameters
    ----------
    data
        All bytes of the file, shape ``(n_bytes,)``; may be a memory map.

    Raises
    ------
    FormatError
        If the file is damaged, is another zip archive, or holds several matrices.
    """
    try:
        with zipfile.ZipFile(pa.BufferReader(pa.py_buffer(data))) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _require_arrays([entry.filename for entry in entries])
            arrays = {entry.filename.removesuffix(".npy"): _entry(archive, entry, data) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, *_DAMAGED) as error:
        raise FormatError("is a damaged zip archive", COPY_AGAIN) from error
    return _of_arrays(arrays)


def _require_arrays(names: list[str]) -> None:
    if any(name.endswith("data.pkl") for name in names):
        raise FormatError(
            "was written by torch.save", "save an array instead: np.save(file, tensor.cpu().numpy())"
        )
    if not names or not all(name.endswith(".npy") for name in names):
        listed = ", ".join(names[:3])
        raise FormatError(f"is a zip archive of {listed or 'nothing'}, not of arrays", "unpack it")


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, data: NDArray[np.uint8]) -> Any:
    if entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1:
        local = data[entry.header_offset : entry.header_offset + _LOCAL_HEADER].tobytes()
        lengths = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
        start = entry.header_offset + _LOCAL_HEADER + sum(lengths)
        return _content(data[start : start + entry.file_size])
    check_expansion(entry.file_size, len(data))
    return _content(np.frombuffer(archive.read(entry), np.uint8))


def _of_arrays(arrays: dict[str, Any]) -> Matrix:
    """The one matrix among arrays; one array of text has its paths."""
    if len(arrays) == 1:
        (only,) = arrays.values()
        return only if isinstance(only, Matrix) else _alone(only)
    matrices = {
        n: a for n, a in arrays.items() if isinstance(a, Matrix) or (a.ndim == 2 and a.dtype.kind in "fiu")
    }
    shapes = {
        n: "{:,} × {:,}".format(*(a.array if isinstance(a, Matrix) else a).shape) for n, a in matrices.items()
    }
    name = choose_matrix(shapes)
    rest = {n: a for n, a in arrays.items() if n != name}
    texts = {n: _text(a) for n, a in rest.items() if a.ndim == 1 and a.dtype.kind in "US"}
    keys, notices = choose_key(texts)
    others = ignored([n for n in rest if n not in texts], f"the matrix {name!r}")
    matrix = matrices[name] if isinstance(matrices[name], Matrix) else finished(matrices[name])
    return finished(matrix.array, keys or matrix.keys, [*matrix.notices, *notices, *others])


def _text(array: NDArray[Any]) -> list[str]:
    if array.nbytes > _LONGEST_TEXT * 4:
        raise FormatError("has gigabytes of text beside its matrix", "save the matrix alone")
    try:
        return [value if isinstance(value, str) else value.decode() for value in array.tolist()]
    except (UnicodeDecodeError, ValueError) as error:
        raise FormatError("holds text that is not in UTF-8", "save its paths as text") from error
