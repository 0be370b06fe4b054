"""Thumbnails, and many of them on one sheet that is small enough to be embedded in a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from iv_pipeline.errors import PictureError
from iv_pipeline.learn.decoding import fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUND = (238, 238, 238)
"""Color behind images that do not fill their tile."""

_PAPER = (255, 255, 255)
_INK = (120, 120, 120)
_GAP = 2


def thumbnail(data: bytes, size: tuple[int, int] = (96, 72), quality: int = 80) -> bytes:
    """One image as a JPEG of exactly `size` (width, height), letterboxed.

    Raises
    ------
    PictureError
        If `data` is no whole image.
    """
    return _jpeg(_tile(data, size), quality)


def contact_sheet(
    images: Sequence[tuple[str, bytes | None]],
    columns: int = 8,
    thumb: tuple[int, int] = (96, 72),
    max_bytes: int = 50_000,
) -> bytes:
    """Thumbnails side by side, row by row, as one JPEG.

    Parameters
    ----------
    images
        Path and encoded image of each; an image that is None, or cannot be decoded, leaves a tile that says so.
    columns
        Tiles of a row; fewer if there are fewer images.
    thumb
        Width and height of a tile, pixels.
    max_bytes
        Size that the JPEG keeps to: its quality goes down as far as needed, then its scale.

    Returns
    -------
    bytes
        The JPEG; one empty tile if there are no images.

    Raises
    ------
    ValueError
        If not even a thumbnail-sized sheet fits in `max_bytes`.
    """
    sheet = lay_out([tile_or_note(data, thumb) for _, data in images], columns, thumb)
    while min(sheet.size) >= 8:
        for quality in (85, 75, 65, 55, 45, 35, 25):
            encoded = _jpeg(sheet, quality)
            if len(encoded) <= max_bytes:
                return encoded
        sheet = sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS)
    raise ValueError(f"no contact sheet fits in {max_bytes} bytes; allow more")


def lay_out(
    tiles: Sequence[Image.Image], columns: int, thumb: tuple[int, int], gap: int = _GAP
) -> Image.Image:
    """Tiles of the size `thumb` side by side, row by row, `gap` pixels apart; no fewer than one."""
    columns = max(1, min(columns, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    width, height = thumb[0] + gap, thumb[1] + gap
    sheet = Image.new("RGB", (columns * width - gap, rows * height - gap), _PAPER)
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    return sheet


def tile_or_note(data: bytes | None, size: tuple[int, int]) -> Image.Image:
    """One image letterboxed to `size`; a tile that says so if it is missing or cannot be decoded."""
    if data is None:
        return _note("missing", size)
    try:
        return _tile(data, size)
    except PictureError:  # the quality report has the reason; a sheet shows that there is one
        return _note("unreadable", size)


def _tile(data: bytes, size: tuple[int, int]) -> Image.Image:
    small, _ = fitted(data, lambda original: _inside(original, size), Image.Resampling.LANCZOS, GROUND)
    tile = Image.new("RGB", size, GROUND)
    tile.paste(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 2))
    return tile


def _inside(original: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the aspect ratio of `original` that fits in `size`."""
    scale = min(size[0] / original[0], size[1] / original[1])
    return max(1, round(original[0] * scale)), max(1, round(original[1] * scale))


def _note(text: str, size: tuple[int, int]) -> Image.Image:
    tile = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=_INK)
    draw.text((size[0] / 2, size[1] / 2), text, fill=_INK, anchor="mm", font_size=min(14, size[0] / 7))
    return tile


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
