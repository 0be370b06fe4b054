import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from iv_pipeline.errors import DeliveryError
from iv_pipeline.storage.archive import ImageArchive, normalised

IMAGES = {f"city/{i // 10}/{i:03d}.jpg": bytes([i]) * (50 + i) for i in range(60)}


def pack(path: Path, images: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> UPath:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in images.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return UPath(path)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("a\\b\\c.jpg", "a/b/c.jpg"),
        ("./a/b.jpg", "a/b.jpg"),
        (".\\.\\a.jpg", "a.jpg"),
        ("a//b/./c.jpg", "a/b/c.jpg"),
        ("a./b.jpg", "a./b.jpg"),
        ("\\\\server\\a.jpg", "/server/a.jpg"),
        ("../a.jpg", "../a.jpg"),
    ],
)
def test_paths_are_normalised(written: str, means: str) -> None:
    assert normalised(written) == means


@given(st.text(alphabet="./\\ab", max_size=12))
def test_a_normalised_path_stays_as_it_is(path: str) -> None:
    assert normalised(normalised(path)) == normalised(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_image_is_read_by_either_separator(tmp_path: Path, method: int) -> None:
    archive = ImageArchive(pack(tmp_path / "a.zip", {"city/": b"", **IMAGES}, method))
    assert len(archive) == len(IMAGES)
    assert archive.read("city\\0\\003.jpg") == archive.read("./city/0/003.jpg") == IMAGES["city/0/003.jpg"]


def test_entries_with_windows_separators_are_found(tmp_path: Path) -> None:
    archive = ImageArchive(pack(tmp_path / "a.zip", {".\\city\\0.jpg": b"x"}))
    assert archive.read("city/0.jpg") == b"x"


@pytest.mark.parametrize(("drop", "add"), [("", ""), ("", "export/"), ("city/", ""), ("city/", "export/")])
def test_an_archive_packed_a_folder_deeper_or_shallower_is_matched(
    tmp_path: Path, drop: str, add: str
) -> None:
    packed = {add + name.removeprefix(drop): content for name, content in IMAGES.items()}
    archive = ImageArchive.matching(pack(tmp_path / "a.zip", packed), list(IMAGES))
    assert (archive.drop, archive.add) == (drop, add)
    assert {name: archive.read(name) for name in IMAGES} == IMAGES
    assert archive.missing(IMAGES) == []


def test_paths_of_different_folders_never_share_an_entry(tmp_path: Path) -> None:
    archive = ImageArchive.matching(pack(tmp_path / "a.zip", {"1.jpg": b"x"}), ["a/1.jpg", "b/1.jpg"])
    assert archive.missing(["a/1.jpg", "b/1.jpg"]) == ["a/1.jpg", "b/1.jpg"]


def test_an_entry_at_another_depth_does_not_stand_in_for_a_missing_image(tmp_path: Path) -> None:
    packed = {**IMAGES, "new.jpg": b"x"}
    archive = ImageArchive.matching(pack(tmp_path / "a.zip", packed), [*IMAGES, "city/new.jpg"])
    assert archive.missing(["city/new.jpg"]) == ["city/new.jpg"]


def test_a_missing_image_is_listed_and_refused_by_name(tmp_path: Path) -> None:
    archive = ImageArchive(pack(tmp_path / "a.zip", IMAGES))
    assert archive.missing(["city/9.jpg", "city/0/000.jpg", "x.jpg"]) == ["city/9.jpg", "x.jpg"]
    with pytest.raises(DeliveryError, match=r"a\.zip has no image x\.jpg"):
        archive.read("x.jpg")


def test_threads_read_what_one_thread_reads(tmp_path: Path) -> None:
    archive = ImageArchive(pack(tmp_path / "a.zip", IMAGES, zipfile.ZIP_DEFLATED))
    names = list(IMAGES) * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(archive.read, names)) == [IMAGES[name] for name in names]


def test_a_pickled_archive_reads_the_same(tmp_path: Path) -> None:
    packed = {f"export/{name}": content for name, content in IMAGES.items()}
    archive = ImageArchive.matching(pack(tmp_path / "a.zip", packed), list(IMAGES))
    again = pickle.loads(pickle.dumps(archive))
    assert again.read("city/0/003.jpg") == IMAGES["city/0/003.jpg"]


def test_an_archive_is_opened_once_in_a_process_until_it_is_replaced(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", IMAGES)
    sent = pickle.dumps(ImageArchive(path))
    assert pickle.loads(sent) is pickle.loads(sent)
    pack(path, {"new.jpg": b"new"})
    assert pickle.loads(pickle.dumps(ImageArchive(path))).read("new.jpg") == b"new"


def test_a_remote_archive_is_read_in_place(tmp_path: Path) -> None:
    remote = UPath("memory://archives/a.zip")
    remote.write_bytes(pack(tmp_path / "a.zip", IMAGES).read_bytes())
    assert ImageArchive(remote).read("city/0/003.jpg") == IMAGES["city/0/003.jpg"]


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", IMAGES)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DeliveryError, match=r"a\.zip is no whole zip archive .*: copy it again"):
        ImageArchive(path)


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"there is no archive .*a\.zip"):
        ImageArchive(UPath(tmp_path / "a.zip"))


def test_an_entry_with_a_wrong_checksum_is_refused_by_name_and_others_are_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", IMAGES)
    path.write_bytes(path.read_bytes().replace(IMAGES["city/0/003.jpg"], b"?" * 53))
    archive = ImageArchive(path)
    with pytest.raises(DeliveryError, match=r"a\.zip: city/0/003\.jpg is damaged \(Bad CRC-32"):
        archive.read("city/0/003.jpg")
    assert archive.read("city/0/004.jpg") == IMAGES["city/0/004.jpg"]
    assert archive.glimpse("city/0/004.jpg") == IMAGES["city/0/004.jpg"]
    assert archive.glimpse("city/0/003.jpg") == b""  # a picture beside other things; nobody is refused for it
    assert archive.glimpse("city/0/none.jpg") is None


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"1.jpg": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DeliveryError, match=r"1\.jpg is encrypted"):
        ImageArchive(path).read("1.jpg")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_archive_yields_the_image_or_a_delivery_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    images = {"a/1.jpg": b"one" * 9, "a/2.jpg": b"two" * 9}
    path = pack(tmp_path_factory.getbasetemp() / "damaged.zip", images, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        assert ImageArchive(path).read("a/1.jpg") in images.values()
    except DeliveryError as error:
        sentence = str(error)
        assert "damaged.zip" in sentence
