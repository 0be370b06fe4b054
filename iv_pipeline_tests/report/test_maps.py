from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iv_pipeline.report import maps
from iv_pipeline.report.maps import NOWHERE, STEPS, images_of, pack, pack_text, points_of
from iv_pipeline.report.plots import cluster_color

if TYPE_CHECKING:
    from numpy.typing import NDArray


def unpacked(packed: str) -> NDArray[np.uint16]:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(2, -1)
    return planes[0] | (planes[1].astype(np.uint16) << 8)


@given(arrays(np.uint16, st.integers(0, 50)))
def test_packed_numbers_come_back(numbers: NDArray[np.uint16]) -> None:
    np.testing.assert_array_equal(unpacked(pack(numbers)), numbers)


@given(st.text())
def test_packed_text_comes_back(words: str) -> None:
    assert zlib.decompress(base64.b64decode(pack_text(words))).decode() == words


coordinates = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, st.tuples(st.integers(2, 30), st.just(5)), elements=coordinates))
def test_a_map_keeps_its_shape_to_half_a_step(places: NDArray[np.float32]) -> None:
    n = len(places)
    paths = pd.Series([str(i) for i in range(n)])
    points = points_of(labelled(paths), projected(paths, places), None, {}, paths)
    assert points is not None
    for name, columns in (("flat", [0, 1]), ("solid", [2, 3, 4])):
        steps = np.stack([unpacked(axis) for axis in points[name]], axis=1).astype(float)
        given = places[:, columns].astype(float)
        extent = np.ptp(given, axis=0).max()
        assert steps.max() <= STEPS
        apart = np.ptp(steps, axis=0) * extent / STEPS  # one step is as long on every axis
        np.testing.assert_allclose(apart, np.ptp(given, axis=0), atol=extent / STEPS + 1e-9)
        order = np.argsort(given[:, 0], kind="stable")
        assert (np.diff(steps[order, 0]) >= 0).all()


def labelled(paths: pd.Series[str]) -> pd.DataFrame:
    n = len(paths)
    return pd.DataFrame(
        {"image_path": paths, "cluster": np.arange(n) % 3 - 1, "is_outlier": False, "outlier_score": 0.25}
    )


def projected(paths: pd.Series[str], places: NDArray[np.float32]) -> pd.DataFrame:
    return pd.DataFrame(places, columns=["x2", "y2", "x3", "y3", "z3"]).assign(image_path=paths)


def test_points_tell_cluster_score_and_verdict_by_image_whatever_the_order_of_the_tables() -> None:
    paths = pd.Series(list("abcd"))
    final = pd.DataFrame(
        {
            "image_path": ["d", "a", "b", "c"],
            "cluster": [7, -1, 300, 7],
            "is_outlier": [True, False, False, True],
            "outlier_score": [1.0, 0.0, 0.1234, np.nan],
        }
    )
    places = np.arange(20, dtype=np.float32).reshape(4, 5)
    places[1] = np.nan  # an image whose vector could not be used
    profiles = pd.DataFrame({"cluster": [7, 300], "proposed_name": ["bus", None]})
    points = points_of(final, projected(paths, places), profiles, {300: "given"}, paths)
    assert points is not None
    np.testing.assert_array_equal(unpacked(points["cluster"]), [0, 301, 8, 8])
    np.testing.assert_array_equal(unpacked(points["suspicion"]), [0, 123, 0x8000, 0x8000 + 1000])
    assert [unpacked(axis)[1] for axis in points["flat"] + points["solid"]] == [NOWHERE] * 5
    assert points["clusters"] == [
        {"number": -1, "color": cluster_color(-1), "name": ""},
        {"number": 7, "color": cluster_color(7), "name": "bus"},
    ]


@pytest.mark.parametrize("lacking", ["final", "projection", "places"])
def test_there_are_no_points_before_their_stages_have_run(lacking: str) -> None:
    paths = pd.Series(list("ab"))
    final, projection = labelled(paths), projected(paths, np.full((2, 5), np.nan, np.float32))
    given = {
        "final": (None, projection),
        "projection": (final, None),
        "places": (final, projection),
    }[lacking]
    assert points_of(*given, None, {}, paths) is None


def test_images_tell_paths_and_every_column_of_labels() -> None:
    frame = pd.DataFrame({"image_path": ["b\n", "a'\""], "label": ["x", None], "label_color": [2, 1]})
    told = images_of(frame, frame["image_path"], None)
    assert json.loads(zlib.decompress(base64.b64decode(told["paths"]))) == ["b\n", "a'\""]
    assert [label["title"] for label in told["labels"]] == ["label", "label color"]
    assert [label["values"] for label in told["labels"]] == [["x"], ["1", "2"]]
    assert told["labels"][1]["colors"] == [cluster_color(i) for i in (-1, 0, 1)]
    assert [unpacked(label["codes"]).tolist() for label in told["labels"]] == [[1, 0], [2, 1]]
    assert told["pictured"] == told["sheets"] == []


class Lacking:
    """An archive that has none of every third image, and whose images are no images."""

    def missing(self, paths: list[str]) -> list[str]:
        return [path for path in paths if int(path) % 3 == 0]

    def glimpse(self, path: str) -> bytes | None:
        return None if int(path) % 3 == 0 else b""


def test_thumbnails_are_those_of_the_most_suspicious_images_and_of_others_over_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maps, "MAX_PICTURES", 150)
    monkeypatch.setattr(maps, "MAX_SUSPECTS", 40)
    paths = pd.Series([str(i) for i in range(3000)])
    suspicious = paths.iloc[::-1]
    told = images_of(paths.to_frame("image_path"), suspicious, Lacking())  # type: ignore[arg-type]
    rows = np.array(told["pictured"])
    assert len(rows) == 150
    assert len(told["sheets"]) == 2
    assert (rows % 3 != 0).all()
    assert (rows >= 2960).sum() >= 26  # two thirds of the 40
    assert np.diff(np.sort(rows)).max() < 40
    fewer = images_of(paths.head(100).to_frame("image_path"), suspicious, Lacking())  # type: ignore[arg-type]
    assert len(fewer["pictured"]) == 66
