"""Encoded pictures as pixels: upright, in 8-bit RGB, and for what cannot be decoded one of a few fixed phrases."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iv_pipeline.errors import (
    DAMAGED_PICTURE,
    EMPTY_FILE,
    NO_ACCESS,
    NOT_A_PICTURE,
    NOT_THERE,
    OTHER_FORMAT,
    TOO_LARGE,
    TRUNCATED,
    InputError,
    PictureError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

GRID = 96
"""Side of the square on which images are measured, in pixels: about the smallest of real deliveries."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""Formats that are opened: the fewer decoders, the fewer surprises."""

MAX_PIXELS = 80_000_000
"""Larger images are refused: a few bytes can claim any size, and decoding them would take the memory."""

NEUTRAL = (128, 128, 128)
"""Behind what is transparent: neither bright nor dark, so that it is not measured as a fault of exposure."""

# sizes are checked here, and damaged EXIF data are no fault of the pixels: nothing to print for each picture
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

_PILLOW_ERRORS = (
    OSError,  # unknown format, truncated, broken data
    SyntaxError,  # broken PNG chunks
    ValueError,  # impossible header fields
    *(EOFError, struct.error, zlib.error, LookupError, TypeError, ArithmeticError, AttributeError),
    *(Image.DecompressionBombError, Warning),  # warnings are raised only where they are errors
)
"""What Pillow raises on bytes that are no whole image."""

_OTHER_FORMATS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
}
_MP4_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
)
_OWN_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"RIFF")

_ORIENTATION = 0x0112
_HOLD_ORIENTATION = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
"""Metadata in which Pillow looks for the orientation: most images have none, and looking takes time."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image upright, by the orientation that its EXIF data say."""
_LARGEST_12_BIT = 4095


def open_image(data: bytes) -> Image.Image:
    """Open an encoded image without decoding it yet.

    Raises
    ------
    PictureError
        If `data` is no image of one of `FORMATS`, or claims more than `MAX_PIXELS`.
    """
    if not data:
        raise PictureError(EMPTY_FILE)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(TOO_LARGE) from None
    except _PILLOW_ERRORS as error:
        raise PictureError(_what_it_is(data)) from error
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(TOO_LARGE)
    return image


def _what_it_is(data: bytes) -> str:
    """Why bytes that Pillow does not open are no picture, in words."""
    if data[4:8] == b"ftyp" and data[8:12] in _MP4_BRANDS:
        return f"{OTHER_FORMAT} ({_MP4_BRANDS[data[8:12]]})"
    for signature, name in _OTHER_FORMATS.items():
        if data.startswith(signature):
            return f"{OTHER_FORMAT} ({name})"
    return DAMAGED_PICTURE if data.startswith(_OWN_SIGNATURES) else NOT_A_PICTURE


def fitted(
    data: bytes,
    fit: Callable[[tuple[int, int]], tuple[int, int]],
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    ground: tuple[int, int, int] = NEUTRAL,
) -> tuple[Image.Image, tuple[int, int]]:
    """An image upright, in RGB, at the size that is asked for.

    JPEGs are decoded at the smallest scale that still fills it, and turned as their EXIF data say once they are
    small. Samples of 16 bits are scaled to 8; where none exceeds 4,095 they are taken for 12 bits, as cameras
    write them.

    Parameters
    ----------
    data
        The encoded image.
    fit
        Takes width and height of the upright image, returns those of the result.
    resample
        Filter.
    ground
        Color behind what is transparent.

    Returns
    -------
    image
        RGB.
    size
        Width and height of the original, upright.

    Raises
    ------
    PictureError
        If `data` is no whole image.
    """
    image = open_image(data)
    turn = _turn(image)
    is_turned = turn is not None and turn not in (_UPRIGHT[2], _UPRIGHT[3], _UPRIGHT[4])
    size = image.size[::-1] if is_turned else image.size
    target = fit(size)
    stored = target[::-1] if is_turned else target
    try:
        image.draft("RGB", stored)
        small = _rgb(image, ground).resize(stored, resample, reducing_gap=2.0)
    except _PILLOW_ERRORS as error:
        cut_off = "truncated" in str(error).lower()
        raise PictureError(TRUNCATED if cut_off else DAMAGED_PICTURE) from error
    return small if turn is None else small.transpose(turn), size


def _turn(image: Image.Image) -> Image.Transpose | None:
    if _HOLD_ORIENTATION.isdisjoint(image.info):
        return None
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _PILLOW_ERRORS:  # damaged EXIF data say nothing about the pixels
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _rgb(image: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    if image.mode.startswith("I"):
        samples = np.asarray(image).astype(np.float32)
        largest = _LARGEST_12_BIT if samples.max() <= _LARGEST_12_BIT else np.iinfo(np.uint16).max
        return Image.fromarray(np.rint(samples.clip(0, largest) * (255 / largest)).astype(np.uint8)).convert(
            "RGB"
        )
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        opaque = Image.new("RGB", image.size, ground)
        opaque.paste(seen, mask=seen.getchannel("A"))
        return opaque
    return image.convert("RGB")


def decode(data: bytes, side: int = GRID) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode an image onto a square grid.

    Parameters
    ----------
    data
        The encoded image.
    side
        Side of the grid, pixels; the aspect ratio is not kept.

    Returns
    -------
    pixels
        RGB, shape ``(side, side, 3)``.
    size
        Width and height of the original, upright.

    Raises
    ------
    PictureError
        If `data` is no whole image.
    """
    image, size = fitted(data, lambda _: (side, side))
    return np.asarray(image), size


def decode_all(
    paths: Sequence[str],
    read: Callable[[str], bytes],
    side: int = GRID,
    skip: Callable[[str, bytes], bool] = lambda _path, _data: False,
) -> tuple[NDArray[np.uint8], NDArray[np.int32], list[str | None]]:
    """Decode images onto square grids; one that cannot be read or decoded is reported, never raised.

    Parameters
    ----------
    paths
        Paths of the images.
    read
        Takes a path, returns the encoded image. `KeyError`, `OSError` and `InputError` mean that this image cannot
        be had.
    side
        Side of the grids, pixels.
    skip
        Takes a path and the encoded image, says whether it need not be decoded.

    Returns
    -------
    pixels
        RGB, shape ``(n, side, side, 3)``; black where there is an error, and where an image was skipped.
    sizes
        Width and height of the originals, shape ``(n, 2)``; 0 where there is an error.
    errors
        Why an image could not be had, in one of a few fixed phrases; None where it could.
    """
    pixels = np.zeros((len(paths), side, side, 3), np.uint8)
    sizes = np.zeros((len(paths), 2), np.int32)
    errors: list[str | None] = [None] * len(paths)
    for i, path in enumerate(paths):
        try:
            data = read(path)
            if not skip(path, data):
                pixels[i], sizes[i] = decode(data, side)
        except InputError as error:
            errors[i] = error.what
        except KeyError:
            errors[i] = NOT_THERE
        except OSError:
            errors[i] = NO_ACCESS
    return pixels, sizes, errors
