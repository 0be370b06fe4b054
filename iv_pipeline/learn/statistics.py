"""Sufficient statistics of a descriptor: everything linear, from one pass over its batches.

Count, mean, extremes, quartiles and covariance are enough to write down every scaler and the PCA behind
each of them without reading a scaled matrix. Batches are float32, sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import BatchedMatrix, Portable, blas_threads, map_ordered, map_rows, n_workers
from iv_pipeline.errors import InputError
from iv_pipeline.learn.precision import product_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

QUANTILES = tuple(np.linspace(0, 1, 129).tolist())
"""Shares that quantiles are kept of: each addition of later rows moves them by at most one of these steps."""
PRODUCT_ROWS = 8192
"""Rows multiplied at once; products in float32 are added up in float64."""
QUARTILE_BUFFER_BYTES = 512 * 2**20
"""Columns gathered at once on all threads together: the more, the fewer times each row is visited."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of the usable rows (those without NaN or infinite values) of a descriptor.

    Attributes
    ----------
    n_rows
        All rows, usable or not.
    unusable
        Rows with a NaN or infinite value, ascending, shape ``(n_unusable,)``, int64.
    mean, minimum, maximum
        Shape ``(n_features,)``, float64.
    quantiles
        Of the shares `QUANTILES`, shape ``(n_quantiles, n_features)``, float64; interpolated linearly, as
        `numpy.percentile` does.
    covariance
        Shape ``(n_features, n_features)``, float64, divided by the number of usable rows.
    """

    n_rows: int
    unusable: NDArray[np.int64]
    mean: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @property
    def quartiles(self) -> NDArray[np.float64]:
        """Shape ``(3, n_features)``, float64."""
        step = len(QUANTILES) // 4
        return self.quantiles[step : 4 * step : step]

    @property
    def n_usable(self) -> int:
        """Rows without NaN or infinite values."""
        return self.n_rows - len(self.unusable)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.mean)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """Which rows are usable, shape ``(n_rows,)``."""
        mask = np.ones(self.n_rows, dtype=bool)
        mask[self.unusable] = False
        return mask

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Which features have one value in all usable rows, shape ``(n_features,)``."""
        constant: NDArray[np.bool_] = self.minimum == self.maximum
        return constant

    @property
    def standard_deviation(self) -> NDArray[np.float64]:
        """Shape ``(n_features,)``, float64; exactly 0 for constant features."""
        variance = np.where(self.constant, 0, np.diag(self.covariance))
        return np.sqrt(np.maximum(variance, 0))

    def select(self, columns: slice) -> Statistics:
        """The statistics of some features alone, over the same rows."""
        return Statistics(
            self.n_rows,
            self.unusable,
            self.mean[columns],
            self.minimum[columns],
            self.maximum[columns],
            self.quantiles[:, columns],
            self.covariance[columns, columns],
        )

    def followed_by(self, later: Statistics) -> Statistics:
        """The statistics of these rows and of others behind them, without a look at either.

        Counts, extremes, mean and covariance are exact (Chan, Golub, LeVeque 1983); quantiles are those of the
        two sets of quantiles, each weighted with its rows, and at most one step of `QUANTILES` off in rank.

        Raises
        ------
        ValueError
            If the others have other features.
        """
        if self.n_features != later.n_features:
            raise ValueError(f"rows of {later.n_features} features cannot follow rows of {self.n_features}")
        n, share = self.n_usable + later.n_usable, later.n_usable / (self.n_usable + later.n_usable)
        apart = later.mean - self.mean
        return Statistics(
            self.n_rows + later.n_rows,
            np.concatenate([self.unusable, later.unusable + self.n_rows]),
            self.mean + share * apart,
            np.minimum(self.minimum, later.minimum),
            np.maximum(self.maximum, later.maximum),
            _joint_quantiles(self.quantiles, later.quantiles, self.n_usable / n, share),
            (1 - share) * self.covariance
            + share * later.covariance
            + share * (1 - share) * np.outer(apart, apart),
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The statistics as plain arrays, the quartiles among them once more by their name."""
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        return {**arrays, "quartiles": self.quartiles}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Statistics:
        """The inverse of `to_arrays`."""
        named = {field.name: arrays[field.name] for field in fields(cls) if field.name != "n_rows"}
        return cls(int(arrays["n_rows"]), **named)


def finite_rows(rows: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which rows hold neither NaN nor infinity, shape ``(n_rows,)``.

    A finite sum proves a row finite at the price of one reduction; only the others are looked at closely.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        finite: NDArray[np.bool_] = np.isfinite(rows.sum(axis=1))
    doubtful = np.flatnonzero(~finite)
    if len(doubtful):
        finite[doubtful] = np.isfinite(rows[doubtful]).all(axis=1)
    return finite


@dataclass(frozen=True)
class FiniteRows:
    """The usable rows of a matrix, as a matrix whose batches differ in size.

    Attributes
    ----------
    matrix
        Shape ``(n_rows, n_features)``.
    n_usable
        How many of its rows are finite.
    """

    matrix: BatchedMatrix
    n_usable: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_usable, n_features)``."""
        return self.n_usable, self.matrix.shape[1]

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return self.matrix.n_batches

    @property
    def is_portable(self) -> bool:
        """Whether a worker elsewhere can read the matrix."""
        return isinstance(self.matrix, Portable) and self.matrix.is_portable

    def batch(self, index: int) -> NDArray[np.float32]:
        """The finite rows of batch `index`."""
        rows = self.matrix.batch(index)
        finite = finite_rows(rows)
        return rows if finite.all() else rows[finite]


@dataclass
class _Moments:
    """Sums over some batches of ``z = (x - shift) / scale``; products of a single batch are float32."""

    count: int
    total: NDArray[np.float64]
    products: NDArray[np.floating[Any]]
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]

    def add(self, other: _Moments) -> None:
        self.count += other.count
        self.total += other.total
        self.products += other.products
        np.minimum(self.minimum, other.minimum, out=self.minimum)
        np.maximum(self.maximum, other.maximum, out=self.maximum)


