"""The report as people see it: in a browser."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from iv_pipeline.assets.final import given_names
from iv_pipeline.report.page import render_report
from iv_pipeline_tests.report.test_page import HOSTILE, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from iv_pipeline.report.page import ReportData
    from iv_pipeline_tests.conftest import Pipeline, Visit

pytestmark = pytest.mark.browser


@pytest.fixture
def read(tmp_path: Path, browse: Callable[..., Visit]) -> Callable[..., Visit]:
    """Opens the report of some data."""

    def read(data: ReportData, **options: object) -> Visit:
        file = tmp_path / "index.html"
        file.write_text(render_report(data), encoding="utf-8")
        visit = browse(**options)
        visit.page.goto(file.as_uri())
        return visit

    return read


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1400])
def test_the_page_opens_without_complaint_and_fits_its_window(
    width: int, color_scheme: str, read: Callable[..., Visit], tmp_path: Path
) -> None:
    visit = read(make(), viewport={"width": width, "height": 900}, color_scheme=color_scheme)
    for section in ("verdict", "summary", "descriptor-1", "descriptor-2", "outliers", "agreement", "quality"):
        assert visit.page.locator(f"#{section}").is_visible(), section
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter((i) => i.complete && !i.naturalWidth && i.offsetParent).length"
    assert visit.page.evaluate(broken) == 0
    visit.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert visit.errors == []


def test_names_that_are_typed_come_back_from_the_file_that_is_saved(
    read: Callable[..., Visit], make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline()
    visit = read(
        dataclasses.replace(make(descriptors=("vdc_type", "b")), names={"vdc_type": {2: "van", 9: "gone"}})
    )
    page = visit.page
    typed = f'{HOSTILE}, "quoted", \u0430\u0432\u0442\u043e\u0431\u0443\u0441'
    section = page.locator("#descriptor-1")
    section.get_by_label("Name of cluster 0").fill(typed)
    section.get_by_label("Name of cluster 3").fill("  bike  ")
    section.get_by_label("Name of cluster 2").fill("")
    assert section.locator("#descriptor-1-cluster-0 .given").inner_text() == typed
    assert section.locator("#descriptor-1-cluster-2 .given").inner_text() == "van"  # as it was proposed
    assert section.get_by_role("status").inner_text() == "3 clusters have a name, not saved yet."
    with page.expect_download() as download:
        section.get_by_role("button", name="Save the names of vdc_type").click()
    assert download.value.suggested_filename == "vdc_type.csv"
    names = pipeline.root / "Names" / "vdc_type.csv"
    download.value.save_as(names)
    assert given_names(pipeline.settings, "vdc_type") == {0: typed, 3: "bike", 9: "gone"}
    assert section.get_by_role("status").inner_text() == "3 clusters have a name."
    assert visit.errors == []


def test_hostile_paths_names_and_reasons_run_nothing(read: Callable[..., Visit]) -> None:
    data = make(descriptors=(HOSTILE, "b"), names=(HOSTILE, "x"), paths=[f"{HOSTILE}/{i}" for i in range(9)])
    data.outliers["reasons"] = HOSTILE
    crossings = pd.DataFrame({"first": [HOSTILE], "cluster": 0, "second": "b", "other_cluster": 0})
    crossings = crossings.assign(images=5, share=1.0)
    asked: list[str] = []
    visit = read(make())
    visit.page.on("dialog", lambda dialog: asked.append(dialog.message))
    visit.page.set_content(
        render_report(dataclasses.replace(data, crossings=crossings, names={"b": {0: HOSTILE, 7: HOSTILE}}))
    )
    section = visit.page.locator("#descriptor-2")
    assert section.get_by_label("Name of cluster 0").input_value() == HOSTILE
    section.locator(".clusters > summary").click()
    section.get_by_label("Name of cluster 1").fill(HOSTILE)
    assert section.get_by_role("status").inner_text() == "3 clusters have a name, not saved yet."
    assert asked == visit.errors == []
