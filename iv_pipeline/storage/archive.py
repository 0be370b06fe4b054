"""The images of a delivery, read straight from their zip archive, which is never unpacked."""

from __future__ import annotations

import lzma
import shutil
import struct
import threading
import zipfile
import zlib
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from iv_pipeline.errors import (
    DAMAGED_ENTRY,
    ENCRYPTED,
    OTHER_METHOD,
    TOO_LARGE,
    DeliveryError,
    Notice,
    PictureError,
)
from iv_pipeline.storage.image_store import ImageStore, is_local
from iv_pipeline.storage.junk import is_junk
from iv_pipeline.storage.matching import Entries, fold, normalized

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upath import UPath

    from iv_pipeline.storage.matching import Matching

__all__ = ["ImageArchive", "normalized"]

MAX_BYTES = 1 << 28
"""Larger entries are refused: no picture is so large, and a few bytes can unpack to any number."""
_SAMPLE = 1000
_IS_ENCRYPTED = 0x1
_IS_UTF8 = 0x800
_DISK_IN_ZIP64 = 0xFFFF
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, ValueError, NotImplementedError, RuntimeError, LookupError, OverflowError),
)
"""What the standard library raises on archives that are damaged or packed in ways that it does not know."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_OTHER_METHODS = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    93: "Zstandard",
    95: "XZ",
    96: "JPEG",
    98: "PPMd",
}
_CODE_PAGES = ("utf-8", "cp866", "cp1251", "cp850", "cp852", "cp936", "cp932")
"""Encodings that names without the UTF-8 flag may have: what Windows, and older programs elsewhere, write."""
_SPLIT_MARKER = b"PK\x07\x08"
_SIGNATURES = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x1f\x8b": "a gzip or tar.gz archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"<": "a web page",
    b"version https://git-lfs": "a Git LFS pointer",
}
"""What else is found under the name of a zip archive, by its first bytes."""


class ImageArchive(ImageStore):
    """A zip archive of images.

    Names without the UTF-8 flag are read in the code page in which most of their folders are those of the paths.
    The directory of a large archive takes seconds to read.

    Parameters
    ----------
    path
        The archive.
    encoding
        Of names without the UTF-8 flag.

    Raises
    ------
    DeliveryError
        If there is no such file, or it is no zip archive, a part of one or a damaged one.
    """

    def __init__(self, path: UPath, encoding: str = "cp437") -> None:
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._lock = threading.Lock()
        self._zip = _open(path)
        self._encoding = encoding
        _require_one_part(path, self._zip.infolist())
        super().__init__(path)

    def _names(self) -> dict[str, zipfile.ZipInfo]:
        self._infos = _index(self._zip, self._encoding)
        return self._infos

    def _match(self, paths: Sequence[str]) -> None:
        encoding = _encoding_of(self._infos.values(), paths)
        if encoding is not None:
            self._encoding = encoding
            self._entries = Entries(self._names())
            self.notices.append(
                Notice(f"names of images are read in the code page {encoding}", str(self.path))
            )
        super()._match(paths)

    def __reduce__(self) -> tuple[Any, ...]:
        stat = self.path.stat()
        version = (stat.st_size, stat.st_mtime)
        return _reopened, (self.path, self._encoding, version, self._matching, self.parts, self.others)

    def pack(self, image_paths: Iterable[str], sink: IO[bytes]) -> None:
        """Copy the archive as it is, or the images if they lie in several."""
        if self.parts:
            super().pack(image_paths, sink)
        else:
            with self.path.open("rb") as source:
                shutil.copyfileobj(source, sink, 1 << 22)

    def content_at(self, entry: str) -> str | None:
        """Checksum and size of an entry, as the directory says; None if it is empty."""
        info = self._infos[entry]
        return f"{info.CRC:08x}-{info.file_size}" if info.file_size else None

    def read_at(self, entry: str) -> bytes:
        """The bytes of an entry.

        Raises
        ------
        PictureError
            If it is encrypted, damaged, too large, or packed by a method that is not read.
        """
        info, where = self._infos[entry], f"{self.path}: {entry}"
        if info.flag_bits & _IS_ENCRYPTED:
            raise PictureError(ENCRYPTED, where=where)
        if info.compress_type not in _METHODS:
            method = _OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise PictureError(f"{OTHER_METHOD} ({method})", where=where)
        if info.file_size > MAX_BYTES:
            raise PictureError(TOO_LARGE, where=where)
        try:
            with self._lock:
                return self._zip.read(info)
        except _BROKEN as error:
            raise PictureError(DAMAGED_ENTRY, where=where) from error


def _index(archive: zipfile.ZipFile, encoding: str) -> dict[str, zipfile.ZipInfo]:
    """Entries by normalized name; of several with one name the last counts, as it was added later."""
    named = ((normalized(_name(info, encoding)), info) for info in archive.infolist())
    return {name: info for name, info in named if name[-1:] != "/" and not is_junk(name)}


def _name(info: zipfile.ZipInfo, encoding: str) -> str:
    """The name of an entry; as zipfile reads it, in code page 437, if it is none in `encoding`."""
    if info.flag_bits & _IS_UTF8 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode(encoding)
    except UnicodeError:
        return info.filename


def _encoding_of(infos: Iterable[zipfile.ZipInfo], paths: Sequence[str]) -> str | None:
    """The code page in which names without the UTF-8 flag have most parts of the paths; None if there is none."""
    wanted = {part for path in paths if not path.isascii() for part in fold(path).split("/")}
    odd = [info for info in infos if not info.flag_bits & _IS_UTF8 and not info.filename.isascii()]
    if not wanted or not odd:
        return None
    sample = odd[:: max(1, len(odd) // _SAMPLE)]

    def n_known(encoding: str) -> int:
        parts = (part for info in sample for part in fold(normalized(_name(info, encoding))).split("/"))
        return sum(not part.isascii() and part in wanted for part in parts)

    known = {encoding: n_known(encoding) for encoding in _CODE_PAGES}
    best = max(_CODE_PAGES, key=known.__getitem__)
    return best if known[best] > n_known("cp437") else None


def _require_one_part(path: UPath, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse the last part of a split archive, whose other entries lie in files that are not there."""
    disks = Counter(info.volume for info in infos if info.volume != _DISK_IN_ZIP64)
    if len(disks) > 1 or any(disks):
        raise DeliveryError(
            f"this is the last part of an archive that was split into {max(disks) + 1} or more",
            where=path,
            fix="join all its parts (7-Zip extracts them; zip -s 0 makes one archive of them)",
        )