def compute_statistics(matrix: BatchedMatrix) -> Statistics:
    """Statistics of a descriptor.

    Rows are shifted by a first guess of the mean and divided by a power of two before they are squared, so that
    neither an offset nor the scale of a feature costs precision. Squares are float64 up to
    `iv_pipeline.learn.precision.REPRODUCIBLE_ROWS` rows, float32 beyond.

    Parameters
    ----------
    matrix
        Shape ``(n_rows, n_features)``, float32; read twice, once by rows and once by columns.

    Raises
    ------
    InputError
        If fewer than two rows are usable.
    """
    n_rows, n_features = matrix.shape
    shift, scale = _first_guess(matrix)
    dtype = product_dtype(n_rows)
    moments = _empty_moments(n_features)
    usable = []
    with blas_threads(1):  # the batches run in parallel
        for part, finite in map_rows(lambda rows: _moments(rows, shift, scale, dtype), matrix):
            moments.add(part)
            usable.append(finite)
    mask = np.concatenate(usable)
    if moments.count < 2:
        raise InputError(
            f"only {moments.count} of {n_rows:,} rows are free of NaN and infinite values; two are the least"
        )
    offset = moments.total / moments.count
    covariance = moments.products / moments.count - np.outer(offset, offset)
    wide = scale.astype(np.float64)
    return Statistics(
        n_rows=n_rows,
        unusable=np.flatnonzero(~mask),
        mean=shift + offset * wide,
        minimum=moments.minimum.astype(np.float64),
        maximum=moments.maximum.astype(np.float64),
        quantiles=compute_quantiles(matrix, mask, QUANTILES),
        covariance=covariance * np.outer(wide, wide),
    )


