from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from upath import UPath

from iv_pipeline.errors import DeliveryError
from iv_pipeline.storage.finding import FoundImages, find_images
from iv_pipeline_tests.storage.test_folder import IMAGES, lay_out, pack

if TYPE_CHECKING:
    from pathlib import Path

SETTING = "raw_data/veriwild.zip"


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    folder = tmp_path / "delivery"
    (folder / "descriptors").mkdir(parents=True)
    (folder / "descriptors" / "net.pickle").write_bytes(b"x")
    (folder / "raw_data").mkdir()
    return folder


def find(delivery: Path, setting: str = SETTING) -> FoundImages:
    return find_images(UPath(delivery), setting, list(IMAGES))


def said(found: FoundImages) -> str:
    return " ".join(str(notice) for notice in found.notices)


def test_what_the_configuration_names_is_read_archive_or_folder(delivery: Path) -> None:
    pack(delivery / SETTING, IMAGES)
    lay_out(delivery / "photos", IMAGES)
    for setting in (SETTING, "photos"):
        found = find(delivery, setting)
        assert found.store is not None
        assert found.store.path == UPath(delivery / setting)
        assert found.notices == []


@pytest.mark.parametrize(
    "place",
    [
        "raw_data",
        "raw_data/veriwild",
        "row_data",
        "row_data/veriwild.zip",
        "raw_data/photos.zip",
        "images/some/where",
        "veriwild.ZIP",
        "",
    ],
)
def test_images_that_lie_elsewhere_are_found_and_it_is_said(delivery: Path, place: str) -> None:
    (delivery / place).parent.mkdir(parents=True, exist_ok=True)
    (pack if place.lower().endswith("zip") else lay_out)(delivery / place, IMAGES)
    found = find(delivery)
    assert found.store is not None
    assert {name: found.store.read(name) for name in IMAGES} == IMAGES
    assert f"there is nothing at {SETTING}, so the images are read from" in said(found)
    assert "; set delivery.archive to " in said(found)


def test_of_several_the_one_that_has_most_of_the_images_is_read(delivery: Path) -> None:
    pack(delivery / "raw_data" / "some.zip", dict(list(IMAGES.items())[:10]))
    pack(delivery / "raw_data" / "all.zip", IMAGES)
    pack(delivery / "raw_data" / "other.zip", {"a.txt": b"x"})
    found = find(delivery)
    assert found.store is not None
    assert found.store.path.name == "all.zip"


def test_two_that_have_equally_many_are_named_and_neither_is_read(delivery: Path) -> None:
    pack(delivery / "raw_data" / "a.zip", IMAGES)
    pack(delivery / "raw_data" / "b.zip", {name: content[::-1] + b"x" for name, content in IMAGES.items()})
    found = find(delivery)
    assert found.store is None
    assert "raw_data/a.zip and raw_data/b.zip have equally many of them; set delivery.archive" in said(found)


def test_an_archive_beside_what_was_unpacked_from_it_is_no_riddle(delivery: Path) -> None:
    pack(delivery / "raw_data" / "photos.zip", IMAGES)
    lay_out(delivery / "raw_data" / "photos", IMAGES)
    found = find(delivery)
    assert found.store is not None
    assert found.store.missing(IMAGES) == []


def test_where_there_are_no_images_it_is_said_what_is_there(delivery: Path) -> None:
    (delivery / "raw_data" / "veriwild2.zip").write_bytes(b"Rar!" + bytes(99))
    (delivery / "Thumbs.db").write_bytes(b"x")
    pack(delivery / "raw_data" / "tools.zip", {"setup.exe": b"x"})
    found = find(delivery)
    assert found.store is None
    assert "the delivery has descriptors, raw_data." in said(found)
    assert "veriwild2.zip: this is a RAR archive" in said(found)
    assert "raw_data/tools.zip has none of the images" in said(found)
    assert "or to null if there are none" in said(found)


def test_an_archive_that_is_named_and_damaged_is_refused(delivery: Path) -> None:
    pack(delivery / SETTING, IMAGES)
    (delivery / SETTING).write_bytes((delivery / SETTING).read_bytes()[:-30])
    lay_out(delivery / "photos", IMAGES)
    with pytest.raises(DeliveryError, match="no whole zip archive"):
        find(delivery)
