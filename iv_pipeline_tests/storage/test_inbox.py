import os
import shutil
import time
from pathlib import Path

import pytest
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.storage.inbox import Batch, Rules, Watch, fingerprint_of, look

RULES = Rules(marker="_SUCCESS", settle_seconds=60, needed=frozenset({"images_paths.csv"}))


class Camera:
    """Puts files into an inbox, and looks at it as time goes by."""

    def __init__(self, inbox: Path) -> None:
        self.inbox = inbox
        self.watch = Watch()
        self.now = 1_000_000.0
        inbox.mkdir()

    def put(self, batch: str, **files: str) -> Path:
        folder = self.inbox / batch
        for name, content in files.items():
            path = folder / name.replace("__", "/").replace("_csv", ".csv").replace("_pickle", ".pickle")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        return folder

    def look(self, after: float = 0, rules: Rules = RULES) -> dict[str, Batch]:
        self.now += after
        return {b.name: b for b in look(UPath(self.inbox), self.watch, rules, now=self.now)}


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    return Camera(tmp_path / "Inbox")


def test_an_empty_inbox_has_no_batches(camera: Camera) -> None:
    assert camera.look() == {}


def test_a_batch_is_complete_once_nothing_has_changed_for_a_while(camera: Camera) -> None:
    folder = camera.put("b", images_paths_csv="paths\na.jpg\n", descriptors__x_pickle="xx")
    assert camera.look()["b"].state == "waiting"
    assert camera.look(59)["b"].why == "complete if nothing changes for another 1 s"
    found = camera.look(1)["b"]
    assert found.state == "complete"
    assert found.fingerprint == fingerprint_of(UPath(folder), "_SUCCESS")


def test_a_file_that_grows_or_comes_later_starts_the_wait_anew(camera: Camera) -> None:
    folder = camera.put("b", images_paths_csv="paths\n", descriptors__x_pickle="x")
    camera.look()
    with (folder / "descriptors" / "x.pickle").open("a") as file:
        file.write("more")
    assert camera.look(59)["b"].state == "waiting"
    camera.put("b", descriptors__y_pickle="y")
    assert camera.look(59)["b"].state == "waiting"
    assert camera.look(60)["b"].state == "complete"


def test_times_that_files_had_where_they_came_from_do_not_make_them_old(camera: Camera) -> None:
    folder = camera.put("b", images_paths_csv="paths\n")
    os.utime(folder / "images_paths.csv", (1, 1))
    assert camera.look()["b"].state == "waiting"


def test_a_marker_makes_a_batch_complete_at_once(camera: Camera) -> None:
    camera.put("b", images_paths_csv="paths\n", _SUCCESS="")
    assert camera.look()["b"].state == "complete"


@pytest.mark.parametrize("name", [".x.pickle.Ab12Cd", "x.pickle.part", "x.pickle.FILEPART", "x.pickle~"])
def test_a_file_under_the_name_of_an_unfinished_copy_is_waited_for(camera: Camera, name: str) -> None:
    folder = camera.put("b", images_paths_csv="paths\n", _SUCCESS="")
    (folder / name).write_text("half")
    assert camera.look(600)["b"] == Batch("b", "waiting", why=f"{name} is still being copied")


