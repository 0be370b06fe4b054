from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING

import pytest
from upath import UPath

from iv_pipeline.errors import DeliveryError, PictureError
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.folder import ImageFolder

if TYPE_CHECKING:
    from pathlib import Path

    from iv_pipeline.storage.image_store import ImageStore

IMAGES = {f"city/{i // 10}/{i:03d}.jpg": bytes([i]) * (50 + i) for i in range(30)}


def lay_out(folder: Path, images: dict[str, bytes]) -> UPath:
    for name, content in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return UPath(folder)


def pack(path: Path, images: dict[str, bytes]) -> UPath:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in images.items():
            archive.writestr(name, content)
    return UPath(path)


def test_a_folder_says_what_an_archive_of_it_says(tmp_path: Path) -> None:
    images = {f"export/{name}": content for name, content in IMAGES.items()}
    stores: list[ImageStore] = [
        ImageFolder.matching(lay_out(tmp_path / "images", images), list(IMAGES)),
        ImageArchive.matching(pack(tmp_path / "images.zip", images), list(IMAGES)),
    ]
    for store in stores:
        assert len(store) == len(IMAGES)
        assert {name: store.read(name) for name in IMAGES} == IMAGES
        assert store.missing([*IMAGES, "x.jpg"]) == ["x.jpg"]
        assert store.glimpse("x.jpg") is None
        assert store.read("city\\0\\003.jpg") == IMAGES["city/0/003.jpg"]
        with pytest.raises(PictureError, match=r"x\.jpg: not in the archive"):
            store.read("x.jpg")
    assert [stores[0].content_of(name) for name in IMAGES] == [stores[1].content_of(name) for name in IMAGES]
    assert stores[0].notices[0].what == stores[1].notices[0].what


def test_leftovers_of_file_managers_are_no_images(tmp_path: Path) -> None:
    junk = {"Thumbs.db": b"x", "city/.DS_Store": b"x", "__MACOSX/city/._1.jpg": b"x"}
    assert len(ImageFolder(lay_out(tmp_path / "images", {**IMAGES, **junk}))) == len(IMAGES)


def test_links_to_folders_are_followed_and_circles_left(tmp_path: Path) -> None:
    lay_out(tmp_path / "disk", IMAGES)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "photos").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "again").symlink_to(tmp_path / "disk")
    folder = ImageFolder.matching(UPath(tmp_path / "images"), list(IMAGES))
    assert len(folder) == len(IMAGES)
    assert folder.missing(IMAGES) == []


def test_a_file_that_cannot_be_opened_is_said_so(tmp_path: Path) -> None:
    folder = ImageFolder(lay_out(tmp_path / "images", IMAGES))
    (tmp_path / "images" / "city" / "0" / "003.jpg").unlink()
    with pytest.raises(PictureError, match=r"003\.jpg: the file cannot be opened; give this user"):
        folder.read("city/0/003.jpg")
    assert folder.content_of("city/0/003.jpg") is None
    assert folder.glimpse("city/0/003.jpg") == b""


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"none: the folder of images cannot be listed"):
        ImageFolder(UPath(tmp_path / "none"))


def test_a_pickled_folder_reads_the_same(tmp_path: Path) -> None:
    images = {f"export/{name}": content for name, content in IMAGES.items()}
    folder = ImageFolder.matching(lay_out(tmp_path / "images", images), list(IMAGES))
    again = pickle.loads(pickle.dumps(folder))
    assert again.read("city/0/003.jpg") == IMAGES["city/0/003.jpg"]


def test_a_remote_folder_is_read_in_place() -> None:
    remote = UPath("memory://photos/images")
    for name, content in IMAGES.items():
        (remote / name).parent.mkdir(parents=True, exist_ok=True)
        (remote / name).write_bytes(content)
    folder = ImageFolder(remote)
    assert {name: folder.read(name) for name in IMAGES} == IMAGES


def test_a_packed_folder_is_an_archive_of_the_listed_images(tmp_path: Path) -> None:
    images = {f"export/{name}": content for name, content in IMAGES.items()} | {"export/other.jpg": b"x"}
    folder = ImageFolder.matching(lay_out(tmp_path / "images", images), list(IMAGES))
    with (tmp_path / "packed.zip").open("wb") as sink:
        folder.pack([*IMAGES, "city/none.jpg"], sink)
    archive = ImageArchive(UPath(tmp_path / "packed.zip"))
    assert {name: archive.read(name) for name in IMAGES} == IMAGES
    assert len(archive) == len(IMAGES)
