from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iv_pipeline.errors import PictureError, fix_of
from iv_pipeline.learn.decoding import NEUTRAL, decode, decode_all, fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF"]


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """A red quarter at the top left, blue below it, on a gradient."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 1] = np.linspace(60, 200, width)
    pixels[: height // 2, : width // 2] = (220, 40, 40)
    pixels[height // 2 :, : width // 2] = (40, 40, 220)
    return Image.fromarray(pixels)


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def pixels_of(data: bytes) -> NDArray[np.float64]:
    return decode(data)[0].astype(np.float64)


def test_every_format_and_mode_decodes_to_rgb() -> None:
    for image_format in FORMATS:
        assert decode(encode(scene(), image_format))[0].shape == (96, 96, 3)
    for mode in ("L", "P", "CMYK", "1", "RGBA", "LA"):
        image_format = "JPEG" if mode == "CMYK" else "PNG"
        assert decode(encode(scene().convert(mode), image_format))[0].shape == (96, 96, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_image_is_turned_as_its_exif_data_say(orientation: int, image_format: str) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene() if orientation == 1 else scene().transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned, size = decode(encode(stored, image_format, exif=exif))
    upright, _ = decode(encode(scene(), image_format))
    assert size == (64, 48)
    assert np.abs(turned.astype(int) - upright).mean() < 3
    shown, _ = fitted(encode(stored, image_format, exif=exif), lambda original: original)
    assert shown.size == (64, 48)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_not_make_a_picture_unreadable() -> None:
    whole = encode(scene(), "JPEG")
    broken = whole[:2] + b"\xff\xe1\x00\x20Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 7 + whole[2:]
    assert decode(broken)[0].shape == (96, 96, 3)


def test_samples_of_16_bits_are_scaled_to_8() -> None:
    gray = np.asarray(scene().convert("L"))
    upright = pixels_of(encode(Image.fromarray(gray)))
    full = encode(Image.fromarray(gray.astype(np.uint16) * 257))
    twelve_bits = encode(Image.fromarray(gray.astype(np.uint16) * 16))
    assert np.abs(pixels_of(full) - upright).max() <= 2
    assert np.abs(pixels_of(twelve_bits) - upright).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_neither_bright_nor_dark(mode: str) -> None:
    seen = scene().convert("RGBA")
    alpha = Image.new("L", seen.size, 255)
    alpha.paste(0, (32, 0, 64, 48))
    seen.putalpha(alpha)
    image = seen.quantize(16) if mode == "P" else seen.convert(mode)
    pixels = pixels_of(encode(image))
    assert np.abs(pixels[:, 54:] - NEUTRAL).max() <= 4
    assert np.abs(pixels[:, :42] - NEUTRAL).mean() > 30


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [scene(), Image.new("RGB", (64, 48), (255, 255, 255))]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(animated)[0], decode(encode(scene(), "GIF"))[0])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html></html>", "not a picture"),
        (bytes(500), "not a picture"),
        (encode(scene(), "JPEG")[:700], "cut off before its end"),
        (encode(scene(), "BMP")[:-40], "cut off before its end"),
        (encode(scene(), "JPEG")[:12], "damaged picture"),
        (encode(scene(), "TIFF"), "a format that is not read (TIFF)"),
        (encode(scene(), "JPEG2000"), "a format that is not read (JPEG 2000)"),
        (b"\0\0\0\x1cftypheic" + bytes(99), "a format that is not read (HEIC)"),
        (b"\0\0\0\x1cftyphevc" + bytes(99), "a format that is not read (HEIC)"),
        (b"\xff\x0a" + bytes(99), "a format that is not read (JPEG XL)"),
        (encode(Image.new("L", (12_000, 9_000))), "too large to be read"),
    ],
)
def test_what_cannot_be_decoded_is_said_in_fixed_words_with_a_remedy(data: bytes, what: str) -> None:
    with pytest.raises(PictureError) as refused:
        decode(data)
    assert refused.value.what == what
    assert refused.value.fix == fix_of(what) != ""


def test_each_way_to_have_no_bytes_has_its_words() -> None:
    def read(path: str) -> bytes:
        raise {"a": KeyError(path), "b": PermissionError(path), "c": PictureError("encrypted")}[path]

    assert decode_all(["a", "b", "c"], read)[2] == [
        "not in the archive",
        "the file cannot be opened",
        "encrypted",
    ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.floats(0, 1), st.floats(0.2, 1), st.sampled_from(FORMATS))
def test_damaged_bytes_are_decoded_or_refused_in_fixed_words(
    noise: bytes, at: float, kept: float, image_format: str
) -> None:
    whole = WHOLE[image_format]
    begin = int(at * len(whole))
    damaged = (whole[:begin] + noise + whole[begin + len(noise) :])[: int(kept * len(whole))]
    try:
        assert decode(damaged)[0].shape == (96, 96, 3)
    except PictureError as refused:
        assert fix_of(refused.what)  # noqa: PT017 - either outcome is right


WHOLE = {
    "JPEG": encode(
        scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "PNG": encode(Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257)),
    "WEBP": encode(scene().convert("RGBA"), "WEBP"),
    "BMP": encode(scene(), "BMP"),
    "GIF": encode(scene().quantize(16), "GIF"),
}
