"""Principal components of scaled data, from the covariance of the raw descriptor.

Scaling is a diagonal matrix S, so the covariance of the scaled data is S·C·S: its eigenvectors are the
components, and scaler and PCA together are a single affine map of the raw rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh

from iv_pipeline.errors import InputError
from iv_pipeline.learn.precision import REPRODUCIBLE_ROWS, grid_step, to_grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from iv_pipeline.learn.statistics import Statistics
    from iv_pipeline.scaler import Scaler

SAME = 1e-9
"""Shares of the variance that differ by less are equal: eigenvalues of 0 are rounding."""


@dataclass(frozen=True)
class PCA:
    """Scaler and principal components as one affine map.

    Attributes
    ----------
    mean
        Of the raw features, shape ``(n_features,)``, float64.
    scale
        Of the scaler, shape ``(n_features,)``, float64.
    components
        Orthonormal rows in the scaled space, shape ``(n_components, n_features)``, float64; the first entry of
        largest magnitude of each is positive, as in scikit-learn.
    explained_variance
        Of each component, shape ``(n_components,)``, float64, descending.
    total_variance
        Of the scaled data.
    step
        Spacing of the grid that reduced rows are rounded to after a product in float64, so that they are the same
        on every processor; 0 for a product in float32, as fits of many rows have.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]
    explained_variance: NDArray[np.float64]
    total_variance: float
    step: float = 0.0

    @property
    def n_components(self) -> int:
        """Number of components."""
        return len(self.components)

    @property
    def explained_variance_ratio(self) -> NDArray[np.float64]:
        """Share of the variance that each component explains, shape ``(n_components,)``."""
        return self.explained_variance / self.total_variance

    def transform(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Reduced rows, shape ``(n_rows, n_components)``, float32."""
        return Projection([self])(rows)[0]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The map as plain arrays."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "components": self.components,
            "explained_variance": self.explained_variance,
            "total_variance": np.asarray(self.total_variance),
            "step": np.asarray(self.step),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PCA:
        """The inverse of `to_arrays`; arrays of an earlier version have no `step`."""
        return cls(
            arrays["mean"],
            arrays["scale"],
            arrays["components"],
            arrays["explained_variance"],
            float(arrays["total_variance"]),
            float(arrays["step"]) if "step" in arrays else 0.0,
        )


def pack_maps(maps: Mapping[str, PCA]) -> dict[str, NDArray[Any]]:
    """The maps behind several scalers as plain arrays, ``<scaler>/<array>``."""
    return {
        f"{scaler}/{key}": value for scaler, pca in maps.items() for key, value in pca.to_arrays().items()
    }


def unpack_maps(arrays: Mapping[str, NDArray[Any]]) -> dict[str, PCA]:
    """The inverse of `pack_maps`."""
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for key, value in arrays.items():
        scaler, _, name = key.partition("/")
        parts.setdefault(scaler, {})[name] = value
    return {scaler: PCA.from_arrays(part) for scaler, part in parts.items()}


def fit_pca(statistics: Statistics, scaler: Scaler, variance: float, max_components: int) -> PCA:
    """The fewest components of the scaled data that keep a share of its variance.

    Parameters
    ----------
    statistics
        Of the raw data.
    scaler
        Fitted on the same statistics.
    variance
        Share of the variance to keep, in (0, 1].
    max_components
        At most so many components, whatever they keep.

    Raises
    ------
    InputError
        If every feature is constant.
    """
    n_features = statistics.n_features
    scaled = statistics.covariance / np.outer(scaler.scale, scaler.scale)
    total = float(np.trace(scaled))
    if not (statistics.standard_deviation > 0).any():
        raise InputError("every feature is constant: there is nothing to reduce or to cluster")
    most = min(max_components, n_features, max(statistics.n_usable - 1, 1))
    values, vectors = eigh(scaled, subset_by_index=(n_features - most, n_features - 1), driver="evr")
    values, components = np.maximum(values[::-1], 0), vectors.T[::-1]
    share = np.cumsum(values) / total
    n_components = min(int(np.searchsorted(share, variance - SAME) + 1), most)
    components = components[:n_components]
    # of equally large entries the first, whatever their last digits are
    largest = np.abs(components).round(6).argmax(axis=1)
    signs = np.sign(components[np.arange(n_components), largest])
    return PCA(
        mean=statistics.mean,
        scale=scaler.scale,
        components=components * signs[:, None],
        explained_variance=values[:n_components],
        total_variance=total,
        step=grid_step(total) if statistics.n_rows <= REPRODUCIBLE_ROWS else 0.0,
    )


class Projection:
    """Several maps of the same data in one multiplication.

    Parameters
    ----------
    maps
        Fitted on the same statistics, so that they share a mean.
    """

    def __init__(self, maps: Sequence[PCA]) -> None:
        stacked = np.concatenate([(pca.components / pca.scale).T for pca in maps], axis=1)
        self._steps = [pca.step for pca in maps]
        self._dtype: type[np.floating[Any]] = np.float64 if all(self._steps) else np.float32
        self._mean: NDArray[np.floating[Any]] = maps[0].mean.astype(self._dtype)
        self._matrix: NDArray[np.floating[Any]] = stacked.astype(self._dtype)
        # what rounding the mean left over, mapped like the rest
        self._residue = ((self._mean - maps[0].mean) @ stacked).astype(self._dtype)
        self._ends = np.cumsum([pca.n_components for pca in maps])[:-1]

    def __call__(self, rows: NDArray[np.floating[Any]]) -> list[NDArray[np.float32]]:
        """Reduce raw rows, shape ``(n_rows, n_features)``, to one float32 matrix for each map."""
        with np.errstate(invalid="ignore", over="ignore"):
            reduced = (rows.astype(self._dtype, copy=False) - self._mean) @ self._matrix + self._residue
        parts = np.split(reduced, self._ends, axis=1)
        return [
            np.ascontiguousarray(to_grid(part, step)) for part, step in zip(parts, self._steps, strict=True)
        ]
