"""Images that lie unpacked in a folder, read as those of an archive are."""

from __future__ import annotations

import os
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from iv_pipeline.errors import NO_ACCESS, DeliveryError, PictureError
from iv_pipeline.storage.image_store import ImageStore, is_local
from iv_pipeline.storage.junk import is_junk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upath import UPath

    from iv_pipeline.storage.matching import Matching


class ImageFolder(ImageStore):
    """A folder of images, however deep they lie in it, without the leftovers of file managers.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    DeliveryError
        If there is no such folder, or it cannot be listed.
    """

    def _names(self) -> dict[str, None]:
        try:
            names = sorted(name for name in files_below(self.path) if not is_junk(name))
        except OSError as error:
            raise DeliveryError(
                f"the folder of images cannot be listed ({error.strerror or type(error).__name__})",
                where=self.path,
                fix="correct delivery.archive, or give this user the right to read it",
            ) from error
        return dict.fromkeys(names)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self._matching, self.parts, self.others)

    def content_at(self, entry: str) -> str | None:
        """Checksum and size of a file, which is read for it; None if it cannot be, or is empty."""
        try:
            data = self.read_at(entry)
        except PictureError:  # the stage `image_quality` says why
            return None
        return f"{zlib.crc32(data):08x}-{len(data)}" if data else None

    def read_at(self, entry: str) -> bytes:
        """The bytes of a file.

        Raises
        ------
        PictureError
            If it cannot be opened.
        """
        try:
            return (self.path / entry).read_bytes()
        except OSError as error:
            raise PictureError(NO_ACCESS, where=self.path / entry) from error


@lru_cache(maxsize=64)
def _opened(path: UPath) -> ImageFolder:
    return ImageFolder(path)


def _reopened(
    path: UPath, matching: Matching, parts: tuple[ImageStore, ...], others: tuple[ImageStore, ...]
) -> ImageFolder:
    """The folder as another process had it, listed once in this one."""
    folder = object.__new__(ImageFolder)
    folder.__dict__.update(_opened(path).__dict__, _matching=matching, parts=parts, others=others)
    return folder


def files_below(folder: UPath) -> Iterator[str]:
    """Relative paths of all files below a folder, with ``/`` between their parts."""
    if not is_local(folder):
        root = folder.path.rstrip("/") + "/"
        yield from (path.removeprefix(root) for path in folder.fs.find(folder.path))
        return
    seen = set()
    for here, folders, files in os.walk(str(folder), onerror=_raise, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # links may lead in circles
            folders.clear()
            continue
        seen.add(real)
        inside = os.path.relpath(here, str(folder)).replace(os.sep, "/")
        yield from (name if inside == "." else f"{inside}/{name}" for name in files)


def _raise(error: OSError) -> None:
    raise error
