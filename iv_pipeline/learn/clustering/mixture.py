"""Gaussian mixture with diagonal covariances: scikit-learn's model, fitted batch by batch.

Beyond its start on a sample, memory does not grow with the rows; sums over batches come in the order of the
batches, so that they do not depend on where these are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from iv_pipeline.engine import BatchedMatrix, blas_threads, map_rows
from iv_pipeline.learn.clustering.base import Clustering, PrototypeModel, Space
from iv_pipeline.learn.clustering.kmeans import DETERMINISTIC_THREADS, sample_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

MAX_ROUNDS = 50
"""Of expectation and maximisation: a bound on time, the last mixture is as good as any."""
TOLERANCE = 1e-3
"""Gain of the mean log-likelihood below which it ends, as in scikit-learn."""
FLOOR_SHARE = 1e-3
"""Least variance, relative to the data's own: components must not collapse onto repeated images."""


@dataclass(frozen=True)
class MixtureModel:
    """Each row belongs to the component most likely to have made it.

    Attributes
    ----------
    means, variances
        Of diagonal Gaussians, shape ``(n_components, n_features)``, float64.
    log_weights
        Shape ``(n_components,)``, float64.
    """

    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    log_weights: NDArray[np.float64]

    def predict(self, X: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Component of each row, and its posterior probability."""
        labels = np.empty(len(X), np.int32)
        confidence = np.empty(len(X), np.float32)
        chunk = 65_536
        for begin in range(0, len(X), chunk):
            log = self.log_densities(_with_squares(X[begin : begin + chunk]))
            best = log.argmax(axis=1)
            log -= log[np.arange(len(log)), best][:, None]
            labels[begin : begin + chunk] = best
            confidence[begin : begin + chunk] = 1 / np.exp(log).sum(axis=1)
        return labels, confidence

    def log_densities(self, squared: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithm of weight times density, less ``n_features / 2 log(2 pi)``, of each row and component.

        Parameters
        ----------
        squared
            The rows with their squares beside them, shape ``(n_rows, 2 n_features)``.
        """
        precision = 1 / self.variances
        constant = (
            self.log_weights
            - 0.5 * np.log(self.variances).sum(axis=1)
            - 0.5 * (self.means**2 * precision).sum(axis=1)
        )
        log: NDArray[np.float64] = squared @ np.hstack([self.means * precision, -0.5 * precision]).T
        log += constant
        return log


class GaussianMixture:
    """Mixture of Gaussians with diagonal covariances."""

    name = "gaussianmixture"

    def grid(self, n_clusters: int) -> list[dict[str, Any]]:
        """The naming budget."""
        return [{"n_components": n_clusters}]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Fit the mixture to the rows of `space`, started from k-means."""
        n_components = parameters["n_components"]
        floor = max(FLOOR_SHARE * _mean_variance(space.batches), 1e-12)
        model = fit_mixture(space.batches, _start(space, n_components), floor)
        labels, confidence = space.predict(model)
        return Clustering(
            labels, confidence, {"n_components": n_components, "covariance_type": "diag"}, model
        )


def _start(space: Space, n_components: int) -> PrototypeModel:
    """K-means of a sample of the rows, as scikit-learn starts its mixtures."""
    from sklearn.cluster import KMeans

    known = space.start(n_components)
    if known is not None:
        return PrototypeModel(known, np.arange(n_components, dtype=np.int32))
    with threadpool_limits(DETERMINISTIC_THREADS, user_api="openmp"):
        estimator = KMeans(n_components, n_init=1, random_state=space.seed).fit(sample_rows(space))
    return PrototypeModel(estimator.cluster_centers_, np.arange(n_components, dtype=np.int32))


def _mean_variance(matrix: BatchedMatrix) -> float:
    """Variance of the features, their mean."""
    count, total, square = _added_up(map_rows(_sums, matrix))
    return float((square / count - np.square(total / count)).mean())


def _sums(rows: NDArray[np.float32]) -> Any:
    return len(rows), rows.sum(axis=0, dtype=np.float64), np.square(rows, dtype=np.float64).sum(axis=0)


def _added_up(parts: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Sums over batches, in their order."""
    total: tuple[Any, ...] = ()
    for part in parts:
        total = tuple(a + b for a, b in zip(total, part, strict=True)) if total else part
    return total


def fit_mixture(matrix: BatchedMatrix, start: PrototypeModel, floor: float) -> MixtureModel:
    """Expectation and maximisation over batches (Dempster, Laird, Rubin 1977).

    Parameters
    ----------
    matrix
        Shape ``(n_rows, n_features)``, finite.
    start
        Assigns each row to the component that it starts in.
    floor
        Added to every variance, like scikit-learn's `reg_covar`.

    Returns
    -------
    MixtureModel
        After `MAX_ROUNDS`, or once the mean log-likelihood gains less than `TOLERANCE`.
    """
    with blas_threads(1):  # the batches run in parallel
        model, _ = _maximise(partial(_start_sums, start), matrix, floor)
        before = -np.inf
        for _ in range(MAX_ROUNDS):
            model, likelihood = _maximise(partial(_expect, model), matrix, floor)
            if abs(likelihood - before) < TOLERANCE:
                break
            before = likelihood
    return model


def _maximise(expect: Any, matrix: BatchedMatrix, floor: float) -> tuple[MixtureModel, float]:
    """The mixture that makes the expected components likeliest, and the mean log-likelihood before it."""
    count, total, likelihood = _added_up(map_rows(expect, matrix))
    n_features = matrix.shape[1]
    weight = count + 10 * np.finfo(np.float64).eps
    mean, square = np.split(total / weight[:, None], [n_features], axis=1)
    variance = np.maximum(square - mean**2, 0) + floor
    model = MixtureModel(mean, variance, np.log(weight / weight.sum()))
    return model, float(likelihood / count.sum())


def _start_sums(start: PrototypeModel, rows: NDArray[np.float32]) -> Any:
    responsibility = np.eye(len(start.prototypes))[start.predict(rows)[0]]
    return responsibility.sum(axis=0), responsibility.T @ _with_squares(rows), 0.0


def _expect(model: MixtureModel, rows: NDArray[np.float32]) -> Any:
    """Weight, weighted sums and log-likelihood that the rows of a batch give to each component."""
    squared = _with_squares(rows)
    log = model.log_densities(squared)
    highest = log.max(axis=1, keepdims=True, initial=-np.inf)
    responsibility = np.exp(log - highest)
    density = responsibility.sum(axis=1, keepdims=True)
    responsibility /= density
    likelihood = float((np.log(density) + highest).sum())
    return responsibility.sum(axis=0), responsibility.T @ squared, likelihood


def _with_squares(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    n_features = rows.shape[1]
    squared = np.empty((len(rows), 2 * n_features))
    squared[:, :n_features] = rows
    np.square(squared[:, :n_features], out=squared[:, n_features:])
    return squared
