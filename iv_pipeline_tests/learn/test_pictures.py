import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from iv_pipeline.learn.pictures import CELLS, ORIENTATIONS, picture_views, why_not_judge


def encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def views_of(*pictures: np.ndarray) -> dict[str, np.ndarray]:
    encoded = {str(i): encode(pixels) for i, pixels in enumerate(pictures)}
    return picture_views(list(encoded), encoded.__getitem__)


def stripes(upright: bool, color: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    wave = np.tile(np.arange(48) // 3 % 2, (48, 1))
    return (wave if upright else wave.T)[..., None] * np.array(color)


def test_each_cell_has_its_mean_color() -> None:
    half = np.zeros((48, 48, 3))
    half[:, 24:] = 255, 0, 51
    colors = views_of(half)["colors"].reshape(CELLS, CELLS, 3)
    np.testing.assert_allclose(colors[:, :3], 0, atol=1e-6)
    np.testing.assert_allclose(colors[:, -3:], np.broadcast_to([1, 0, 0.2], (CELLS, 3, 3)), atol=1e-6)


def test_shapes_see_directions_and_no_contrast() -> None:
    shapes = views_of(stripes(True), stripes(False), stripes(True, (90, 90, 90)))["shape"]
    upright, level, faint = shapes.reshape(3, ORIENTATIONS, CELLS**2)
    assert np.square(upright[0]).sum() > 0.99  # the gradient of upright stripes points sideways
    assert np.square(level[ORIENTATIONS // 2]).sum() > 0.99
    np.testing.assert_allclose(faint, upright, atol=1e-5)


def test_a_picture_that_cannot_be_read_is_unknown_and_the_others_are_not() -> None:
    encoded = {"whole": encode(stripes(True)), "damaged": b"no picture"}
    views = picture_views(["damaged", "whole", "absent"], encoded.__getitem__)
    for vectors in views.values():
        np.testing.assert_array_equal(np.isfinite(vectors).all(axis=1), [False, True, False])
        assert np.isnan(vectors[[0, 2]]).all()


def test_many_pictures_keep_their_order() -> None:
    grey = [np.full((8, 8, 3), level) for level in range(0, 250, 25)]
    paths = [str(i % 10) for i in range(1203)]
    encoded = {str(i): encode(pixels) for i, pixels in enumerate(grey)}
    colors = picture_views(paths, encoded.__getitem__)["colors"]
    np.testing.assert_allclose(colors.mean(axis=1), [int(path) * 25 / 255 for path in paths], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 60), st.integers(1, 60), st.just(3))))
def test_shares_of_directions_add_up_to_one_or_there_are_none(pixels: np.ndarray) -> None:
    views = views_of(pixels)
    total = float(np.square(views["shape"], dtype=np.float64).sum())
    assert abs(total - 1) < 1e-4 or total == 0
    assert 0 <= views["colors"].min() <= views["colors"].max() <= 1
    assert all(vectors.dtype == np.float32 for vectors in views.values())


def test_unreadable_and_equal_pictures_say_nothing_about_images() -> None:
    striped, plain = stripes(True), np.full((48, 48, 3), 90)
    encoded = {"a": encode(striped), "b": encode(plain), "c": encode(striped), "d": b"x", "e": b"", "f": b"y"}
    views = picture_views(list(encoded), encoded.__getitem__)["shape"]
    assert why_not_judge(views[:4]) == ""
    assert why_not_judge(views[2:]) == "1 of 4 pictures of the sample can be read"
    assert why_not_judge(views[3:]) == "0 of 3 pictures of the sample can be read"
    assert why_not_judge(views[[0, 2]]) == "all of them are the same"
