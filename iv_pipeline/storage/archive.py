"""The images of a delivery, read straight from their zip archive, which is never unpacked."""

from __future__ import annotations

import lzma
import re
import struct
import threading
import zipfile
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from iv_pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upath import UPath

_SAMPLE = 1000
_IS_ENCRYPTED = 0x1
_NEEDLESS = re.compile(r"(?:(?<=/)|^)(?:\./+)+|(?<=/)/+")
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, ValueError, NotImplementedError),
)
"""What the standard library raises on archives that are damaged or packed in ways that it does not know."""


def normalised(path: str) -> str:
    """The path with ``/`` between its parts, and without ``./`` and doubled separators."""
    path = path.replace("\\", "/")
    return _NEEDLESS.sub("", path) if "./" in path or "//" in path else path


class ImageArchive:
    """A zip archive of images; its entries are found by normalised path.

    Any number of threads may read from it. Pickled, it is opened again where it is unpickled, once in a process:
    the directory of a large archive takes seconds to read.

    Parameters
    ----------
    path
        The archive.
    drop
        Leading folder of the image paths that the archive lacks, such as ``veriwild/``.
    add
        Leading folder that the archive has before them.
    others
        Archives that images are looked for in if this one lacks them.

    Raises
    ------
    DeliveryError
        If there is no such file, or it is no zip archive or a damaged one.
    """

    def __init__(
        self, path: UPath, drop: str = "", add: str = "", others: tuple[ImageArchive, ...] = ()
    ) -> None:
        self.path, self.drop, self.add, self.others = path, drop, add, others
        self._lock = threading.Lock()
        self._zip = _open(path)
        self._entries = {
            normalised(info.filename): info for info in self._zip.infolist() if info.filename[-1:] != "/"
        }

    @classmethod
    def matching(cls, path: UPath, image_paths: Sequence[str]) -> ImageArchive:
        """Open an archive whose entries may lie one folder deeper or shallower than `image_paths` say.

        Which it is holds for the whole archive: of the ways to adapt the paths, the one that finds most of an
        even sample of them, and no change where that finds as many.
        """
        archive = cls(path)
        sample = image_paths[:: max(1, len(image_paths) // _SAMPLE)]
        drops = ["", *_common_folder(image_paths)]
        adds = ["", *_common_folder(archive._entries)]
        ways = [(drop, add) for drop in drops for add in adds]
        archive.drop, archive.add = max(ways, key=lambda way: archive._found(sample, *way))
        return archive

    def __reduce__(self) -> tuple[Any, ...]:
        stat = self.path.stat()
        return _reopened, (self.path, self.drop, self.add, self.others, stat.st_size, stat.st_mtime)

    def __len__(self) -> int:
        """Number of entries, folders not counted."""
        return len(self._entries)

    def holds(self, image_path: str) -> bool:
        """Whether this archive itself has the image."""
        return self._entry(image_path) in self._entries

    def missing(self, image_paths: Iterable[str]) -> list[str]:
        """Those of `image_paths` that no archive has, in their order."""
        return [path for path in image_paths if self._holder(path) is None]

    def content_of(self, image_path: str) -> str | None:
        """Checksum and size of an image, from the directory alone, as text; None if it is missing."""
        holder = self._holder(image_path)
        if holder is not self:
            return None if holder is None else holder.content_of(image_path)
        info = self._entries[self._entry(image_path)]
        return f"{info.CRC:08x}-{info.file_size}"

    def read(self, image_path: str) -> bytes:
        """The bytes of an image, as they were packed.

        Raises
        ------
        DeliveryError
            If no archive has the image, or its entry is damaged or encrypted.
        """
        holder = self._holder(image_path)
        if holder is None:
            raise DeliveryError(f"{self.path} has no image {image_path}: add it, or drop it from the paths")
        if holder is not self:
            return holder.read(image_path)
        info = self._entries[self._entry(image_path)]
        if info.flag_bits & _IS_ENCRYPTED:
            raise DeliveryError(f"{self.path}: {info.filename} is encrypted: pack it without a password")
        try:
            with self._lock:
                return self._zip.read(info)
        except _BROKEN as error:
            raise DeliveryError(
                f"{self.path}: {info.filename} is damaged ({_on_one_line(error)}): copy the archive again"
            ) from error

    def glimpse(self, image_path: str) -> bytes | None:
        """What can be shown of an image: its bytes, none of them if they are damaged, None if it is missing.

        For pictures beside other things; the stage `image_quality` tells what is wrong with an image.
        """
        if self._holder(image_path) is None:
            return None
        try:
            return self.read(image_path)
        except DeliveryError:  # decoding nothing fails as decoding any damaged image does
            return b""

    def _entry(self, image_path: str) -> str:
        path = normalised(image_path)
        return self.add + path.removeprefix(self.drop)

    def _holder(self, image_path: str) -> ImageArchive | None:
        """The first archive that has the image."""
        return next((archive for archive in (self, *self.others) if archive.holds(image_path)), None)

    def _found(self, image_paths: Iterable[str], drop: str, add: str) -> int:
        paths = map(normalised, image_paths)
        return sum(add + path.removeprefix(drop) in self._entries for path in paths)


@lru_cache(maxsize=64)
def _reopened(
    path: UPath, drop: str, add: str, others: tuple[ImageArchive, ...], *version: float
) -> ImageArchive:
    """The archive as another process had it; `version` keeps one that was replaced from being taken for it."""
    del version
    return ImageArchive(path, drop, add, others)


def _open(path: UPath) -> zipfile.ZipFile:
    is_local = path.protocol in ("", "file", "local")
    try:
        return zipfile.ZipFile(str(path) if is_local else path.open("rb"))
    except FileNotFoundError:
        raise DeliveryError(
            f"there is no archive {path}: copy it there, or correct delivery.archive in the configuration"
        ) from None
    except _BROKEN as error:
        raise DeliveryError(
            f"{path} is no whole zip archive ({_on_one_line(error)}): copy it again"
        ) from error


def _common_folder(paths: Iterable[str]) -> list[str]:
    """The first folder of all paths, with its ``/``; nothing if they do not share one."""
    folders = {normalised(path).partition("/")[0] + "/" for path in paths}
    return list(folders) if len(folders) == 1 else []


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
