from __future__ import annotations

import io
import pickle
import zipfile
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


def test_an_archive_deep_in_the_delivery_is_found(delivery: Path) -> None:
    deep = delivery / "raw_data" / "from camera" / "2024" / "photos.zip"
    deep.parent.mkdir(parents=True)
    pack(deep, IMAGES)
    found = find(delivery)
    assert found.store is not None
    assert found.store.missing(list(IMAGES)) == []
    assert "read from raw_data/from camera/2024/photos.zip" in said(found)


def halves() -> list[dict[str, bytes]]:
    return [dict(list(IMAGES.items())[i::2]) for i in range(2)]


@pytest.mark.parametrize("setting", [SETTING, "raw_data", "raw_data/veriwild-20240101T000000Z-001.zip"])
def test_archives_that_hold_the_images_together_are_read_as_one(delivery: Path, setting: str) -> None:
    for i, half in enumerate(halves(), 1):
        packed = {f"Takeout/Drive/{name}": content for name, content in half.items()}
        pack(delivery / "raw_data" / f"veriwild-20240101T000000Z-00{i}.zip", packed)
    pack(delivery / "raw_data" / "papers.zip", {"contract.txt": b"x"})
    found = find(delivery, setting)
    assert found.store is not None
    assert {name: found.store.read(name) for name in IMAGES} == IMAGES
    assert "the images are read from 2 places: raw_data/veriwild-20240101T000000Z-001.zip, raw_data/" in said(
        found
    )
    again = pickle.loads(pickle.dumps(found.store))
    assert {name: again.read(name) for name in IMAGES} == IMAGES


def test_an_archive_and_a_folder_can_hold_them_together(delivery: Path) -> None:
    first, second = halves()
    pack(delivery / "part1.zip", first)
    lay_out(delivery / "part2", second)
    found = find(delivery)
    assert found.store is not None
    assert {name: found.store.read(name) for name in IMAGES} == IMAGES
    sink = io.BytesIO()
    found.store.pack(list(IMAGES), sink)
    with zipfile.ZipFile(sink) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == IMAGES


def test_of_images_in_several_archives_the_closest_name_counts_and_other_content_is_told(
    delivery: Path,
) -> None:
    paths = list(IMAGES)
    first = dict.fromkeys(paths[:6], b"first") | {f"old/{paths[6]}": b"old"}
    pack(delivery / "a.zip", first)
    pack(delivery / "b.zip", dict.fromkeys(paths[5:], b"second"))
    found = find(delivery)
    assert found.store is not None
    assert found.store.read(paths[5]) == b"first"
    assert found.store.read(paths[6]) == b"second"
    assert f"1 images are there more than once with other content: {paths[5]} is read from a.zip" in said(
        found
    )


def test_a_part_that_cannot_be_opened_is_told_if_images_are_missing(delivery: Path) -> None:
    first, second = halves()
    pack(delivery / "part1.zip", first)
    whole = pack(delivery / "part2.zip", second).read_bytes()
    (delivery / "part2.zip").write_bytes(whole[: len(whole) // 2])
    found = find(delivery)
    assert found.store is not None
    assert "part2.zip: this is no whole zip archive" in said(found)


@pytest.mark.parametrize("name", ["veriwild.zip.crdownload", "veriwild.zip.part"])
def test_a_download_that_is_not_complete_is_named(delivery: Path, name: str) -> None:
    (delivery / "raw_data" / name).write_bytes(b"PK")
    assert f"raw_data/{name} is a download that is not complete" in said(find(delivery))


def test_an_archive_of_other_images_gives_way_to_the_one_beside_it(delivery: Path) -> None:
    pack(delivery / SETTING, {"holiday/beach.jpg": b"x"})
    pack(delivery / "raw_data" / "photos.zip", IMAGES)
    found = find(delivery)
    assert found.store is not None
    assert found.store.path.name == "photos.zip"
    assert f"{SETTING} has 0 of {len(IMAGES)} images, so they are read from raw_data/photos.zip" in said(
        found
    )


def test_an_archive_of_another_kind_is_named(delivery: Path) -> None:
    (delivery / "raw_data" / "veriwild.tar.gz").write_bytes(b"\x1f\x8b")
    assert "raw_data/veriwild.tar.gz is no zip archive: unpack it" in said(find(delivery))


def test_suffixes_for_jpeg_are_one(delivery: Path) -> None:
    pack(delivery / SETTING, {name.replace(".jpg", ".jpeg"): content for name, content in IMAGES.items()})
    found = find(delivery)
    assert found.store is not None
    assert {name: found.store.read(name) for name in IMAGES} == IMAGES
    assert "30 in other letter case, Unicode composition or suffix" in said(found)


def test_an_archive_that_shares_names_alone_is_no_part(delivery: Path) -> None:
    first, second = halves()
    pack(delivery / SETTING, first)
    pack(delivery / "raw_data" / "holiday.zip", {f"beach/{next(iter(second)).rpartition('/')[2]}": b"sea"})
    found = find(delivery)
    assert found.store is not None
    assert found.store.missing(list(IMAGES)) == list(second)
    assert "places" not in said(found)
