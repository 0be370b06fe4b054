"""Values of an attribute for every image, learned from answers about few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MEMBER_WEIGHT = 0.1
"""Weight of an image that nobody looked at but whose group was answered, where one looked at counts 1."""
MAX_MEMBERS = 200
"""Images of one group that vote without having been looked at: more say nothing new."""
STRENGTHS = (1.0, 10.0)
"""Inverse strengths of the penalty that are tried."""
TEMPERATURES = np.geomspace(0.5, 2.0, 13)
N_FOLDS = 5
MAX_ROWS = 5_000
MAX_ITERATIONS = 100
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Answer:
    """What a person said of a group of images, or of a single one.

    Attributes
    ----------
    members
        Rows of the group, shape ``(n_members,)``; of one row, the answer is a fact.
    shown
        Those of them that the person looked at.
    value
        Value of the attribute; None where the images shown do not agree.
    """

    members: NDArray[np.int64]
    shown: NDArray[np.int64]
    value: str | None

    @property
    def is_fact(self) -> bool:
        """Whether it is about a single image."""
        return len(self.members) == 1


class Votes(NamedTuple):
    """Labels of rows, each from one answer; a row may have several.

    Attributes
    ----------
    rows
        Shape ``(n_votes,)``, int64.
    labels
        Value that each row is given, shape ``(n_votes,)``.
    weights
        1 for an image that was looked at, shape ``(n_votes,)``.
    groups
        Answer that each vote is from, as a position in the list, shape ``(n_votes,)``.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.str_]
    weights: NDArray[np.float64]
    groups: NDArray[np.int64]


def votes_of(answers: Sequence[Answer], n_rows: int) -> Votes:
    """Votes of rows that answers about one attribute give.

    1. A single image is a fact: no other answer votes on it.
    2. An answer overrides, on its own members, every answer about a group that contains all of them and more;
       so does one that says that the images do not agree, which gives no votes itself.
    3. Images shown get the value with weight 1, the other members with `MEMBER_WEIGHT`, evenly spaced ones of
       them if they are more than `MAX_MEMBERS`.

    Parameters
    ----------
    answers
        In the order in which they were given; of several about the same rows, the last counts.
    n_rows
        Number of rows of the delivery.
    """
    parts: list[tuple[NDArray[np.int64], str, NDArray[np.float64], int]] = []
    overridden = _overridden(answers, n_rows)
    for i, answer in enumerate(answers):
        if answer.value is None:
            continue
        shown = np.setdiff1d(answer.shown, overridden[i])
        others = np.setdiff1d(np.setdiff1d(answer.members, answer.shown), overridden[i])
        if len(others) > MAX_MEMBERS:
            others = others[np.linspace(0, len(others) - 1, MAX_MEMBERS).astype(np.int64)]
        weights = np.repeat([1.0, MEMBER_WEIGHT], [len(shown), len(others)])
        parts.append((np.concatenate([shown, others]), answer.value, weights, i))
    if not parts:
        return Votes(np.empty(0, np.int64), np.empty(0, np.str_), np.empty(0), np.empty(0, np.int64))
    lengths = [len(rows) for rows, *_ in parts]
    return Votes(
        np.concatenate([rows for rows, *_ in parts]).astype(np.int64),
        np.repeat([value for _, value, *_ in parts], lengths),
        np.concatenate([weights for *_, weights, _ in parts]),
        np.repeat([i for *_, i in parts], lengths).astype(np.int64),
    )


def _overridden(answers: Sequence[Answer], n_rows: int) -> list[NDArray[np.int64]]:
    """Rows of each answer that a more specific one, a later one about the same rows or a fact is about."""
    if not answers:
        return []
    sizes = np.array([len(answer.members) for answer in answers])
    inside = csr_array(
        (np.ones(sizes.sum()), np.concatenate([a.members for a in answers]), np.cumsum([0, *sizes])),
        shape=(len(answers), n_rows),
    )
    common = (inside @ inside.T).toarray()
    order = np.arange(len(answers))
    beats = (common == sizes[:, None]) & (
        (sizes[:, None] < sizes) | ((sizes[:, None] == sizes) & (order[:, None] > order))
    )
    return [
        np.unique(np.concatenate([answers[j].members for j in np.flatnonzero(beats[:, i])]))
        if beats[:, i].any()
        else np.empty(0, np.int64)
        for i in order
    ]


class AttributeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multinomial logistic regression whose penalty and temperature are chosen on held-out answers.

    Parameters
    ----------
    strengths
        Inverse strengths of the penalty to choose from, as `C` of scikit-learn's LogisticRegression.
    n_folds
        Folds of answers that are held out in turn; with fewer answers than that, the middle strength is taken.
    max_rows
        Rows that it is fitted to at most, the heaviest first.

    Attributes
    ----------
    classes_
        Values, sorted, shape ``(n_classes,)``.
    C_
        The strength chosen.
    temperature_
        Divides the logits, so that probabilities match the share of held-out answers that are right.
    """

    def __init__(
        self, strengths: tuple[float, ...] = STRENGTHS, n_folds: int = N_FOLDS, max_rows: int = MAX_ROWS
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
        """
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        groups = np.arange(len(y)) if groups is None else np.asarray(groups)
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if not len(self.classes_):
            raise ValueError("no labels to learn from")
        if len(y) > self.max_rows:
            kept = np.sort(np.argsort(-weights, kind="stable")[: self.max_rows])
            X, codes, weights, groups = X[kept], codes[kept], weights[kept], groups[kept]
        self.n_features_in_ = X.shape[1]
        X = np.asarray(X, np.float64)
        self.C_, self.temperature_ = self._choose(X, codes, weights, groups)
        self.coef_, self.intercept_ = self._fit_once(X, codes, weights, self.C_)
        return self

    def decision_function(self, X: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Logits over the temperature, shape ``(n_rows, n_classes)``."""
        logits: NDArray[np.float64] = (X @ self.coef_.T + self.intercept_) / self.temperature_
        return logits

    def predict_proba(self, X: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Calibrated probability of each class, shape ``(n_rows, n_classes)``."""
        return _softmax(self.decision_function(X))

    def predict(self, X: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Most probable value of each row."""
        return np.asarray(self.classes_[self.decision_function(X).argmax(axis=1)])

    def _fit_once(
        self, X: NDArray[np.float64], codes: NDArray[np.int64], weights: NDArray[np.float64], C: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coefficients and intercepts of all classes, those of classes without rows impossible."""
        from sklearn.linear_model import LogisticRegression

        coef = np.zeros((len(self.classes_), X.shape[1]))
        present = np.unique(codes)
        intercept = np.full(len(self.classes_), -np.inf)
        intercept[present] = 0.0
        if len(present) > 1:
            model = LogisticRegression(C=C, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
            model.fit(X, codes, sample_weight=weights)
            both = len(present) == 2
            coef[present] = np.vstack([-model.coef_ / 2, model.coef_ / 2]) if both else model.coef_
            intercept[present] = (
                np.concatenate([-model.intercept_ / 2, model.intercept_ / 2]) if both else model.intercept_
            )
        return coef, intercept

    def _choose(
        self,
        X: NDArray[np.float64],
        codes: NDArray[np.int64],
        weights: NDArray[np.float64],
        groups: NDArray[np.int64],
    ) -> tuple[float, float]:
        """Strength and temperature of the least log-loss on held-out answers."""
        from sklearn.model_selection import GroupKFold

        default = self.strengths[len(self.strengths) // 2]
        if len(np.unique(groups)) < 2 * self.n_folds or len(self.classes_) < 2:
            return default, 1.0
        found = []
        folds = list(GroupKFold(self.n_folds).split(X, codes, groups))
        for C in self.strengths:
            logits = np.empty((len(X), len(self.classes_)))
            for train, test in folds:
                coef, intercept = self._fit_once(X[train], codes[train], weights[train], C)
                logits[test] = X[test] @ coef.T + np.maximum(intercept, -20)
            losses = [_log_loss(logits / t, codes, weights) for t in TEMPERATURES]
            best = int(np.argmin(losses))
            found.append((losses[best], C, float(TEMPERATURES[best])))
        _, C, temperature = min(found)
        return C, temperature


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _log_loss(logits: NDArray[np.float64], codes: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Weighted mean of the negative log-probability of the true class."""
    p = _softmax(logits)[np.arange(len(codes)), codes]
    return float(np.average(-np.log(np.maximum(p, 1e-9)), weights=weights))
