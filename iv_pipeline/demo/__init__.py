"""Draws a small delivery with known truth, for a first run without data."""

from iv_pipeline.demo.delivery import draw_delivery

__all__ = ["draw_delivery"]
