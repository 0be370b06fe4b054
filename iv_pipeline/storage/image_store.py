"""What zip archives and folders of images have in common: entries that are found by the paths of images."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Self

from iv_pipeline.errors import NOT_THERE, Notice, PictureError
from iv_pipeline.storage.matching import Entries, Matching, match, n_shared_parts, normalized

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from upath import UPath


class ImageStore(ABC):
    """Images by path; any number of threads may read from it.

    Pickled, it is opened again where it is unpickled, once in a process.

    Parameters
    ----------
    path
        The archive or folder.

    Attributes
    ----------
    parts
        Stores that hold the rest of the same images.
    others
        Stores that images are looked for in if those lack them.
    notices
        What is odd about it and yet no error.
    """

    def __init__(self, path: UPath) -> None:
        self.path = path
        self.parts: tuple[ImageStore, ...] = ()
        self.others: tuple[ImageStore, ...] = ()
        self.notices: list[Notice] = []
        self._entries = Entries(self._names())
        self._matching = Matching()

    @classmethod
    def matching(cls, path: UPath, image_paths: Sequence[str]) -> Self:
        """Open a store whose entries may be named otherwise than `image_paths` say.

        How entries are found is settled once, for all paths together (`iv_pipeline.storage.matching.match`); what
        it took is told in `notices`.

        Raises
        ------
        DeliveryError
            If there is no such archive or folder, or it cannot be read at all.
        """
        store = cls(path)
        store._match([normalized(image_path) for image_path in image_paths])
        return store

    def _match(self, paths: Sequence[str]) -> None:
        self._matching, notices = match(paths, self._entries)
        self.notices += [Notice(notice.what, str(self.path), notice.fix) for notice in notices]

    def join(self, parts: Sequence[ImageStore], image_paths: Sequence[str]) -> None:
        """Look for images in `parts` as well; of several entries for an image the closest counts.

        That stores have an image under equally close names and with other content is told in `notices`.
        """
        self.parts = tuple(parts)
        stores, differing = (self, *self.parts), []
        for path in map(normalized, image_paths):
            entries = {store: entry for store in stores if (entry := store.entry_of(path)) is not None}
            if len(entries) < 2:
                continue
            shared = {store: n_shared_parts(path, entry) for store, entry in entries.items()}
            best = [store for store in entries if shared[store] == max(shared.values())]
            for store in entries.keys() - set(best):
                store.bar(path)
            if len({store.content_at(entries[store]) for store in best}) > 1:
                differing.append((path, best[0]))
        if differing:
            path, store = differing[0]
            self.notices.append(
                Notice(
                    f"{len(differing):,} images are there more than once with other content: {path} is read from "
                    f"{store.path.name}",
                    str(self.path.parent),
                    "keep one of them",
                )
            )

    def bar(self, path: str) -> None:
        """Find no entry for a path that is not the name of one."""
        pairs = {other: entry for other, entry in self._matching.pairs.items() if other != path}
        self._matching = replace(self._matching, pairs=pairs, barred=self._matching.barred | {path})

    def __len__(self) -> int:
        """Number of entries; folders and leftovers of file managers are not counted."""
        return len(self._entries.names)

    def first(self) -> str | None:
        """Name of the first entry; None if there is none."""
        return next(iter(self._entries.names), None)

    def holds(self, image_path: str) -> bool:
        """Whether this store itself has the image."""
        return self.entry_of(image_path) is not None

    def missing(self, image_paths: Iterable[str]) -> list[str]:
        """Those of `image_paths` that no store has, in their order."""
        return [path for path in image_paths if self._holder(path) is None]

    def content_of(self, image_path: str) -> str | None:
        """Checksum (CRC-32) and size of an image, as text; None if it is missing or empty.

        An archive's directory says so, and may lie: equal contents are a hint that the bytes may be equal.
        """
        holder = self._holder(image_path)
        return None if holder is None else holder[0].content_at(holder[1])

    def read(self, image_path: str) -> bytes:
        """The bytes of an image.

        Raises
        ------
        PictureError
            If no store has the image, or it cannot be read.
        """
        holder = self._holder(image_path)
        if holder is None:
            raise PictureError(NOT_THERE, where=f"{self.path}: {image_path}")
        return holder[0].read_at(holder[1])

    def glimpse(self, image_path: str) -> bytes | None:
        """What can be shown of an image: its bytes, none of them if they are damaged, None if it is missing.

        For pictures beside other things; the stage `image_quality` tells what is wrong with an image.
        """
        if self._holder(image_path) is None:
            return None
        try:
            return self.read(image_path)
        except PictureError:  # decoding nothing fails as decoding any damaged image does
            return b""

    def entry_of(self, image_path: str) -> str | None:
        """Name of the entry that is an image; None if this store itself lacks it."""
        return self._entries.find(normalized(image_path), self._matching)

    def _holder(self, image_path: str) -> tuple[ImageStore, str] | None:
        """The first store that has the image, and its entry there."""
        for store in (self, *self.parts, *self.others):
            entry = store.entry_of(image_path)
            if entry is not None:
                return store, entry
        return None

    def pack(self, image_paths: Iterable[str], sink: IO[bytes]) -> None:
        """Write a zip archive in which those of `image_paths` that can be read are found as well."""
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for image_path in image_paths:
                data = self.glimpse(image_path)
                if data is not None:
                    archive.writestr(zipfile.ZipInfo(image_path), data)

    @abstractmethod
    def content_at(self, entry: str) -> str | None:
        """Checksum and size of an entry, as `content_of` gives them."""

    @abstractmethod
    def read_at(self, entry: str) -> bytes:
        """The bytes of an entry; `PictureError` if it cannot be read."""

    @abstractmethod
    def _names(self) -> Collection[str]:
        """Open the store; normalized names of its entries."""


def is_local(path: UPath) -> bool:
    """Whether a path is one of this machine's file system."""
    return path.protocol in ("", "file", "local")
