from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from iv_pipeline.learn.simulation import COLUMNS
from iv_pipeline.report import plots


def rgba(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGBA"))


def has_color(picture: np.ndarray, color: str, tolerance: int = 24) -> bool:
    wanted = np.frombuffer(bytes.fromhex(color[1:]), np.uint8).astype(int)
    solid = picture[picture[..., 3] > 200][:, :3].astype(int)
    return bool((np.abs(solid - wanted).max(axis=1) <= tolerance).any())


def trials(score: float | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(
        [
            {
                "scaler": scaler,
                "representation": "pca",
                "algorithm": algorithm,
                "n_clusters": k,
                "round": 1 if scaler == "robust" else 2,
                "predictability": k / 100,
            }
            for scaler in ("standard", "minmax", "robust")
            for algorithm in ("kmeans", "hdbscan")
            for k in (5, 10, 20)
        ]
    )
    if score is not None:
        frame["predictability"] = score
    return frame.assign(criterion="predictability", won=frame.index == 2, reason="")


@given(st.integers(0, 100_000))
def test_clusters_have_a_color_each_that_is_visible_on_white_and_on_black(number: int) -> None:
    color = plots.cluster_color(number)
    assert re.fullmatch("#[0-9a-f]{6}", color)
    luma = np.frombuffer(bytes.fromhex(color[1:]), np.uint8) @ np.array([0.299, 0.587, 0.114])
    assert 50 < luma < 215
    assert plots.cluster_color(number + 1) != color


def test_the_first_fifty_clusters_have_fifty_colors_and_noise_is_grey() -> None:
    assert len({plots.cluster_color(number) for number in range(50)}) == 50
    assert plots.cluster_color(-1) == plots.NOISE_COLOR


def test_map_shows_every_cluster_in_its_color_on_a_transparent_ground() -> None:
    coordinates = np.repeat(np.array([[0, 0], [0, 1], [1, 1]], np.float32), 40, axis=0)
    coordinates += np.random.default_rng(0).normal(0, 0.05, coordinates.shape).astype(np.float32)
    picture = rgba(plots.map_2d(coordinates, np.repeat(np.array([0, 1, -1], np.int32), 40)))
    for number in (0, 1, -1):
        assert has_color(picture, plots.cluster_color(number))
    assert not has_color(picture, plots.cluster_color(2), tolerance=8)
    assert (picture[..., 3] == 0).mean() > 0.5


def test_map_leaves_out_rows_without_coordinates() -> None:
    coordinates = np.array([[0, 0], [1, 1], [np.nan, np.nan]], np.float32)
    with_gap = plots.map_2d(coordinates, np.array([0, 1, 2], np.int32))
    assert with_gap == plots.map_2d(coordinates[:2], np.array([0, 1], np.int32))


def test_map_of_nothing_is_empty() -> None:
    picture = rgba(plots.map_2d(np.empty((0, 2), np.float32), np.empty(0, np.int32)))
    assert (picture[..., 3] == 0).all()


def test_map_keeps_its_size_in_bytes_however_many_images_there_are() -> None:
    rng = np.random.default_rng(0)
    many = plots.map_2d(
        rng.normal(size=(60_000, 2)).astype(np.float32), rng.integers(0, 50, 60_000, np.int32)
    )
    assert len(many) < 250_000


def test_selection_curve_rings_the_winner_and_shows_scalers_in_their_colors() -> None:
    picture = rgba(plots.selection_curve(trials()))
    assert has_color(picture, plots.SCALER_COLORS["standard"])
    assert has_color(picture, plots.SCALER_COLORS["minmax"])
    assert not has_color(picture, plots.SCALER_COLORS["robust"])
    assert has_color(picture, "#d6336c")


def test_selection_curve_for_dark_pages_has_light_ink_and_no_ground() -> None:
    drawn = plots.selection_curve(trials(), transparent=True)
    light, dark = rgba(drawn), rgba(plots.on_dark(drawn))
    np.testing.assert_array_equal(light[..., 3], dark[..., 3])
    assert (dark[..., 3] == 0).mean() > 0.7
    assert has_color(light, plots.INK)
    assert not has_color(light, plots.INK_ON_DARK)
    assert has_color(dark, plots.INK_ON_DARK)
    assert not has_color(dark, plots.INK)
    for color in (plots.SCALER_COLORS["standard"], "#d6336c"):
        assert has_color(light, color)
        assert has_color(dark, color)


def test_learning_curves_have_a_panel_for_each_attribute_and_bear_what_is_missing() -> None:
    rows = [
        ("type", "questions", 25, 200, 0.5, 0.3, 0.2, 0.1, 0.04),
        ("type", "random", 25, 25, 0.41, 0.1, 0.1, 0.1, 0.1),
        ("type", "all labels", 900, 900, 0.93, 1, 0.9, 0.8, 0.01),
        ("view", "all labels", 900, 900, np.nan, np.nan, np.nan, np.nan, np.nan),
    ]
    points = pd.DataFrame(rows, columns=list(COLUMNS))
    one, two = (rgba(plots.learning_curves(points.iloc[:n])) for n in (3, 4))
    assert one.shape[1] == two.shape[1]  # one alone is not wider than a column of the page
    for name in ("standard", "minmax"):
        assert has_color(two, plots.SCALER_COLORS[name])
    assert has_color(one, plots.INK)


def test_variance_curves_take_scalers_that_keep_nothing() -> None:
    ratios = {"standard": np.array([0.6, 0.3]), "robust": np.array([])}
    picture = rgba(plots.variance_curve(ratios))
    assert has_color(picture, plots.SCALER_COLORS["standard"])


def test_selection_curve_renders_where_no_trial_has_a_score() -> None:
    assert rgba(plots.selection_curve(trials(np.nan))).size


@pytest.mark.parametrize("n_clusters", [0, 1, 2, 50, 3000])
def test_selection_curve_renders_with_a_single_trial(n_clusters: int) -> None:
    assert rgba(plots.selection_curve(trials().iloc[[2]].assign(n_clusters=n_clusters))).size


def test_cluster_sizes_draw_noise_in_grey() -> None:
    sizes = pd.Series([9, 30, 20], index=[-1, 0, 1])
    assert has_color(rgba(plots.cluster_sizes(sizes)), plots.NOISE_COLOR, 4)
    assert not has_color(rgba(plots.cluster_sizes(sizes.iloc[1:])), plots.NOISE_COLOR, 4)


def test_heat_map_takes_names_with_dollar_signs_and_missing_values() -> None:
    names = ["$\\frac$", "b_{"]
    table = pd.DataFrame([[1.0, np.nan], [np.nan, 1.0]], index=names, columns=names)
    assert rgba(plots.heat_map(table)).size


def test_variance_curve_renders_a_line_for_each_scaler() -> None:
    picture = rgba(plots.variance_curve({"standard": np.array([0.5, 0.3]), "robust": np.array([0.9])}))
    assert has_color(picture, plots.SCALER_COLORS["standard"])
    assert has_color(picture, plots.SCALER_COLORS["robust"])


def test_the_same_frame_gives_the_same_bytes() -> None:
    assert plots.selection_curve(trials()) == plots.selection_curve(trials())


def test_inline_makes_markdown_that_carries_the_picture() -> None:
    assert plots.inline(b"\x89PNG") == "![](data:image/png;base64,iVBORw==)"
    assert plots.inline(b"\xff\xd8") == "![](data:image/jpeg;base64,/9g=)"
