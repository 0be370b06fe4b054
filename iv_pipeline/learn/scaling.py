"""Scalers written down from statistics; no data is read to fit one.

The three are scikit-learn's `StandardScaler`, `MinMaxScaler` and `RobustScaler`: each is a diagonal affine
map ``(x - center) / scale``. Where several descriptors stand side by side, every block is weighted to the same
total variance, so that neither the width nor the units of a network decide what is clustered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.scaler import Scaler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from iv_pipeline.learn.statistics import Statistics


SCALERS = ("standard", "minmax", "robust")
"""Names of the scalers; among equally good ones the first is taken."""


def fit_scaler(kind: str, statistics: Statistics, blocks: Sequence[int] = ()) -> Scaler:
    """The scaler `kind` of the data that `statistics` describe.

    Parameters
    ----------
    kind
        ``"standard"``, ``"minmax"`` or ``"robust"``.
    statistics
        Of the usable rows.
    blocks
        Widths of the descriptors that stand side by side, if there are several.

    Notes
    -----
    As in scikit-learn, a feature whose spread is 0 is centered and scaled by 1.
    """
    if kind == "standard":
        center, scale = statistics.mean, statistics.standard_deviation
    elif kind == "minmax":
        center, scale = statistics.minimum, statistics.maximum - statistics.minimum
    elif kind == "robust":
        center, scale = statistics.quartiles[1], statistics.quartiles[2] - statistics.quartiles[0]
    else:
        raise ValueError(f"unknown scaler {kind!r}: use one of {', '.join(SCALERS)}")
    scale = np.where(scale < 10 * np.finfo(np.float64).eps, 1.0, scale)
    if len(blocks) > 1:
        scale = scale * _block_weights(statistics, scale, blocks)
    return Scaler(center, scale)


def _block_weights(
    statistics: Statistics, scale: NDArray[np.float64], blocks: Sequence[int]
) -> NDArray[np.float64]:
    """What to divide each feature by so that every block has the same total variance, the mean of theirs."""
    variance = statistics.standard_deviation**2 / scale**2
    totals = np.array([part.sum() for part in np.split(variance, np.cumsum(blocks)[:-1])])
    target = totals.mean()
    weights = np.sqrt(np.where(totals > 0, totals, 1) / (target or 1))
    return np.repeat(np.where(totals > 0, weights, 1), blocks)
