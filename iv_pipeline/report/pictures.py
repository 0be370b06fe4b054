"""Pictures that travel inside the page: data URIs, sheets cut to size, thumbnails of the delivery's images."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image

from iv_pipeline.engine import map_ordered
from iv_pipeline.errors import PictureError
from iv_pipeline.report.contact_sheet import lay_out, thumbnail, tile_or_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iv_pipeline.storage.image_store import ImageStore

THUMBNAIL = (192, 144)
"""Width and height of a thumbnail in the page, pixels."""
QUALITIES = (70, 50, 35)
"""Of WebP, the best that fits."""
SPRITE_SIZE = (96, 72)
"""Width and height of a thumbnail on a sprite sheet, pixels."""
SPRITE_COLUMNS, SPRITE_ROWS = 10, 10
"""Thumbnails beside and below each other on a sprite sheet."""
_SPRITE_QUALITY = 55


def data_uri(picture: bytes) -> str:
    """A PNG, WebP or JPEG as an address that needs no file beside the page."""
    kind = {b"\x89PNG": "png", b"RIFF": "webp"}.get(picture[:4], "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def fit_bytes(picture: bytes, max_bytes: int) -> bytes:
    """The picture itself if it is small enough, else as WebP: of less quality, then also of less size.

    Parameters
    ----------
    picture
        An encoded image.
    max_bytes
        What the result keeps to, as far as an image of 16 pixels can.
    """
    if len(picture) <= max_bytes:
        return picture
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    encoded = _webp(image, QUALITIES[-1])
    if len(encoded) <= max_bytes:
        better = (_webp(image, quality) for quality in QUALITIES[:-1])
        return next((found for found in better if len(found) <= max_bytes), encoded)
    while len(encoded) > max_bytes and max(image.size) > 16:
        # bytes grow with the pixels, a little less than in proportion
        side = min(0.95, 0.98 * (max_bytes / len(encoded)) ** 0.6)
        smaller = (max(1, int(image.width * side)), max(1, int(image.height * side)))
        image = image.resize(smaller, Image.Resampling.LANCZOS)
        encoded = _webp(image, QUALITIES[-1])
    return encoded


def thumbnails(archive: ImageStore | None, paths: Sequence[str]) -> list[tuple[bytes | None, str]]:
    """A thumbnail of each image, or None and in words why there is none."""
    if archive is None:
        return [(None, "no archive")] * len(paths)
    return [thumbnail_of(archive.glimpse(path)) for path in paths]


def sprite_sheets(archive: ImageStore, paths: Sequence[str]) -> list[str]:
    """Thumbnails of images, row by row on sheets of a hundred, as data URIs; one that is no image says so."""
    size = SPRITE_COLUMNS * SPRITE_ROWS

    def sheet(i: int) -> str:
        shown = paths[i * size : (i + 1) * size]
        tiles = [tile_or_note(archive.glimpse(path), SPRITE_SIZE) for path in shown]
        return data_uri(_webp(lay_out(tiles, SPRITE_COLUMNS, SPRITE_SIZE, gap=0), _SPRITE_QUALITY))

    return list(map_ordered(sheet, -(-len(paths) // size)))


def thumbnail_of(data: bytes | None, size: tuple[int, int] = THUMBNAIL) -> tuple[bytes | None, str]:
    """A thumbnail of one encoded image, or None and in words why there is none."""
    if data is None:
        return None, "not in the archive"
    try:
        return thumbnail(data, size, quality=75), ""
    except PictureError:  # the image's reasons say what is wrong with it
        return None, "unreadable"


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue()
