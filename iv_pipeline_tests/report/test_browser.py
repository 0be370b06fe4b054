"""The report as people see it: in a browser."""

from __future__ import annotations

import dataclasses
import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iv_pipeline.report import maps
from iv_pipeline.report.page import render_report
from iv_pipeline.report.plots import cluster_color
from iv_pipeline.storage.answers import given_names
from iv_pipeline_tests.report.test_page import HOSTILE, Archive, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from playwright.sync_api import Locator

    from iv_pipeline.report.page import ReportData
    from iv_pipeline_tests.conftest import Pipeline, Visit

pytestmark = pytest.mark.browser


@pytest.fixture
def read(tmp_path: Path, browse: Callable[..., Visit]) -> Callable[..., Visit]:
    """Opens the report of some data."""

    def read(data: ReportData | str, without: str = "", **options: object) -> Visit:
        file = tmp_path / "index.html"
        html = data if isinstance(data, str) else render_report(data)
        file.write_text(html, encoding="utf-8")
        visit = browse(**options)
        if without:
            visit.page.add_init_script(
                "const asked = HTMLCanvasElement.prototype.getContext;"
                f"HTMLCanvasElement.prototype.getContext = function (kind, ...more) {{"
                f" return kind === '{without}' ? null : asked.call(this, kind, ...more); }};"
            )
        visit.page.goto(file.as_uri())
        return visit

    return read


@cache
def whole_page() -> str:
    return render_report(make())


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1400])
def test_the_page_opens_without_complaint_and_fits_its_window(
    width: int, color_scheme: str, read: Callable[..., Visit], tmp_path: Path
) -> None:
    visit = read(whole_page(), viewport={"width": width, "height": 900}, color_scheme=color_scheme)
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
    assert given_names(pipeline.settings.data_root, "vdc_type") == {0: typed, 3: "bike", 9: "gone"}
    assert section.get_by_role("status").inner_text() == "3 clusters have a name."
    assert visit.errors == []


def test_hostile_paths_names_and_reasons_run_nothing(read: Callable[..., Visit]) -> None:
    data = make(descriptors=(HOSTILE, "b"), names=(HOSTILE, "x"), paths=[f"{HOSTILE}/{i}" for i in range(9)])
    data.outliers["reasons"] = HOSTILE
    crossings = pd.DataFrame({"first": [HOSTILE], "cluster": 0, "second": "b", "other_cluster": 0})
    crossings = crossings.assign(images=5, share=1.0)
    data.images["label"] = data.images["label"].astype(object).where(data.images.index > 3, HOSTILE)
    visit = read(dataclasses.replace(data, crossings=crossings, names={"b": {0: HOSTILE, 7: HOSTILE}}))
    section = visit.page.locator("#descriptor-2")
    assert section.get_by_label("Name of cluster 0").input_value() == HOSTILE
    section.locator(".clusters > summary").click()
    section.get_by_label("Name of cluster 1").fill(HOSTILE)
    assert section.get_by_role("status").inner_text() == "3 clusters have a name, not saved yet."
    figure = section.locator("figure.map")
    for by in ("cluster", "name", "label"):
        figure.get_by_label("Color").select_option(by)
        hover(visit, figure, 0)
        assert figure.locator(".tip-path").inner_text() == f"{HOSTILE}/0"
        assert figure.locator(".tip-name").inner_text() == f"0 {HOSTILE}"
        assert figure.locator(".tip-labels").inner_text() == f"label {HOSTILE}"
        assert HOSTILE in figure.locator(".legend").inner_text()
    assert visit.asked == visit.errors == []


def hover(visit: Visit, figure: Locator, point: int) -> None:
    """Move the pointer to where the map draws a point."""
    figure.scroll_into_view_if_needed()
    visit.page.wait_for_selector(f"#{figure.get_attribute('data-section')} figure.map.open")
    x, y = figure.evaluate(
        """(figure, point) => {
            const box = figure.pointMap.stage.getBoundingClientRect();
            const [x, y] = figure.pointMap.placeOnScreen(point);
            return [box.left + x, box.top + y];
        }""",
        point,
    )
    visit.page.mouse.move(x + 40, y + 40)
    visit.page.mouse.move(x, y)
    figure.locator(".tip").wait_for()


