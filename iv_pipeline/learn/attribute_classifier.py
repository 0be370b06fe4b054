"""A classifier of images by their joint features, calibrated on answers that were held out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from iv_pipeline.engine import blas_threads, map_ordered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Coefficients = tuple[NDArray[np.float64], NDArray[np.float64]]

STRENGTH = 3.0
"""Inverse strength of the penalty. Values from 1 to 10 do about equally well: held-out answers would choose among
them by chance."""
TEMPERATURES = np.geomspace(0.5, 2.0, 15)
"""Divisors of the logits that are tried on held-out answers."""
N_FOLDS = 5
MAX_ROWS = 5_000
"""Rows that a classifier is fitted to at most."""
ABSENT = -20.0
"""Logit of a class that a fold has no rows of."""
MAX_ITERATIONS = 100
TOLERANCE = 1e-3


class AttributeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multinomial logistic regression with a temperature (Guo et al. 2017) learned from held-out answers.

    Parameters
    ----------
    strengths
        Inverse strengths of the penalty to choose from by the log-loss of held-out answers, as `C` of
        `sklearn.linear_model.LogisticRegression`.
    n_folds
        Folds of answers that are held out in turn. With fewer than two answers for each, the middle strength is
        taken and the temperature is 1.
    max_rows
        Rows that it is fitted to at most: the heaviest, evenly spaced ones where weights are equal.

    Attributes
    ----------
    classes_
        Values, sorted, shape ``(n_classes,)``.
    C_
        The strength chosen.
    temperature_
        Divisor of the logits: halfway, on a logarithmic scale, between 1 and the one of the least log-loss on
        held-out answers. These are answers about regions of which nothing else is known, and leave out what
        people could not agree on, so that alone they mislead both ways.
    coef_, intercept_
        Of each class, before the temperature, shapes ``(n_classes, n_features)`` and ``(n_classes,)``.
    n_features_in_
        Number of features.
    n_answers_
        Number of answers that the labels are from.
    """

    def __init__(
        self,
        strengths: tuple[float, ...] = (STRENGTH,),
        n_folds: int = N_FOLDS,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self.strengths = strengths
        self.n_folds = n_folds
        self.max_rows = max_rows

    def fit(
        self,
        X: NDArray[np.floating[Any]],
        y: NDArray[Any],
        sample_weight: NDArray[np.float64] | None = None,
        groups: NDArray[np.int64] | None = None,
    ) -> AttributeClassifier:
        """Fit to rows with labels.

        Parameters
        ----------
        X
            Shape ``(n_votes, n_features)``, finite.
        y
            Integers or strings, shape ``(n_votes,)``.
        sample_weight
            Shape ``(n_votes,)``; None for equal weights.
        groups
            Answer that each label is from, shape ``(n_votes,)``; None if every row is an answer of its own.

        Raises
        ------
        ValueError
            If there are no rows.
        """
        if not len(y):
            raise ValueError("y is empty: there are no labels to learn from")
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        groups = np.arange(len(y)) if groups is None else np.asarray(groups)
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        kept = _heaviest(weights, self.max_rows)
        votes = _Labeled(np.asarray(X[kept], np.float64), codes[kept], weights[kept], groups[kept])
        self.n_features_in_ = votes.X.shape[1]
        self.n_answers_ = len(np.unique(groups))
        with blas_threads(
            1
        ):  # the products are small: threads would wait for each other longer than they work
            self.C_, self.temperature_, (self.coef_, self.intercept_) = self._choose(votes)
        return self

    def decision_function(self, X: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Logits over the temperature, shape ``(n_rows, n_classes)``, whatever the number of classes."""
        logits: NDArray[np.float64] = (X @ self.coef_.T + self.intercept_) / self.temperature_
        return logits

    def predict_proba(self, X: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Calibrated probability of each class, shape ``(n_rows, n_classes)``."""
        return _softmax(self.decision_function(X))

    def predict(self, X: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Most probable class of each row."""
        return np.asarray(self.classes_[self.decision_function(X).argmax(axis=1)])

    def _choose(self, votes: _Labeled) -> tuple[float, float, _Coefficients]:
        """Strength of the least log-loss on held-out answers, temperature, and the fit to all rows."""
        n_classes = len(self.classes_)
        judged = votes.comparable(n_classes)
        if len(np.unique(votes.groups[judged])) < 2 * self.n_folds or n_classes < 2:
            default = self.strengths[len(self.strengths) // 2]
            return default, 1.0, _fit_logistic(votes, n_classes, default)
        fold = votes.folds(self.n_folds)
        found = []
        for C in self.strengths:
            fit = partial(_fit_without, votes, fold, n_classes, C)
            *held_out, fitted = map_ordered(fit, self.n_folds + 1)  # the last leaves nothing out
            logits = np.empty((len(votes.X), n_classes))
            for i, (coef, intercept) in enumerate(held_out):
                logits[fold == i] = votes.X[fold == i] @ coef.T + intercept
            losses = [_log_loss(logits[judged] / t, votes.codes[judged]) for t in TEMPERATURES]
            best = int(np.argmin(losses))
            found.append((losses[best], C, float(np.sqrt(TEMPERATURES[best])), fitted))
        _, C, temperature, fitted = min(found, key=lambda candidate: candidate[:3])
        return C, temperature, fitted


class _Labeled(NamedTuple):
    """Rows, codes of their classes, weights and answers."""

    X: NDArray[np.float64]
    codes: NDArray[np.int64]
    weights: NDArray[np.float64]
    groups: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> _Labeled:
        """Some of the rows."""
        return _Labeled(self.X[rows], self.codes[rows], self.weights[rows], self.groups[rows])

    def folds(self, n_folds: int) -> NDArray[np.int64]:
        """Fold of each row: answers stay whole, and those that give one class go to the folds in turn."""
        _, first, answer = np.unique(self.groups, return_index=True, return_inverse=True)
        fold = np.empty(len(first), np.int64)
        fold[np.argsort(self.codes[first], kind="stable")] = np.arange(len(first)) % n_folds
        return fold[answer]

    def comparable(self, n_classes: int) -> NDArray[np.bool_]:
        """Rows of full weight whose class another answer gives, too: others cannot be predicted if held out."""
        pairs = np.unique(np.stack([self.codes, self.groups]), axis=1)
        answers = np.bincount(pairs[0], minlength=n_classes)
        full: NDArray[np.bool_] = (self.weights >= self.weights.max()) & (answers[self.codes] > 1)
        return full


def _heaviest(weights: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """At most `n` rows of the greatest weights, ascending; of equal weights, evenly spaced ones."""
    if len(weights) <= n:
        return np.arange(len(weights))
    limit = np.sort(weights)[-n]
    above, equal = np.flatnonzero(weights > limit), np.flatnonzero(weights == limit)
    spaced = equal[np.linspace(0, len(equal) - 1, n - len(above)).astype(np.int64)]
    return np.sort(np.concatenate([above, spaced]))


def _fit_without(
    votes: _Labeled, fold: NDArray[np.int64], n_classes: int, C: float, left_out: int
) -> _Coefficients:
    return _fit_logistic(votes.take(fold != left_out), n_classes, C)


def _fit_logistic(votes: _Labeled, n_classes: int, C: float) -> _Coefficients:
    """Coefficients and intercepts of all classes; those without rows are all but impossible."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(votes.codes)
    coef = np.zeros((n_classes, votes.X.shape[1]))
    intercept = np.full(n_classes, ABSENT)
    intercept[present] = 0.0
    if len(present) > 1:
        model = LogisticRegression(C=C, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
        model.fit(votes.X, votes.codes, sample_weight=votes.weights)
        signs = np.array([-0.5, 0.5]) if len(present) == 2 else np.ones(len(present))
        coef[present] = model.coef_ * signs[:, None]
        intercept[present] = model.intercept_ * signs
    return coef, intercept


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _log_loss(logits: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Mean of the negative log-probability of the true class."""
    p = _softmax(logits)[np.arange(len(codes)), codes]
    return float(-np.log(np.maximum(p, 1e-9)).mean())
