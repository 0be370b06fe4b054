"""Small deliveries that reproduce what people have met in the field do what their scripts expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from iv_pipeline_tests.cases.running import FOLDER, SkippedError
from iv_pipeline_tests.cases.table import CASES, Case

if TYPE_CHECKING:
    from pathlib import Path

HAVE_CASES = (FOLDER / "make.py").exists()


def _parameters() -> list[object]:
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.is_slow else []) for case in CASES
    ]


@pytest.mark.skipif(not HAVE_CASES, reason=f"there are no deliveries in {FOLDER} (IV_CASES)")
@pytest.mark.parametrize("case", _parameters())
def test_the_delivery_is_read_or_refused_as_expected(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        outcome, objections = case.play(tmp_path / case.name)
    except SkippedError as reason:
        pytest.skip(str(reason))
    assert not objections, "\n".join([*objections, "", outcome.console[-3000:]])


@pytest.mark.skipif(not HAVE_CASES, reason=f"there are no deliveries in {FOLDER} (IV_CASES)")
def test_every_delivery_has_an_expectation() -> None:
    assert sorted(case.name for case in CASES) == sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))
