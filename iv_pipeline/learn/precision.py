"""Arithmetic that gives the same result on every processor.

BLAS, FAISS and compilers add in an order that depends on the processor, so float32 products differ in their last
bits, and an embedding or a near tie turns that into other clusters. Up to `REPRODUCIBLE_ROWS` rows, therefore,
products are computed in float64 and rounded to a coarse grid before anything discrete depends on them: a
difference of 1e-13 survives a grid of 1e-5 once in a hundred million values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPRODUCIBLE_ROWS = 20_000
"""Fits of at most this many rows are computed in float64; larger ones in float32, for twice the speed."""
GRID_BITS = 16
"""Binary digits of a typical value that are kept."""
EDGE = 0.3
"""Offset that keeps total variances that are whole numbers away from the edge between two grids."""


def product_dtype(n_rows: int) -> type[np.floating[Any]]:
    """Type that products of a fit are computed in: float64 up to `REPRODUCIBLE_ROWS` rows, float32 beyond."""
    return np.float64 if n_rows <= REPRODUCIBLE_ROWS else np.float32


def grid_step(variance: float) -> float:
    """Spacing of the grid for rows of a total variance, a power of two; 0 if there is no variance.

    Parameters
    ----------
    variance
        Sum of the variances of the columns.
    """
    if not variance > 0:
        return 0.0
    return 2.0 ** (math.floor(math.log2(variance) / 2 + EDGE) - GRID_BITS)


def to_grid(X: NDArray[np.floating[Any]], step: float) -> NDArray[np.float32]:
    """Round to multiples of a power of two; values that are not finite stay so.

    Parameters
    ----------
    X
        Any shape.
    step
        Spacing of the grid; 0 rounds to float32 only.

    Returns
    -------
    numpy.ndarray
        Shape of `X`, float32.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        rounded = np.rint(X / step) * step if step else X
        return rounded.astype(np.float32)
