"""Vectors as people hold them, as the rows of a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import pandas as pd

from iv_pipeline.engine import ArrayBatches, BatchedMatrix
from iv_pipeline.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Vectors: TypeAlias = "NDArray[Any] | Sequence[Any] | pd.DataFrame | pd.Series[Any] | BatchedMatrix"
"""An array of shape ``(n_rows, n_features)``, which may be a memory map, or one vector of shape ``(n_features,)``;
a list of vectors; a frame with a column for each feature; anything that is read batch by batch."""


def as_matrix(X: Vectors, n_features: int) -> BatchedMatrix:
    """Vectors as a matrix that is read batch by batch.

    Parameters
    ----------
    X
        See `Vectors`; columns of a frame that hold no numbers, such as paths, are left out.
    n_features
        Features that each vector must have.

    Raises
    ------
    InputError
        If `X` has another shape or holds something else than numbers; it says which shape is needed.
    """
    if hasattr(X, "batch") and hasattr(X, "n_batches"):
        batched = cast("BatchedMatrix", X)
        _require(tuple(batched.shape), n_features)
        return batched
    array = _array(X, n_features)
    if array.shape == (n_features,):
        array = array[None, :]
    if array.shape == (0,):
        array = np.empty((0, n_features), np.float32)
    _require(array.shape, n_features)
    return ArrayBatches(array)


def _array(X: Any, n_features: int) -> NDArray[Any]:
    """The numbers of `X`."""
    try:
        if isinstance(X, pd.DataFrame):
            return X.select_dtypes("number").to_numpy(np.float64, na_value=np.nan)
        array = np.asarray(X)
        if array.dtype == object:  # such as an array of arrays
            array = np.array(array.tolist(), np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _wrong("vectors of different lengths, or something else than numbers", n_features) from None
    if array.dtype.kind not in "biuf":
        raise _wrong(f"values of the type {array.dtype.name}", n_features)
    return array


def _require(shape: tuple[int, ...], n_features: int) -> None:
    if len(shape) != 2 or shape[1] != n_features:
        raise _wrong(f"an array of the shape {shape}", n_features)


def _wrong(given: str, n_features: int) -> InputError:
    return InputError(
        f"{given} cannot be labelled: the fit had {n_features:,} features",
        fix=f"give an array of the shape (n_rows, {n_features}), or one vector of {n_features} numbers",
    )
