from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from iv_pipeline.errors import PictureError
from iv_pipeline.learn.colors import COLORS, describe_images, lab, main_color, name_color, vehicle_color

RGB = tuple[int, int, int]


def encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def vehicle(paint: RGB, road: RGB = (125, 128, 124)) -> bytes:
    """A box with windows and wheels, on a road."""
    image = Image.new("RGB", (160, 120), road)
    draw = ImageDraw.Draw(image)
    draw.rectangle((25, 25, 135, 95), fill=paint)
    for left in (40, 72, 104):
        draw.rectangle((left, 32, left + 18, 48), fill=(40, 45, 50))
    for left in (38, 102):
        draw.ellipse((left, 84, left + 22, 106), fill=(15, 15, 15))
    return encode(image)


def test_lab_of_the_primaries_is_the_published_one() -> None:
    published = {
        (255, 255, 255): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 255, 0): (87.73, -86.18, 83.18),
        (0, 0, 255): (32.30, 79.19, -107.86),
    }
    for rgb, expected in published.items():
        assert lab(rgb) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 255, 255), "white"),
        ((225, 228, 226), "white"),
        ((150, 150, 150), "grey"),
        ((120, 126, 132), "grey"),
        ((0, 0, 0), "black"),
        ((35, 35, 40), "black"),
        ((200, 20, 30), "red"),
        ((110, 15, 20), "red"),
        ((255, 130, 0), "orange"),
        ((250, 215, 30), "yellow"),
        ((20, 130, 50), "green"),
        ((30, 60, 180), "blue"),
        ((20, 30, 90), "blue"),
        ((110, 170, 220), "blue"),
        ((120, 40, 150), "purple"),
        ((255, 160, 190), "pink"),
        ((105, 65, 30), "brown"),
        ((205, 175, 135), "brown"),
    ],
)
def test_typical_paints_have_the_name_people_give_them(rgb: RGB, name: str) -> None:
    assert name_color(rgb) == name


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_color_has_exactly_one_name(rgb: RGB) -> None:
    assert name_color(rgb) in COLORS


@given(st.integers(0, 255))
def test_equal_channels_are_white_grey_or_black(level: int) -> None:
    assert name_color((level, level, level)) in ("white", "grey", "black")


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.tuples(*[st.integers(0, 255)] * 3))
def test_shares_of_any_image_sum_to_one(paint: RGB, road: RGB) -> None:
    color = vehicle_color(vehicle(paint, road))
    assert tuple(color.shares) == COLORS
    assert sum(color.shares.values()) == pytest.approx(1)
    assert min(color.shares.values()) >= 0
    assert all(0 <= value <= 100.01 for value in color.lightness.values())


@pytest.mark.parametrize("rgb", [(255, 255, 255), (200, 20, 30), (30, 60, 180), (0, 0, 0)])
def test_an_image_of_one_color_is_wholly_of_that_color(rgb: RGB) -> None:
    color = vehicle_color(encode(Image.new("RGB", (200, 100), rgb)))
    assert color.shares[name_color(rgb)] == pytest.approx(1)
    assert color.brightness == pytest.approx(np.dot(rgb, (0.299, 0.587, 0.114)) / 255, abs=0.01)


@pytest.mark.parametrize("road", [(125, 128, 124), (60, 62, 60), (150, 60, 40), (60, 120, 50)])
@pytest.mark.parametrize(
    "paint", [(240, 240, 240), (200, 20, 30), (30, 60, 180), (250, 215, 30), (25, 25, 25)]
)
def test_the_vehicle_is_named_and_not_the_ground(paint: RGB, road: RGB) -> None:
    assert main_color(vehicle_color(vehicle(paint, road)).shares) == name_color(paint)


def test_a_grey_vehicle_on_a_grey_road_is_grey() -> None:
    assert main_color(vehicle_color(vehicle((140, 142, 145))).shares) == "grey"


def test_a_cluster_of_one_color_is_called_by_it() -> None:
    described = describe_images([vehicle((20, 30, 90))] * 8 + [vehicle((240, 240, 240))] * 2)
    assert described["color"] == "dark blue"
    assert described["confidence"] == pytest.approx(0.8)
    assert described["n_images"] == 10
    assert sum(described["shares"].values()) == pytest.approx(1)


def test_a_cluster_of_many_colors_is_mixed() -> None:
    paints = [(240, 240, 240), (200, 20, 30), (30, 60, 180), (20, 130, 50)]
    described = describe_images(vehicle(paint) for paint in paints)
    assert described["color"] == "mixed colors"
    assert described["confidence"] == pytest.approx(0.25)


def test_no_images_have_no_color() -> None:
    assert describe_images([])["color"] == "unknown"


def test_bytes_that_are_no_image_are_refused() -> None:
    with pytest.raises(PictureError, match="not a picture"):
        vehicle_color(b"no image")


def test_images_that_cannot_be_decoded_are_left_out() -> None:
    described = describe_images([vehicle((20, 30, 90)), b"no image"])
    assert described["color"] == "dark blue"
    assert described["n_images"] == 1