@lru_cache(maxsize=64)
def _opened(path: UPath, encoding: str, version: tuple[float, ...]) -> ImageArchive:
    """An archive, opened once in a process; `version` keeps one that was replaced from being taken for it."""
    del version
    return ImageArchive(path, encoding)


def _reopened(
    path: UPath,
    encoding: str,
    version: tuple[float, ...],
    matching: Matching,
    parts: tuple[ImageStore, ...],
    others: tuple[ImageStore, ...],
) -> ImageArchive:
    """The archive as another process had it."""
    archive = object.__new__(ImageArchive)
    archive.__dict__.update(
        _opened(path, encoding, version).__dict__, _matching=matching, parts=parts, others=others
    )
    return archive


@lru_cache(maxsize=1)
def _directory_of(path: str, version: tuple[int, ...]) -> zipfile.ZipFile:
    """The archive with its directory, which one stage after another asks for; `version` tells it from another."""
    del version
    return zipfile.ZipFile(path)


def _open(path: UPath) -> zipfile.ZipFile:
    try:
        if not is_local(path):
            return zipfile.ZipFile(path.open("rb"))
        stat = Path(str(path)).stat()
        return _directory_of(str(path), (stat.st_size, stat.st_mtime_ns, stat.st_ino))
    except FileNotFoundError:
        raise DeliveryError(
            "there is no archive", where=path, fix="copy it there, or correct delivery.archive"
        ) from None
    except PermissionError as error:
        raise DeliveryError(
            "the archive cannot be opened", where=path, fix="give this user the right to read it"
        ) from error
    except _BROKEN as error:
        what, fix = _what_it_is(path)
        raise DeliveryError(what, where=path, fix=fix) from error


def _what_it_is(path: UPath) -> tuple[str, str]:
    """What a file is that is no whole zip archive, and what to do about it."""
    with path.open("rb") as file:
        start = file.read(512)
    kind = next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), None)
    if start[257:262] == b"ustar":
        kind = "a tar archive"
    if kind in ("a web page", "a Git LFS pointer"):
        return f"this is {kind}, not a zip archive", "download the archive itself"
    if kind is not None:
        return f"this is {kind}, not a zip archive", "unpack it, and name the folder in delivery.archive"
    if not start:
        return "the archive is empty", "copy it again"
    if start.startswith(_SPLIT_MARKER):
        return (
            "this is the first part of a split zip archive",
            "join all its parts (7-Zip extracts them; zip -s 0 makes one archive of them)",
        )
    if start.startswith(b"PK"):
        return (
            "this is no whole zip archive, its end is missing or damaged",
            "copy it again, or join its parts if it was split",
        )
    return "this is no zip archive", "copy it again, or correct delivery.archive"
