"""A pickled array of any size, written row by row.

`pickle.dump` of an array needs the array. A pickle of protocol 4 is a short head, the array's raw bytes, and a
short tail, so that head and tail can be made of an array that has no bytes yet, and the rows written in between.
"""

from __future__ import annotations

import math
import pickle
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

MOST_BINBYTES = 2**32 - 1
"""Bytes whose number fits into the four bytes of the opcode ``BINBYTES``; more take ``BINBYTES8``."""

_PLACE = b"the rows go here"
_HEAD_LENGTH = 11  # the opcodes PROTO and FRAME with their arguments


class _Hollow:
    """Pickles as an array of `shape` and `dtype` whose bytes are `_PLACE`."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape = shape
        self._dtype = dtype

    def __reduce__(self) -> tuple[Any, ...]:
        record: tuple[Any, ...] = tuple(np.empty(0, self._dtype).__reduce__())
        rebuild, arguments, (version, _, dtype, is_fortran, _) = record
        return rebuild, arguments, (version, self._shape, dtype, is_fortran, _PLACE)


def head_and_tail(shape: tuple[int, int], dtype: np.dtype[Any]) -> tuple[bytes, bytes]:
    """What a pickle of protocol 4 has before and after the raw bytes of an array in C order.

    Parameters
    ----------
    shape
        ``(n_rows, n_features)``.
    dtype
        Of the array.
    """
    whole = pickle.dumps(_Hollow(shape, dtype), protocol=4)[_HEAD_LENGTH:]
    head, tail = whole.split(pickle.SHORT_BINBYTES + bytes([len(_PLACE)]) + _PLACE)
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes <= MOST_BINBYTES:
        opcode = pickle.BINBYTES + n_bytes.to_bytes(4, "little")
    else:
        opcode = pickle.BINBYTES8 + n_bytes.to_bytes(8, "little")
    return pickle.PROTO + b"\x04" + _frame(head) + opcode, _frame(tail)


def _frame(opcodes: bytes) -> bytes:
    return pickle.FRAME + len(opcodes).to_bytes(8, "little") + opcodes


def stream_array(file: IO[bytes], shape: tuple[int, int], blocks: Iterable[NDArray[np.float32]]) -> None:
    """Write a pickle of a float32 array whose rows come in blocks.

    Parameters
    ----------
    file
        Open for writing.
    shape
        ``(n_rows, n_features)``.
    blocks
        Consecutive rows, each of shape ``(rows_of_block, n_features)``.

    Raises
    ------
    ValueError
        If the blocks together are not of `shape`.
    """
    head, tail = head_and_tail(shape, np.dtype(np.float32))
    file.write(head)
    written = 0
    for block in blocks:
        if block.dtype != np.float32 or block.shape[1:] != shape[1:]:
            raise ValueError(f"a block of {block.dtype}, shape {block.shape}, in an array of shape {shape}")
        file.write(np.ascontiguousarray(block).data)
        written += len(block)
    if written != shape[0]:
        raise ValueError(f"{written:,} rows were given for an array of shape {shape}")
    file.write(tail)
