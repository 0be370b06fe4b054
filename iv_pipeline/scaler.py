"""A scaler: what the numerics fit, and what a stored table may apply while it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scaler:
    """The map ``(x - center) / scale``.

    Attributes
    ----------
    center, scale
        Shape ``(n_features,)``, float64; `scale` is never 0.
    """

    center: NDArray[np.float64]
    scale: NDArray[np.float64]

    def transform(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Scaled rows, shape ``(n_rows, n_features)``, float32.

        The centre is subtracted in float32, where nearby numbers subtract exactly; what rounding the centre
        to float32 left over is added afterwards.
        """
        center = self.center.astype(np.float32)
        residue = ((center - self.center) / self.scale).astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            out = rows.astype(np.float32, copy=False) - center
            out *= (1 / self.scale).astype(np.float32)
            if residue.any():
                out += residue
        return out
