import pytest

from iv_pipeline.storage.junk import is_junk


@pytest.mark.parametrize(
    "path",
    ["Thumbs.db", "a/b/thumbs.db", "desktop.ini", "__MACOSX/a/._1.jpg", "a/._1.jpg", "a/.DS_Store"],
)
def test_what_file_managers_leave_behind_is_junk(path: str) -> None:
    assert is_junk(path)


@pytest.mark.parametrize("path", ["a/1.jpg", "thumbs.db.jpg", "a/_1.jpg", ".hidden/1.jpg", "_SUCCESS", ""])
def test_other_files_are_not(path: str) -> None:
    assert not is_junk(path)