def sparse(**options: Any) -> ReportData:
    """Few images that lie apart, so that none covers another, each of one color."""
    n = 12
    colors = [(20 * i, 255 - 20 * i, 128) for i in range(n)]
    data = make(paths=[f"1/{i:05}.jpg" for i in range(n)], **options)
    place = np.arange(n)
    for frame in data.projection.values():
        frame[["x2", "y2"]] = np.column_stack([place % 4, place // 4])
        frame[["x3", "y3", "z3"]] = np.column_stack([place % 4, place // 4, place % 3])
    images = {path: picture_of(color) for path, color in zip(data.images["image_path"], colors, strict=True)}
    return dataclasses.replace(data, archive=Archive(images))  # type: ignore[arg-type]


@cache
def sparse_page() -> str:
    return render_report(sparse())


def picture_of(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 72), color).save(buffer, "PNG")
    return buffer.getvalue()


def shown_color(figure: Locator) -> tuple[int, int, int]:
    """What the picture beside the pointer shows in its middle, once it has been drawn."""
    pixel = figure.evaluate(
        """async (figure) => {
            const canvas = figure.querySelector(".tip canvas");
            for (let i = 0; i < 50; i++) {
                const [r, g, b, a] = canvas.getContext("2d").getImageData(96, 72, 1, 1).data;
                if (a) return [r, g, b];
                await new Promise((resolve) => setTimeout(resolve, 20));
            }
        }"""
    )
    return tuple(pixel)


@pytest.mark.parametrize("solid", [False, True])
def test_hovering_a_point_shows_its_image_and_what_is_known_of_it(
    solid: bool, read: Callable[..., Visit]
) -> None:
    visit = read(sparse_page())
    figure = visit.page.locator("#descriptor-1 figure.map")
    if solid:
        figure.get_by_text("3-D").click()
    for point in (0, 7):
        hover(visit, figure, point)
        assert figure.locator(".tip-path").inner_text() == f"1/{point:05}.jpg"
    assert figure.locator(".tip-name").inner_text() == "3 bike"
    assert figure.locator(".tip-labels").inner_text() == "label bike"
    assert figure.locator(".tip-score").inner_text() == "outlier score 0.50"
    visit.page.wait_for_timeout(200)
    assert np.abs(np.subtract(shown_color(figure), (140, 115, 128))).max() < 12
    hover(visit, figure, 1)
    assert figure.locator(".tip-score").inner_text() == "outlier score 0.50, flagged"
    assert visit.errors == []


def test_a_point_is_drawn_where_the_pointer_finds_it_in_the_color_of_its_cluster(
    read: Callable[..., Visit],
) -> None:
    visit = read(sparse_page())
    figure = visit.page.locator("#descriptor-1 figure.map")
    for _ in range(2):
        hover(visit, figure, 1)  # the number of its cluster stands elsewhere
        x, y = figure.evaluate("(figure) => figure.pointMap.placeOnScreen(1)")[:2]
        visit.page.mouse.move(0, 0)
        visit.page.wait_for_timeout(300)
        seen = Image.open(io.BytesIO(figure.locator(".stage").screenshot())).convert("RGB")
        drawn = {seen.getpixel((round(x) + dx, round(y) + dy)) for dx in (-2, 0, 2) for dy in (-2, 0, 2)}
        wanted = tuple(bytes.fromhex(cluster_color(1)[1:]))
        assert min(np.abs(np.subtract(color, wanted)).max() for color in drawn) < 60
        figure.get_by_text("3-D").click()
    assert visit.errors == []


def test_a_solid_map_turns_when_it_is_dragged(read: Callable[..., Visit]) -> None:
    visit = read(sparse_page())
    figure = visit.page.locator("#descriptor-1 figure.map")
    figure.get_by_text("3-D").click()
    hover(visit, figure, 5)
    where = "(figure) => figure.pointMap.placeOnScreen(5)"
    before = figure.evaluate(where)
    box = figure.locator(".stage").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 120, y + 30, steps=4)
    visit.page.mouse.up()
    visit.page.wait_for_timeout(500)
    assert np.hypot(*np.subtract(figure.evaluate(where), before)[:2]) > 10
    assert visit.errors == []


@pytest.mark.parametrize("solid", [False, True])
def test_a_map_is_moved_and_enlarged_by_keys_and_by_the_wheel_once_it_has_the_focus(
    solid: bool, read: Callable[..., Visit]
) -> None:
    visit = read(sparse_page())
    page = visit.page
    figure = page.locator("#descriptor-1 figure.map")
    if solid:
        figure.get_by_text("3-D").click()
    hover(visit, figure, 0)
    drawn = figure.get_by_role("application", name="Map of type")

    def places() -> NDArray[np.float64]:
        page.wait_for_timeout(700)  # moves are smooth
        points = "(f) => [0, 11].map((i) => f.pointMap.placeOnScreen(i).slice(0, 2))"
        return np.array(figure.evaluate(points))

    before = places()
    scrolled = page.evaluate("scrollY")
    page.mouse.wheel(0, 40)  # without focus the page scrolls
    np.testing.assert_allclose(places(), before)
    assert page.evaluate("scrollY") != scrolled
    drawn.focus()
    drawn.press("ArrowRight")
    moved = places()
    assert np.abs(moved - before).max() > 5
    drawn.press("=")
    enlarged = places()
    assert np.hypot(*np.ptp(enlarged, axis=0)) > 1.2 * np.hypot(*np.ptp(moved, axis=0))
    drawn.hover()
    page.wait_for_timeout(500)
    scrolled = page.evaluate("scrollY")
    page.mouse.wheel(0, 300)
    assert np.hypot(*np.ptp(places(), axis=0)) < 0.95 * np.hypot(*np.ptp(enlarged, axis=0))
    assert page.evaluate("scrollY") == scrolled
    assert visit.errors == []


def test_colors_follow_clusters_names_scores_and_labels_and_the_legend_shows_one_group(
    read: Callable[..., Visit],
) -> None:
    visit = read(sparse(names=("bus", "van", "bus", "bike")))
    section = visit.page.locator("#descriptor-1")
    figure = section.locator("figure.map")
    hover(visit, figure, 0)
    groups = {
        "cluster": ["0 bus 3", "1 van 3", "2 bus 3", "3 bike 3"],
        "name": ["bus 6", "van 3", "bike 3"],
        "label": ["bus 6", "bike 3", "van 3"],
    }
    for by, told in groups.items():
        figure.get_by_label("Color").select_option(by)
        assert figure.locator(".legend button").all_inner_texts() == told
    figure.get_by_label("Color").select_option("outlier score")
    assert figure.locator(".legend").inner_text().endswith("0.50 outlier score; 2 images are flagged")
    figure.get_by_label("Color").select_option("name")
    section.get_by_label("Name of cluster 1").fill("bus")
    assert figure.locator(".legend button").all_inner_texts() == ["bus 9", "bike 3"]
    figure.get_by_role("button", name="bike").click()
    pressed = figure.locator(".legend [aria-pressed=true]")
    assert pressed.all_inner_texts() == ["bike 3"]
    faint = "(figure) => new Set(figure.pointMap.colors.filter((_, i) => i % 4 === 3)).size"
    assert figure.evaluate(faint) == 2
    pressed.click()
    assert figure.evaluate(faint) == 1
    assert visit.errors == []


def test_choices_made_while_a_map_opens_hold_once_it_is_open(read: Callable[..., Visit]) -> None:
    visit = read(sparse_page(), viewport={"width": 1200, "height": 250})
    figure = visit.page.locator("#descriptor-1 figure.map")
    assert figure.evaluate("(figure) => !figure.pointMap.deck && !figure.pointMap.opening")  # out of sight
    figure.evaluate(
        """(figure) => {
            const map = figure.pointMap;
            map.near = true;
            map.open();
            const color = figure.querySelector("select");
            color.value = "name";
            color.dispatchEvent(new Event("change"));
            figure.querySelector("[value='3']").click();
        }"""
    )
    hover(visit, figure, 4)
    assert figure.locator(".legend button").all_inner_texts() == ["white sedan 3", "bus 3", "van 3", "bike 3"]
    assert figure.evaluate("(figure) => figure.pointMap.deck.getViewports()[0].id") == "solid"
    assert visit.errors == []


def test_an_image_is_found_by_its_path_without_a_pointer(read: Callable[..., Visit]) -> None:
    visit = read(sparse_page())
    figure = visit.page.locator("#descriptor-1 figure.map")
    field = figure.get_by_role("searchbox")
    field.fill("00003")
    field.press("Enter")
    figure.locator(".tip").wait_for()
    said = figure.get_by_role("status")
    assert said.inner_text() == "1/00003.jpg is in cluster 3, bike; outlier score 0.50."
    field.fill("1/0000")
    field.press("Enter")
    field.press("Enter")
    assert said.inner_text().startswith("1/00001.jpg is in cluster 1, bus")
    assert said.inner_text().endswith("(2 of 10, Enter for the next).")
    field.fill("no such")
    field.press("Enter")
    assert said.inner_text() == "No image on this map has no such in its path."
    assert visit.errors == []


def test_a_double_click_leads_from_an_image_to_its_cluster(read: Callable[..., Visit]) -> None:
    visit = read(sparse_page())
    figure = visit.page.locator("#descriptor-2 figure.map")
    hover(visit, figure, 6)
    visit.page.mouse.dblclick(
        *figure.evaluate(
            "(figure) => { const b = figure.querySelector('.ring').getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; }"
        )
    )
    visit.page.wait_for_url("**#descriptor-2-cluster-2")
    assert visit.page.locator("#descriptor-2-cluster-2").is_visible()
    assert visit.errors == []


def test_an_image_that_is_looked_for_while_a_map_opens_is_shown_once_it_is_open(
    read: Callable[..., Visit],
) -> None:
    visit = read(sparse_page(), viewport={"width": 1200, "height": 250})
    figure = visit.page.locator("#descriptor-1 figure.map")
    figure.evaluate(
        """(figure) => {
            figure.pointMap.near = true;
            figure.pointMap.open();
            const search = figure.querySelector("[type=search]");
            search.value = "00003";
            search.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
        }"""
    )
    figure.locator(".tip").wait_for()
    assert figure.locator(".tip-path").inner_text() == "1/00003.jpg"
    assert visit.errors == []


def test_images_without_a_thumbnail_show_the_nearest_one_and_say_so(
    read: Callable[..., Visit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "MAX_PICTURES", 6)
    monkeypatch.setattr(maps, "MAX_SUSPECTS", 2)
    visit = read(sparse(names=("bus",)))
    figure = visit.page.locator("#descriptor-1 figure.map")
    pictured = figure.evaluate("(f) => f.pointMap.read().then(() => f.pointMap.pictured)")
    assert len(pictured) == 6
    assert {0, 1} < set(pictured)
    point = next(i for i in range(12) if i not in pictured)
    hover(visit, figure, point)
    assert figure.locator(".tip-path").inner_text() == f"1/{point:05}.jpg"
    told = figure.locator(".tip-note").inner_text()
    assert told in {f"Picture of 1/{i:05}.jpg, the nearest with one." for i in pictured}
    assert visit.errors == []


def test_a_map_out_of_sight_is_given_up_and_drawn_again(read: Callable[..., Visit]) -> None:
    visit = read(sparse_page(), viewport={"width": 1200, "height": 500})
    figure = visit.page.locator("#descriptor-1 figure.map")
    hover(visit, figure, 0)
    visit.page.locator("#quality").scroll_into_view_if_needed()
    visit.page.wait_for_selector("#descriptor-1 figure.map:not(.open)", state="attached")
    assert figure.locator("canvas").count() == 1  # of the picture beside the pointer
    hover(visit, figure, 3)
    assert visit.errors == []


def test_a_browser_that_cannot_draw_maps_says_so_and_keeps_the_picture(read: Callable[..., Visit]) -> None:
    visit = read(sparse_page(), without="webgl2")
    figure = visit.page.locator("#descriptor-1 figure.map")
    figure.scroll_into_view_if_needed()
    figure.get_by_role("status").wait_for()
    assert figure.get_by_role("status").inner_text().startswith("This browser does not draw the map")
    assert figure.locator(".stage > img").is_visible()


def test_maps_of_many_images_wait_to_be_asked(
    read: Callable[..., Visit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "MAX_AT_ONCE", 11)
    visit = read(sparse(descriptors=("type",)))
    figure = visit.page.locator("#descriptor-1 figure.map")
    figure.scroll_into_view_if_needed()
    visit.page.wait_for_timeout(300)
    assert "open" not in (figure.get_attribute("class") or "")
    figure.get_by_role("button", name="Look closer at all 12 images").click()
    hover(visit, figure, 2)
    assert visit.errors == []


def test_names_beside_a_heat_map_stay_readable_in_a_narrow_window(read: Callable[..., Visit]) -> None:
    visit = read(whole_page(), viewport={"width": 380, "height": 900})
    width = "(cells) => Math.min(...cells.map((cell) => cell.getBoundingClientRect().width))"
    assert visit.page.locator("#agreement tbody th").evaluate_all(width) > 90
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 380