def test_what_file_managers_leave_is_no_part_of_a_batch(camera: Camera) -> None:
    folder = camera.put("b", images_paths_csv="paths\n", descriptors__x_pickle="x", _SUCCESS="")
    first = camera.look()
    for name in (
        ".DS_Store",
        "Thumbs.db",
        "descriptors/desktop.ini",
        "descriptors/._x.pickle",
        "__MACOSX/._x",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("left behind")
    assert camera.look(1) == first
    assert fingerprint_of(UPath(folder), "_SUCCESS") == first["b"].fingerprint


def test_a_hidden_file_that_nobody_writes_any_more_blocks_nothing(camera: Camera) -> None:
    folder = camera.put("b", images_paths_csv="paths\n", _SUCCESS="")
    first = camera.look()
    (folder / ".leftover").write_text("of a file manager that is not known here")
    assert camera.look(1)["b"].state == "waiting"
    assert camera.look(60) == first


def test_a_batch_that_never_rests_leaves_others_their_time(camera: Camera) -> None:
    camera.put("a", images_paths_csv="paths\n", one="1", two="2", _SUCCESS="")
    camera.put("b", images_paths_csv="paths\n", _SUCCESS="")

    def grow(path: UPath, _: int) -> str:
        if "a" in path.parts:
            time.sleep(0.02)
        return str(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iv_pipeline.storage.inbox._digest_block", grow)
        found = look(UPath(camera.inbox), camera.watch, RULES, budget_seconds=0.03, now=camera.now)
    assert [batch.state for batch in found] == ["waiting", "complete"]


def test_a_file_whose_name_is_in_no_encoding_is_read(camera: Camera) -> None:
    folder = camera.put("b", images_paths_csv="paths\n", _SUCCESS="")
    (folder / os.fsdecode(b"\x8a.jpg")).write_text("x")
    assert camera.look()["b"].state == "complete"


def test_a_batch_without_its_paths_is_waited_for_and_says_so(camera: Camera) -> None:
    camera.put("b", descriptors__x_pickle="x")
    camera.look()
    assert camera.look(60)["b"].why == "there is no images_paths.csv yet"


def test_content_and_not_time_makes_a_version(camera: Camera) -> None:
    folder = camera.put("b", images_paths_csv="paths\n", _SUCCESS="")
    first = camera.look()["b"].fingerprint
    shutil.rmtree(folder)
    assert camera.look() == {}
    camera.put("b", images_paths_csv="paths\n", _SUCCESS="done again")
    assert camera.look(3600)["b"].fingerprint == first
    camera.put("b", images_paths_csv="paths\nb.jpg\n")
    assert camera.look(3600)["b"].fingerprint != first


def test_a_file_under_another_name_makes_another_version(camera: Camera) -> None:
    one = camera.put("one", images_paths_csv="paths\n", x_pickle="x")
    two = camera.put("two", images_paths_csv="paths\n", y_pickle="x")
    assert fingerprint_of(UPath(one), "_SUCCESS") != fingerprint_of(UPath(two), "_SUCCESS")


def test_what_was_seen_outlives_the_process(camera: Camera, tmp_path: Path) -> None:
    camera.put("b", images_paths_csv="paths\n")
    camera.look()
    stored = UPath(tmp_path / "state" / "inbox.json")
    camera.watch.save(stored)
    camera.watch = Watch.load(stored)
    assert camera.look(60)["b"].state == "complete"


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    stored = UPath(tmp_path / "inbox.json")
    stored.write_text("{")
    assert Watch.load(stored) == Watch() == Watch.load(UPath(tmp_path / "none.json"))


def test_a_file_is_read_once_however_often_the_inbox_is_looked_at(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.put("b", images_paths_csv="paths\n", x_pickle="x", _SUCCESS="")
    first = camera.look()
    monkeypatch.setattr(
        "iv_pipeline.storage.inbox._digest_block", lambda path, _: pytest.fail(f"{path} read again")
    )
    assert camera.look(3600) == first


def test_a_large_batch_is_read_over_several_looks(camera: Camera) -> None:
    camera.put("b", images_paths_csv="paths\n", x_pickle="x", _SUCCESS="")
    (slow,) = look(UPath(camera.inbox), camera.watch, RULES, budget_seconds=-1, now=camera.now)
    assert slow.state == "waiting"
    assert "read at the next look" in slow.why
    assert camera.look()["b"].state == "complete"


@pytest.mark.parametrize("name", ["-rf", "a..b", "a\nb", "a$b", "b" * 151, os.fsdecode(b"\x8a")])
def test_a_name_that_can_be_no_partition_is_told(camera: Camera, name: str) -> None:
    camera.put(name, images_paths_csv="paths\n", _SUCCESS="")
    assert camera.look()[name].state == "unusable"


def test_names_in_other_alphabets_are_names(camera: Camera) -> None:
    camera.put("Камера 7", images_paths_csv="paths\n", _SUCCESS="")
    assert camera.look()["Камера 7"].state == "complete"


def test_hidden_folders_and_files_beside_the_batches_are_passed_over(camera: Camera) -> None:
    camera.put(".trash", images_paths_csv="paths\n")
    (camera.inbox / "read me.txt").write_text("hello")
    assert camera.look() == {}


def test_an_inbox_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        look(UPath(tmp_path / "none"), Watch(), RULES)
