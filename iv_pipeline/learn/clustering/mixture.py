"""Gaussian mixture, scikit-learn's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from iv_pipeline.learn.clustering.base import Clustering, Space, require_rows
from iv_pipeline.learn.clustering.kmeans import DETERMINISTIC_THREADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


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
        precision = 1 / self.variances
        constant = (
            self.log_weights
            - 0.5 * np.log(self.variances).sum(axis=1)
            - 0.5 * (self.means**2 * precision).sum(axis=1)
        )
        labels = np.empty(len(X), np.int32)
        confidence = np.empty(len(X), np.float32)
        chunk = 65_536
        for begin in range(0, len(X), chunk):
            rows = X[begin : begin + chunk].astype(np.float64)
            log = constant + rows @ (self.means * precision).T - 0.5 * (rows**2) @ precision.T
            best = log.argmax(axis=1)
            log -= log[np.arange(len(rows)), best][:, None]
            labels[begin : begin + chunk] = best
            confidence[begin : begin + chunk] = 1 / np.exp(log).sum(axis=1)
        return labels, confidence


class GaussianMixture:
    """Mixture of Gaussians with diagonal covariances."""

    name = "gaussianmixture"

    def grid(self, n_clusters: tuple[int, ...]) -> list[dict[str, Any]]:
        """The naming budget."""
        return [{"n_components": max(n_clusters)}]

    def fit(self, space: Space, parameters: Mapping[str, Any]) -> Clustering:
        """Fit the mixture to the rows of `space`, started from k-means."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Estimator

        n_components = parameters["n_components"]
        require_rows(space, n_components)
        # variances must not collapse onto repeated images: a floor relative to the data's own variance
        floor = 1e-3 * float(space.X.var(axis=0, dtype=np.float64).mean())
        estimator = Estimator(
            n_components,
            covariance_type="diag",
            reg_covar=max(floor, 1e-12),
            max_iter=50,
            init_params="kmeans",
            random_state=space.seed,
        )
        with warnings.catch_warnings(), threadpool_limits(DETERMINISTIC_THREADS, user_api="openmp"):
            # 50 rounds of EM are meant as a bound on time; the last one is as good a mixture as any
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(space.X)
        model = MixtureModel(
            estimator.means_.astype(np.float64),
            estimator.covariances_.astype(np.float64),
            np.log(np.maximum(estimator.weights_, 1e-300)).astype(np.float64),
        )
        labels, confidence = space.predict(model)
        return Clustering(
            labels, confidence, {"n_components": n_components, "covariance_type": "diag"}, model
        )
