"""Values of an attribute for every image, learned from answers about few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin

from iv_pipeline.engine import ArrayBatches, map_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MEMBER_WEIGHT = 0.1
"""Weight of an image that nobody looked at but whose group was answered, where one looked at counts 1."""
MAX_MEMBERS = 200
"""Images of one group that vote without having been looked at: more say nothing new."""
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
        np.unique(np.concatenate([answers[j].members for j in np.flatnonzero(beats[:, i]).tolist()]))
        if beats[:, i].any()
        else np.empty(0, np.int64)
        for i in order
    ]


def votes_on(answers: Sequence[Answer], usable: NDArray[np.bool_]) -> Votes:
    """Votes (see `votes_of`) on rows that have features; facts about others vote on nothing.

    Parameters
    ----------
    answers
        As for `votes_of`.
    usable
        Whether each row of the delivery has features, shape ``(n_rows,)``.
    """
    told = [answer for answer in answers if not answer.is_fact or usable[answer.members[0]]]
    votes = votes_of(told, len(usable))
    kept = usable[votes.rows]
    return Votes(votes.rows[kept], votes.labels[kept], votes.weights[kept], votes.groups[kept])


def fit_votes(votes: Votes, X: NDArray[np.floating[Any]]) -> AttributeClassifier | None:
    """A classifier fitted to votes; None without any.

    Parameters
    ----------
    votes
        Votes on rows that have features.
    X
        Features of the row of each vote, shape ``(n_votes, n_features)``.
    """
    if not len(votes.rows):
        return None
    return AttributeClassifier().fit(X, votes.labels, votes.weights, votes.groups)


def predict_values(
    model: AttributeClassifier | None, X: NDArray[np.float32], usable: NDArray[np.bool_]
) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
    """Value and confidence of every row, empty and 0 without a model.

    Parameters
    ----------
    model
        See `fit_votes`.
    X
        Shape ``(n_rows, n_features)``, finite where usable.
    usable
        Rows that something can be said of, shape ``(n_rows,)``; the others have an empty value and confidence 0.

    Returns
    -------
    value
        Shape ``(n_rows,)``, strings.
    confidence
        Shape ``(n_rows,)``, float32.
    """
    value, confidence = np.full(len(X), "", object), np.zeros(len(X), np.float32)
    if model is not None and usable.any():
        p = np.concatenate(list(map_rows(model.predict_proba, ArrayBatches(X[usable]))))
        value[usable] = model.classes_[p.argmax(axis=1)]
        confidence[usable] = p.max(axis=1)
        if len(model.classes_) == 1:  # another value may yet come: Laplace's rule of succession
            confidence[usable] = (model.n_answers_ + 1) / (model.n_answers_ + 2)
    return value, confidence


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
        self.C_, self.temperature_ = self._choose(votes)
        self.coef_, self.intercept_ = _fit_logistic(votes, len(self.classes_), self.C_)
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

    def _choose(self, votes: _Labeled) -> tuple[float, float]:
        """Strength of the least log-loss on held-out answers, and temperature."""
        default = self.strengths[len(self.strengths) // 2]
        judged = votes.comparable(len(self.classes_))
        if len(np.unique(votes.groups[judged])) < 2 * self.n_folds or len(self.classes_) < 2:
            return default, 1.0
        fold = votes.folds(self.n_folds)
        found = []
        for C in self.strengths:
            logits = np.empty((len(votes.X), len(self.classes_)))
            for i in range(self.n_folds):
                coef, intercept = _fit_logistic(votes.take(fold != i), len(self.classes_), C)
                logits[fold == i] = votes.X[fold == i] @ coef.T + intercept
            losses = [_log_loss(logits[judged] / t, votes.codes[judged]) for t in TEMPERATURES]
            best = int(np.argmin(losses))
            found.append((losses[best], C, float(np.sqrt(TEMPERATURES[best]))))
        _, C, temperature = min(found)
        return C, temperature


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


def _fit_logistic(
    votes: _Labeled, n_classes: int, C: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