def _first_guess(matrix: BatchedMatrix) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A value near the mean and a power of two near the spread of each feature, from the first rows."""
    n_features = matrix.shape[1]
    for i in range(matrix.n_batches):
        rows = matrix.batch(i)
        rows = rows[finite_rows(rows)].astype(np.float64)
        if len(rows):
            shift = rows.mean(axis=0).astype(np.float32)
            spread = np.abs(rows - shift).max(axis=0)
            exponent = np.where(spread > 0, np.frexp(spread)[1], 0).clip(-100, 100)
            return shift, np.ldexp(np.float32(1), exponent).astype(np.float32)
    return np.zeros(n_features, np.float32), np.ones(n_features, np.float32)


def _moments(
    rows: NDArray[np.float32],
    shift: NDArray[np.float32],
    scale: NDArray[np.float32],
    dtype: type[np.floating[Any]],
) -> tuple[_Moments, NDArray[np.bool_]]:
    finite = finite_rows(rows)
    if not finite.all():
        rows = rows[finite]
    if not len(rows):
        return _empty_moments(rows.shape[1]), finite
    inverse = np.reciprocal(scale)
    parts = [
        _shifted_sums(rows[i : i + PRODUCT_ROWS], shift, inverse, dtype)
        for i in range(0, len(rows), PRODUCT_ROWS)
    ]
    total, products = parts[0] if len(parts) == 1 else map(_added_up, zip(*parts, strict=True))
    return _Moments(len(rows), total, products, rows.min(axis=0), rows.max(axis=0)), finite


def _shifted_sums(
    rows: NDArray[np.float32],
    shift: NDArray[np.float32],
    inverse: NDArray[np.float32],
    dtype: type[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.floating[Any]]]:
    """Sums and products of shifted and scaled rows, few enough for products in float32."""
    z = rows - shift
    z *= inverse
    z = z.astype(dtype, copy=False)
    # NumPy sees that both are one matrix, multiplies half of it, and lets go of the interpreter meanwhile
    return z.sum(axis=0, dtype=np.float64), z.T @ z


def _added_up(parts: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sum(parts, axis=0, dtype=np.float64)
    return total


def _empty_moments(n_features: int) -> _Moments:
    return _Moments(
        0,
        np.zeros(n_features),
        np.zeros((n_features, n_features)),
        np.full(n_features, np.inf, np.float32),
        np.full(n_features, -np.inf, np.float32),
    )


def _joint_quantiles(
    first: NDArray[np.float64], second: NDArray[np.float64], weight: float, other: float
) -> NDArray[np.float64]:
    """Quantiles of a mixture of two distributions, each known by its quantiles of equally spaced shares."""
    step = np.ones(len(first))
    step[[0, -1]] = 0.5  # a quantile stands for the rows around it, the extremes for those on one side
    weights = np.concatenate([weight * step, other * step]) / step.sum()
    values = np.concatenate([first, second])
    order = values.argsort(axis=0, kind="stable")
    joint = np.empty_like(first)
    for feature, rows in enumerate(order.T):
        behind = np.cumsum(weights[rows]) - weights[rows] / 2
        joint[:, feature] = np.interp(QUANTILES, behind, values[rows, feature])
    return joint


def compute_quantiles(
    matrix: BatchedMatrix, usable: NDArray[np.bool_], shares: tuple[float, ...]
) -> NDArray[np.float64]:
    """Exact quantiles of every feature over the usable rows, shape ``(len(shares), n_features)``.

    Blocks of columns are gathered and sorted side by side, each within a fixed buffer: NumPy sorts floats with
    vector instructions, several times faster than it finds three quartiles.

    Parameters
    ----------
    matrix
        Shape ``(n_rows, n_features)``.
    usable
        Shape ``(n_rows,)``.
    shares
        Quantiles in [0, 1]; interpolated linearly between order statistics.
    """
    n_features = matrix.shape[1]
    n = int(usable.sum())
    positions = np.array(shares) * (n - 1)
    lower = np.floor(positions).astype(np.int64)
    upper = np.minimum(lower + 1, n - 1)
    workers = n_workers()
    width = max(1, min(-(-n_features // workers), QUARTILE_BUFFER_BYTES // (4 * n * workers)))

    def block(index: int) -> NDArray[np.float64]:
        columns = _gather_columns(matrix, usable, n, slice(index * width, (index + 1) * width))
        columns.sort(axis=1)
        low, high = columns[:, lower].astype(np.float64), columns[:, upper].astype(np.float64)
        quantiles: NDArray[np.float64] = (low + (high - low) * (positions - lower)).T
        return quantiles

    return np.hstack(list(map_ordered(block, -(-n_features // width))))


def _gather_columns(
    matrix: BatchedMatrix, usable: NDArray[np.bool_], n: int, columns: slice
) -> NDArray[np.float32]:
    """The usable rows of some columns, a row a column, shape ``(n_columns, n)``."""
    everything = bool(usable.all())
    gathered = np.empty((len(range(*columns.indices(matrix.shape[1]))), n), np.float32)
    done, seen = 0, 0
    for i in range(matrix.n_batches):
        rows = matrix.batch(i)
        kept = rows[:, columns] if everything else rows[usable[seen : seen + len(rows)], columns]
        # two copies, for a strided read and a transposed write in one would miss the cache at every number
        gathered[:, done : done + len(kept)] = np.ascontiguousarray(kept).T
        done += len(kept)
        seen += len(rows)
    return gathered
