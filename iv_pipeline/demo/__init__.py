"""Draws a small delivery with known truth, for a first run without data."""
