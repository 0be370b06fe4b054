"""Where the images of a delivery are: where the configuration says, or else beside that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iv_pipeline.errors import DeliveryError, Notice
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.folder import ImageFolder
from iv_pipeline.storage.junk import is_junk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upath import UPath

    from iv_pipeline.storage.image_store import ImageStore

_LISTED = 10
_SAMPLE = 100


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
    """Open the archive or folder that a delivery's images are in.

    If there is nothing where `setting` says, archives and folders in the delivery are tried: the one that has most
    of the images is read, or any of those that have equally many if they are copies.

    Parameters
    ----------
    folder
        The delivery.
    setting
        Archive or folder, relative to `folder`.
    image_paths
        Normalised.

    Raises
    ------
    DeliveryError
        If what `setting` names cannot be read at all.
    """
    named = folder / setting
    if named.exists():
        store = _open(named, image_paths)
        return FoundImages(store, store.notices)
    n_found, refusals = {}, []
    for path in _candidates(folder, named, image_paths):
        try:
            store = _open(path, image_paths)
        except DeliveryError as error:
            refusals.append(str(error))
            continue
        n_found[store] = len(image_paths) - len(store.missing(image_paths))
        if not n_found[store] and isinstance(store, ImageArchive):
            refusals.append(f"{_inside(folder, path)} has none of the images")
    most = max(n_found.values(), default=0)
    best = [store for store, n in n_found.items() if n == most > 0]
    if len(best) == 1 or _are_copies(best, image_paths):
        return FoundImages(best[0], [_elsewhere(folder, setting, best[0]), *best[0].notices])
    return FoundImages(None, [_none(folder, setting, best, refusals)])


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
    return [*folders, *(archive for place in [*folders, folder] for archive in _archives(place))]


def _archives(folder: UPath) -> list[UPath]:
    files = (path for path in sorted(folder.iterdir()) if path.name.lower().endswith(".zip"))
    return [path for path in files if path.is_file() and not is_junk(path.name)]


def _elsewhere(folder: UPath, setting: str, store: ImageStore) -> Notice:
    place = _inside(folder, store.path)
    return Notice(
        f"there is nothing at {setting}, so the images are read from {place}",
        where=str(folder),
        fix=f"set delivery.archive to {place} to have this no longer said",
    )


def _none(folder: UPath, setting: str, several: Sequence[ImageStore], refusals: Sequence[str]) -> Notice:
    without = f"there is nothing at {setting}, and nothing is known of how the images look"
    if several:
        places = " and ".join(_inside(folder, store.path) for store in several)
        return Notice(
            f"{without}: {places} have equally many of them",
            where=str(folder),
            fix="set delivery.archive to one of them",
        )
    names = sorted(path.name for path in folder.iterdir() if not is_junk(path.name))
    more = ", …" if len(names) > _LISTED else ""
    listed = f"the delivery has {', '.join(names[:_LISTED])}{more}"
    return Notice(
        ". ".join([f"{without}: {listed}", *refusals]),
        where=str(folder),
        fix="copy the archive or the folder of the images there, set delivery.archive to where it is, or to null "
        "if there are none",
    )


def _inside(folder: UPath, path: UPath) -> str:
    return "." if path == folder else path.path.removeprefix(folder.path).strip("/")
