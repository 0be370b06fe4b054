"""Matrices from pickles, without unpickling: arrays are mapped where they lie in the file.

A pickled NumPy array is a short header and then its raw bytes; `iv_pipeline.storage.safe_pickle` reads the header,
and the bytes stay on disk. Lists of vectors or of batches, DataFrames, dictionaries from path to vector, and
dictionaries of a matrix and its paths are understood too. Which versions of Python, NumPy and pandas wrote the
file does not matter: none of them is asked to load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.storage.matrix import (
    FormatError,
    Matrix,
    choose_key,
    choose_matrix,
    finished,
    ignored,
)
from iv_pipeline.storage.pickle_machine import Call
from iv_pipeline.storage.pickled_arrays import array_of, described, object_items, stack, text_items
from iv_pipeline.storage.pickled_frames import read_frame, read_object_table
from iv_pipeline.storage.safe_pickle import read_safely

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_ADMITTED = {
    "builtins": ("bytearray", "slice", "list", "object", "dict"),
    "_codecs": ("encode",),
    "collections": ("OrderedDict", "defaultdict"),
    "copyreg": ("_reconstructor",),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"),
    "joblib": ("NumpyArrayWrapper",),
    "numpy": (
        *("ndarray", "memmap", "matrix", "dtype", "scalar", "_reconstruct", "_frombuffer"),
        *("MaskedArray", "_mareconstruct"),  # only to say that they are not read
    ),
    "pandas": (
        *("DataFrame", "BlockManager", "_unpickle_block", "Index", "RangeIndex", "_new_Index"),
        *("Int64Index", "UInt64Index", "Float64Index", "NumericIndex"),  # of pandas 1
        *("StringDtype", "StringArray", "ArrowStringArray", "__pyx_unpickle_NDArrayBacked"),
    ),
    "pyarrow": ("_restore_array", "type_for_alias", "py_buffer"),
}
_NAMES = frozenset(f"{package}.{name}" for package, names in _ADMITTED.items() for name in names)


def read_pickle(data: NDArray[np.uint8]) -> Matrix:
    """Read the matrix in a pickle of any protocol; nothing that the pickle names is run.

    Parameters
    ----------
    data
        All bytes of the file, shape ``(n_bytes,)``; may be a memory map, of which the array is a view then.

    Raises
    ------
    FormatError
        If the pickle is damaged, names a callable that no array needs, or holds anything but rows of real
        numbers of one length.
    """
    return _matrix(read_safely(data, _NAMES), data)


def _matrix(content: Any, data: NDArray[np.uint8]) -> Matrix:
    match content:
        case Call("pandas.DataFrame"):
            return read_frame(content, data)
        case Call() if (items := object_items(content)) is not None:
            shape, values = items
            if shape == () and len(values) == 1:  # np.save of a dictionary
                return _matrix(values[0], data)
            return read_object_table(shape, values, data) if len(shape) == 2 else _matrix(values, data)
        case Call():
            return finished(array_of(content, data))
        case dict():
            return _dictionary(content, data)
        case list() | tuple():
            return _sequence(content, data)
    raise FormatError("holds no rows of numbers")


def _dictionary(content: dict[Any, Any], data: NDArray[np.uint8]) -> Matrix:
    """Vectors by path, or by row number, or a matrix and what belongs to it."""
    if any(_is_matrix(part) for part in content.values()):
        return _parts(content, data)
    keys = list(content)
    if keys and keys == list(range(len(keys))):
        return finished(stack(list(content.values()), data))
    if not all(isinstance(key, str) for key in keys):
        raise FormatError("holds a dictionary whose keys are no text", "key its vectors by image path")
    return finished(stack(list(content.values()), data, keys), keys)


def _sequence(content: Sequence[Any], data: NDArray[np.uint8]) -> Matrix:
    """Vectors, pairs of path and vector, batches of vectors, or a matrix and the paths of its rows."""
    for key, vector in ((0, 1), (1, 0)):
        if _are_pairs(content, key):
            keys = [row[key] for row in content]
            return finished(stack([row[vector] for row in content], data, keys), keys)
    if content and all(_is_matrix(part) for part in content):
        return finished(_batches(content, data))
    if any(map(_is_matrix, content)) and any(text_items(part, data) is not None for part in content):
        return _parts(dict(enumerate(content)), data)
    return finished(stack(content, data))


def _is_matrix(part: Any) -> bool:
    """Whether a part of the content is several rows of numbers by itself."""
    match part:
        case Call("pandas.DataFrame"):
            return True
        case Call("numpy._reconstruct" | "numpy._frombuffer") if object_items(part) is None:
            shape, *_ = described(part)
            return len(shape) == 2 and shape[0] > 1
        case list():
            return (
                len(part) > 1 and all(isinstance(row, Call | list) for row in part) and not _are_scalars(part)
            )
    return False


def _are_scalars(row: Sequence[Any]) -> bool:
    return isinstance(row[0], Call) and row[0].name == "numpy.scalar"


def _batches(parts: Sequence[Any], data: NDArray[np.uint8]) -> NDArray[Any]:
    """Matrices one below the other, as an inference loop gathers them."""
    arrays = [_matrix(part, data).array for part in parts]
    widths = [array.shape[1] for array in arrays]
    if len(set(widths)) > 1:
        i = next(i for i, width in enumerate(widths) if width != widths[0])
        raise FormatError(
            f"is ragged: batch {i} (counted from 0) has {widths[i]:,} features, the first has {widths[0]:,}"
        )
    return np.concatenate([array[:] for array in arrays])


def _parts(content: Mapping[Any, Any], data: NDArray[np.uint8]) -> Matrix:
    """A dictionary of a matrix, the paths of its rows, and what else there is."""
    matrices = {name: part for name, part in content.items() if _is_matrix(part)}
    opened = {name: _matrix(part, data) for name, part in matrices.items()}
    shapes = {name: "{:,} × {:,}".format(*matrix.array.shape) for name, matrix in opened.items()}
    name = choose_matrix(shapes)
    rest = {other: part for other, part in content.items() if other != name}
    texts = {other: text for other, part in rest.items() if (text := text_items(part, data)) is not None}
    keys, notices = choose_key(texts)
    others = ignored([other for other in rest if other not in texts], f"the matrix {name!r}")
    matrix = opened[name]
    return finished(matrix.array, keys or matrix.keys, [*matrix.notices, *notices, *others])


def _are_pairs(rows: Sequence[Any], key: int) -> bool:
    """Whether rows are tuples of a vector and, at position `key`, its path."""
    return bool(rows) and all(
        isinstance(row, tuple) and len(row) == 2 and isinstance(row[key], str) for row in rows
    )
