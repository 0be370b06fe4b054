import os
from pathlib import Path

import pytest

from iv_pipeline import compiled


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation, a home and a data root of which nothing but the last can be written to."""
    monkeypatch.setenv(compiled.VARIABLE, "")
    monkeypatch.setenv("IV_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nohome/.cache")
    monkeypatch.setattr(compiled, "COMPILED_PACKAGES", ("proc",))
    monkeypatch.setattr(compiled, "_beside_sources", lambda: False)
    return tmp_path


def test_compiled_code_goes_to_the_data_root_where_nothing_else_can_be_written(read_only: Path) -> None:
    compiled.choose_cache()
    assert os.environ[compiled.VARIABLE] == str(read_only / "root" / ".numba")
    assert not (read_only / "root").exists()  # numba makes it when it has something to keep


def test_a_home_that_can_be_written_is_left_to_numba(
    read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only / "cache"))
    compiled.choose_cache()
    assert os.environ[compiled.VARIABLE] == ""


def test_what_a_person_has_set_stays(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.VARIABLE, str(read_only))
    compiled.choose_cache()
    assert os.environ[compiled.VARIABLE] == str(read_only)


@pytest.mark.usefixtures("read_only")
def test_without_any_place_the_temporary_folder_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IV_DATA_ROOT", "/proc/data")
    compiled.choose_cache()
    assert "iv_pipeline-numba-" in os.environ[compiled.VARIABLE]
