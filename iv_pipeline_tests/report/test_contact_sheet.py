from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iv_pipeline.errors import PictureError
from iv_pipeline.report.contact_sheet import GROUND, contact_sheet, thumbnail


def encode(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def noise(seed: int, height: int = 90, width: int = 120) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def paint(rgb: tuple[int, int, int], height: int = 90, width: int = 120) -> bytes:
    return encode(np.full((height, width, 3), rgb, np.uint8))


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image.convert("RGB")


def near(pixel: object, expected: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.asarray(pixel) - expected).max() <= 12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 128), st.integers(8, 128))
def test_thumbnail_has_exactly_the_size_asked_for(height: int, width: int, tall: int, wide: int) -> None:
    assert decoded(thumbnail(paint((9, 99, 9), height, width), (wide, tall))).size == (wide, tall)


def test_thumbnail_is_letterboxed_on_neutral_ground() -> None:
    tall = decoded(thumbnail(paint((200, 0, 0), 300, 100), (96, 72)))
    assert near(tall.getpixel((48, 36)), (200, 0, 0))
    assert near(tall.getpixel((4, 36)), GROUND)
    wide = decoded(thumbnail(paint((0, 0, 200), 50, 300), (96, 72)))
    assert near(wide.getpixel((4, 36)), (0, 0, 200))
    assert near(wide.getpixel((48, 4)), GROUND)


def test_thumbnail_of_no_image_is_refused() -> None:
    with pytest.raises(PictureError, match="not a picture"):
        thumbnail(b"no image")


def test_sheet_has_a_tile_per_image_in_reading_order() -> None:
    paints = [(220, 0, 0), (0, 200, 0), (0, 0, 220), (220, 200, 0), (0, 0, 0)]
    sheet = decoded(contact_sheet([("", paint(rgb)) for rgb in paints], columns=3))
    assert sheet.size == (3 * 98 - 2, 2 * 74 - 2)
    for i, rgb in enumerate(paints):
        assert near(sheet.getpixel((i % 3 * 98 + 48, i // 3 * 74 + 36)), rgb)
    assert near(sheet.getpixel((2 * 98 + 48, 74 + 36)), (255, 255, 255))


def test_fewer_images_than_columns_make_a_narrow_sheet() -> None:
    assert decoded(contact_sheet([("a", noise(1)), ("b", noise(2))])).size == (194, 72)
    assert decoded(contact_sheet([])).size == (96, 72)


def test_missing_and_broken_images_leave_tiles_that_say_so() -> None:
    images = [("a", paint((220, 0, 0))), ("b", None), ("c", b"no image"), ("d", noise(1)[:-900])]
    sheet = np.asarray(decoded(contact_sheet(images)))
    tiles = [sheet[:, i * 98 : i * 98 + 96] for i in range(4)]
    for tile in tiles[1:]:
        assert near(np.median(tile, axis=(0, 1)), GROUND)
        assert tile[20:52, 20:76].min() < 180  # the word
    assert np.abs(tiles[1].astype(int) - tiles[2]).max() > 50  # "missing" is not "unreadable"
    assert np.abs(tiles[2].astype(int) - tiles[3]).mean() < 3


@pytest.mark.parametrize("limit", [200_000, 50_000, 20_000, 5_000])
def test_sheet_keeps_to_its_size_even_with_noise(limit: int) -> None:
    sheet = contact_sheet([(str(i), noise(i)) for i in range(40)], max_bytes=limit)
    assert limit / 4 < len(sheet) <= limit
    assert decoded(sheet).width >= 8


def test_a_limit_that_nothing_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="100 bytes"):
        contact_sheet([("a", noise(1))], max_bytes=100)


def test_the_same_images_give_the_same_bytes() -> None:
    images = [(str(i), noise(i)) for i in range(5)]
    assert contact_sheet(images) == contact_sheet(images)
