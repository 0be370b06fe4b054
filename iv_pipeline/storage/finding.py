"""Where the images of a delivery are: where the configuration says, or else beside that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING

from iv_pipeline.errors import DeliveryError, Notice
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.folder import ImageFolder, files_below
from iv_pipeline.storage.junk import is_junk, is_unfinished
from iv_pipeline.storage.matching import n_shared_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upath import UPath

    from iv_pipeline.storage.image_store import ImageStore

_LISTED = 10
_SAMPLE = 100
_PART = re.compile(r"\.(?:zip\.001|z01|part0*1\.(?:rar|zip)|7z\.001)$", re.IGNORECASE)
"""The first part of a split archive."""
_OTHER_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".rar", ".7z")


@dataclass(frozen=True)
class FoundImages:
    """The images of a delivery.

    Attributes
    ----------
    store
        The archive or folder; None if there is none.
    notices
        What people should know about where it was found and how its names were matched.
    """

    store: ImageStore | None
    notices: list[Notice]


def find_images(folder: UPath, setting: str, image_paths: Sequence[str]) -> FoundImages:
    """Open the archives or folders that a delivery's images are in.

    If there is nothing where `setting` says, archives and folders in the delivery are tried: the one that has most
    of the images is read, or any of those that have equally many if they are copies. Several that together have
    more than each alone are read as one. So are archives in a folder, or beside an archive, that lacks images.

    Parameters
    ----------
    folder
        The delivery.
    setting
        Archive or folder, relative to `folder`.
    image_paths
        Normalized.

    Raises
    ------
    DeliveryError
        If what `setting` names cannot be read at all.
    """
    named = folder / setting
    search = _Search(folder, setting, image_paths)
    if not named.exists():
        search.open(_candidates(folder, named, image_paths))
        return search.elsewhere()
    store = _open(named, image_paths)
    if not store.missing(image_paths):
        return FoundImages(store, store.notices)
    search.n_found[store] = len(image_paths) - len(store.missing(image_paths))
    search.open(_archives_below(named) if named.is_dir() else _others_beside(named))
    return search.beside(store)


class _Search:
    """What was opened in a delivery to find its images.

    Attributes
    ----------
    n_found
        Number of the images that each store has.
    refusals
        Why others could not be opened, or are of no use.
    """

    def __init__(self, folder: UPath, setting: str, image_paths: Sequence[str]) -> None:
        self.folder, self.setting, self.image_paths = folder, setting, image_paths
        self.n_found: dict[ImageStore, int] = {}
        self.refusals: list[str] = []

    def open(self, places: Iterable[UPath]) -> None:
        """Open archives and folders, and count the images in each."""
        for path in places:
            try:
                store = _open(path, self.image_paths)
            except DeliveryError as error:
                self.refusals.append(str(error))
                continue
            self.n_found[store] = len(self.image_paths) - len(store.missing(self.image_paths))
            if not self.n_found[store] and isinstance(store, ImageArchive):
                self.refusals.append(f"{_inside(self.folder, path)} has none of the images")

    def elsewhere(self) -> FoundImages:
        """What has most of the images, where nothing is in the place that is configured."""
        most = max(self.n_found.values(), default=0)
        best = [store for store, n in self.n_found.items() if n == most > 0]
        if self._join(most):
            return self._several()
        if len(best) == 1 or _are_copies(best, self.image_paths):
            return self._one(best[0], f"there is nothing at {self.setting}, so the images")
        return FoundImages(None, [_none(self.folder, self.setting, best, self.refusals)])

    def beside(self, named: ImageStore) -> FoundImages:
        """What is configured, together with what else has images that it lacks, or that if it has them all."""
        best = max(self.n_found, key=self.n_found.__getitem__)  # the first of those that have most
        if self._join(self.n_found[best]):
            return self._several()
        if best is named:
            return FoundImages(named, named.notices)
        has = f"{self.setting} has {self.n_found[named]:,} of {len(self.image_paths):,} images, so they"
        return self._one(best, has)

    def _join(self, most: int) -> bool:
        """Read the stores that have images as one, if that has more than `most`."""
        parts = self._parts()
        if most == len(self.image_paths) or len(parts) < 2:
            return False
        if len(self.image_paths) - len(self._missing_in(parts)) <= most:
            return False
        parts[0].join(parts[1:], self.image_paths)
        return True

    def _parts(self) -> list[ImageStore]:
        """Stores that have images; if some share folders with the paths, only those."""
        shared = {store: self._n_shared(store) for store, n in self.n_found.items() if n}
        least = min(2, max(shared.values(), default=0))
        return [store for store, n in shared.items() if n >= least]

    def _n_shared(self, store: ImageStore) -> float:
        """Number of last parts that paths typically share with the entries of a store."""
        entries = ((path, store.entry_of(path)) for path in self.image_paths)
        found = ((path, entry) for path, entry in entries if entry is not None)
        return median(n_shared_parts(path, entry) for path, entry in islice(found, _SAMPLE))

    def _missing_in(self, parts: Sequence[ImageStore]) -> Sequence[str]:
        missing = self.image_paths
        for part in parts:
            missing = part.missing(missing)
        return missing

    def _several(self) -> FoundImages:
        parts = self._parts()
        places = [_inside(self.folder, part.path) for part in parts]
        told = Notice(f"the images are read from {len(places)} places: {', '.join(places)}", str(self.folder))
        notices = [notice for part in parts for notice in part.notices]
        return FoundImages(parts[0], [told, *self._left_out(parts[0]), *notices])

    def _one(self, store: ImageStore, why: str) -> FoundImages:
        place = _inside(self.folder, store.path)
        told = Notice(
            f"{why} are read from {place}",
            where=str(self.folder),
            fix=f"set delivery.archive to {place} to have this no longer said",
        )
        return FoundImages(store, [told, *self._left_out(store), *store.notices])

    def _left_out(self, store: ImageStore) -> list[Notice]:
        """What could not be used, if images are missing that it might have."""
        lacks_some = bool(store.missing(self.image_paths))
        return [Notice(refusal) for refusal in self.refusals if lacks_some]


def _are_copies(stores: Sequence[ImageStore], image_paths: Sequence[str]) -> bool:
    """Whether stores have the same images, by an even sample of them: an archive and what was unpacked from it."""
    sample = image_paths[:: max(1, len(image_paths) // _SAMPLE)]
    contents = [[store.content_of(path) for path in sample] for store in stores]
    return bool(contents) and all(content == contents[0] for content in contents) and any(contents[0])


def _open(path: UPath, image_paths: Sequence[str]) -> ImageStore:
    return (ImageFolder if path.is_dir() else ImageArchive).matching(path, image_paths)


def _candidates(folder: UPath, named: UPath, image_paths: Sequence[str]) -> list[UPath]:
    """Folders of a delivery, and the archives in them; the delivery itself if the paths begin there."""
    if image_paths and (folder / image_paths[0]).is_file():
        return [folder]
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_junk(path.name)]
    folders = [*inside, named.parent] if named.parent not in inside and named.parent.is_dir() else inside
    folders = [path for path in folders if path != folder]
    return [*folders, *_archives_below(folder)]


def _archives_below(folder: UPath) -> list[UPath]:
    """Archives in a folder, however deep, those of the folder itself last."""
    names = (name for name in files_below(folder) if name.lower().endswith(".zip") and not is_junk(name))
    return [folder / name for name in sorted(names, key=lambda name: ("/" not in name, name))]


def _others_beside(archive: UPath) -> list[UPath]:
    return [path for path in _archives_below(archive.parent) if path != archive]


def _none(folder: UPath, setting: str, several: Sequence[ImageStore], refusals: Sequence[str]) -> Notice:
    without = f"there is nothing at {setting}, and nothing is known of how the images look"
    if several:
        places = " and ".join(_inside(folder, store.path) for store in several)
        return Notice(
            f"{without}: {places} have equally many of them",
            where=str(folder),
            fix="set delivery.archive to one of them",
        )
    refusals = [*refusals, *_unreadable(folder)]
    names = sorted(path.name for path in folder.iterdir() if not is_junk(path.name))
    more = ", …" if len(names) > _LISTED else ""
    listed = f"the delivery has {', '.join(names[:_LISTED])}{more}"
    return Notice(
        ". ".join([f"{without}: {listed}", *refusals]),
        where=str(folder),
        fix="copy the archive or the folder of the images there, set delivery.archive to where it is, or to null "
        "if there are none",
    )


def _unreadable(folder: UPath) -> list[str]:
    """What is said of downloads that are not whole, parts of split archives and archives of other kinds."""
    names = sorted(name for name in files_below(folder) if not is_junk(name))
    return [
        *(f"{name} is a download that is not complete" for name in names if is_unfinished(name)),
        *(f"{name} is a part of a split archive: join them" for name in names if _PART.search(name)),
        *(f"{name} is no zip archive: unpack it" for name in names if name.lower().endswith(_OTHER_ARCHIVES)),
    ][:_LISTED]


def _inside(folder: UPath, path: UPath) -> str:
    return "." if path == folder else path.path.removeprefix(folder.path).strip("/")
