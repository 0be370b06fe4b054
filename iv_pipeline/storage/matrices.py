"""The matrix in a descriptor file, whose format is told by its first bytes, whatever the file is called.

A new format is a line in `_FORMATS`: the bytes that it begins with, and a function that reads it.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import lzma
import tempfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iv_pipeline.errors import DeliveryError
from iv_pipeline.storage.arrow_files import read_arrow, read_arrow_stream, read_parquet
from iv_pipeline.storage.matrix import COPY_AGAIN, FormatError, Matrix, check_expansion
from iv_pipeline.storage.numpy_files import NPY_MAGIC, read_npy, read_zip
from iv_pipeline.storage.pickles import read_pickle
from iv_pipeline.storage.safe_pickle import looks_like_pickle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from upath import UPath

_PLAIN = (".pickle", ".pkl", ".p", ".npy", ".npz", ".parquet", ".feather", ".arrow", ".ipc", ".joblib")
SUFFIXES = (*_PLAIN, *(f"{plain}{packed}" for plain in _PLAIN for packed in (".gz", ".bz2", ".xz", ".zst")))
"""Suffixes that descriptor files have; what a file holds is told by its content."""
_CHUNK = 2**20
_HEAD = 4096
_CONVERT = "save its vectors with np.save(file, array), the array of shape (rows, features)"


@dataclass(frozen=True)
class _Format:
    magic: bytes
    read: Callable[[NDArray[np.uint8]], Matrix]


def _named(what: str, fix: str = _CONVERT) -> Callable[[NDArray[np.uint8]], Matrix]:
    """A reader of a format that holds matrices elsewhere, and is only named."""

    def refuse(_: NDArray[np.uint8]) -> Matrix:
        raise FormatError(what, fix)

    return refuse


def _unpacked(open_stream: Callable[[Any], Any], name: str) -> Callable[[NDArray[np.uint8]], Matrix]:
    """A reader of a compressed file: it is unpacked into a temporary file, which is mapped."""

    def read(data: NDArray[np.uint8]) -> Matrix:
        n_bytes = 0
        with tempfile.TemporaryFile() as sink:
            for chunk in _chunks(open_stream, data, name):
                n_bytes += len(chunk)
                check_expansion(n_bytes, len(data))
                sink.write(chunk)
            sink.flush()
            if n_bytes == 0:
                raise FormatError(f"is compressed with {name} and empty", COPY_AGAIN)
            return read_matrix(np.memmap(sink, np.uint8, mode="r"), unpack=False)

    return read


def _chunks(open_stream: Callable[[Any], Any], data: NDArray[np.uint8], name: str) -> Iterator[bytes]:
    try:
        stream = open_stream(pa.BufferReader(pa.py_buffer(data)))
        while chunk := stream.read(_CHUNK):
            yield chunk
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, pa.ArrowException) as error:
        raise FormatError(f"is compressed with {name} and damaged", COPY_AGAIN) from error


class _ZlibStream:
    """A stream of bytes that zlib packed, as joblib does."""

    def __init__(self, source: Any) -> None:
        self._source, self._unpack = source, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        while not self._unpack.eof:
            packed = self._unpack.unconsumed_tail or self._source.read(size)
            if not packed:
                raise EOFError
            if chunk := self._unpack.decompress(packed, size):
                return chunk
        return b""


_FORMATS = (
    _Format(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", _named("was written by torch.save")),
    _Format(NPY_MAGIC, read_npy),
    _Format(b"PK\x03\x04", read_zip),
    _Format(b"PAR1", read_parquet),
    _Format(b"ARROW1", read_arrow),
    _Format(b"\xff\xff\xff\xff", read_arrow_stream),
    _Format(b"FEA1", _named("is a Feather file of version 1", "save it again with to_feather or to_parquet")),
    _Format(b"\x89HDF\r\n\x1a\n", _named("is an HDF5 file")),
    _Format(b"MATLAB", _named("is a MATLAB file")),
    _Format(
        b"version https://git-lfs", _named("is a pointer of Git LFS, not the file", "get it: git lfs pull")
    ),
    _Format(b"<", _named("is a page of HTML or XML, as a failed download leaves it", COPY_AGAIN)),
    _Format(b"Rar!", _named("is a RAR archive", "unpack it")),
    _Format(b"7z\xbc\xaf", _named("is a 7-Zip archive", "unpack it")),
    _Format(
        b"ZF", _named("was written by joblib before version 0.10", "load it with joblib, and np.save it")
    ),
)
_PACKED = (
    _Format(b"\x1f\x8b", _unpacked(lambda source: gzip.GzipFile(fileobj=source), "gzip")),
    _Format(b"BZh", _unpacked(bz2.BZ2File, "bzip2")),
    _Format(b"\xfd7zXZ\x00", _unpacked(lzma.LZMAFile, "xz")),
    _Format(b"\x28\xb5\x2f\xfd", _unpacked(lambda source: pa.CompressedInputStream(source, "zstd"), "zstd")),
    *(
        _Format(b"x" + level, _unpacked(_ZlibStream, "zlib"))
        for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")
    ),
)


def _is_text(data: NDArray[np.uint8]) -> bool:
    head = data[:_HEAD]
    return bool(((head >= ord(" ")) | np.isin(head, list(b"\t\r\n"))).all())


def open_matrix(path: UPath) -> Matrix:
    """Open the matrix in a file; nothing that the file names is run.

    Parameters
    ----------
    path
        A pickle, ``.npy``, ``.npz`` with one matrix, Parquet, Feather or Arrow file, or one of these compressed
        with gzip, bzip2, xz, zstd or zlib. A table has columns of numbers or one of vectors, and its text index
        or text column are keys. Local files are mapped, others are read into memory; so are Parquet and
        compressed Arrow files, as float32.

    Raises
    ------
    DeliveryError
        If there is no such file, or it is of another format, is damaged, names a callable that no array needs,
        or holds anything but rows of real numbers of one length.
    """
    if not path.is_file():
        raise DeliveryError(
            "there is no such file", where=path, fix="copy it there, or correct its name in the configuration"
        )
    try:
        matrix = read_matrix(_bytes_of(path))
    except FormatError as error:
        raise DeliveryError(error.what, where=path, fix=error.fix) from error
    notices = tuple(dataclasses.replace(notice, where=str(path)) for notice in matrix.notices)
    return dataclasses.replace(matrix, notices=notices)


def read_matrix(data: NDArray[np.uint8], *, unpack: bool = True) -> Matrix:
    """Read the matrix in the bytes of a file; `unpack` says whether they may be compressed.

    Raises
    ------
    FormatError
        If they hold none.
    """
    if len(data) == 0:
        raise FormatError("is empty", COPY_AGAIN)
    head = data[:64].tobytes()
    for format_ in (*_FORMATS, *_PACKED) if unpack else _FORMATS:
        if head.startswith(format_.magic):
            return format_.read(data)
    if looks_like_pickle(data):
        return read_pickle(data)
    if _is_text(data):
        raise FormatError("is a text, such as CSV or JSON, not an array", f"load it, and {_CONVERT}")
    raise FormatError("is no pickle, .npy, .npz, Parquet, Feather or Arrow file", _CONVERT)


def _bytes_of(path: UPath) -> NDArray[np.uint8]:
    if path.protocol in ("", "file", "local") and path.stat().st_size:
        return np.memmap(str(path), np.uint8, mode="r")
    return np.frombuffer(path.read_bytes(), np.uint8)
