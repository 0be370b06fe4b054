import pytest

from iv_pipeline.storage.junk import is_junk, is_unfinished


@pytest.mark.parametrize(
    "path",
    [
        *("Thumbs.db", "a/b/thumbs.db", "desktop.ini", "__MACOSX/a/._1.jpg", "a/._1.jpg", "a/.DS_Store"),
        *("a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "a/ehthumbs.db", ".directory", "$RECYCLE.BIN/S-1-5/1.jpg"),
        *("System Volume Information/WPSettings.dat", ".Trash-1000/files/1.jpg", "#recycle/1.jpg"),
        *("a/.ipynb_checkpoints/1-checkpoint.jpg", "Names/~$net.xlsx", ".~lock.net.csv#"),
    ],
)
def test_what_programs_leave_behind_is_junk(path: str) -> None:
    assert is_junk(path)


@pytest.mark.parametrize(
    "path",
    [
        *("a/1.jpg", "thumbs.db.jpg", "a/_1.jpg", ".hidden/1.jpg", "_SUCCESS", "", "~/1.jpg", "a~$/1.jpg"),
        *("my desktop.ini/1.jpg", ".trash/1.jpg", "a.directory", "veriwild.zip.crdownload"),
    ],
)
def test_other_files_are_not(path: str) -> None:
    assert not is_junk(path)


def test_downloads_that_are_not_whole_are_told_by_their_names() -> None:
    assert is_unfinished("raw_data/veriwild.zip.crdownload")
    assert is_unfinished("veriwild.zip.PART")
    assert not is_unfinished("veriwild.part1.zip")
