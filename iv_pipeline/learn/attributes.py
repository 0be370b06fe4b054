"""Values of an attribute for every image, learned from answers about few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from iv_pipeline.engine import ArrayBatches, map_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from iv_pipeline.learn.attribute_classifier import AttributeClassifier

MEMBER_WEIGHT = 0.1
"""Weight of an image that nobody looked at but whose group was answered, where one looked at counts 1."""
SETTLED = 0.95
"""Confidence from which a value counts as settled."""
MAX_MEMBERS = 200
"""Images of one group that vote without having been looked at: more say nothing new."""


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

    @property
    def looked_at(self) -> Votes:
        """Those on images that a person looked at."""
        return self.take(self.weights >= 1)

    def take(self, kept: NDArray[np.bool_]) -> Votes:
        """Some of the votes."""
        return Votes(self.rows[kept], self.labels[kept], self.weights[kept], self.groups[kept])


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
    groups = [i for i, answer in enumerate(answers) if not answer.is_fact]
    facts = {int(answer.members[0]): i for i, answer in enumerate(answers) if answer.is_fact}
    stated = np.zeros(n_rows, bool)
    stated[list(facts)] = True
    overridden = dict(zip(groups, _overridden([answers[i] for i in groups], n_rows), strict=True))
    parts: list[tuple[NDArray[np.int64], str, NDArray[np.float64], int]] = []
    for i in sorted([*groups, *facts.values()]):
        answer = answers[i]
        if answer.value is None:
            continue
        if answer.is_fact:
            parts.append((answer.members, answer.value, np.ones(1), i))
            continue
        shown = np.setdiff1d(answer.shown[~stated[answer.shown]], overridden[i])
        others = np.setdiff1d(np.setdiff1d(answer.members, answer.shown), overridden[i])
        others = others[~stated[others]]
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
    """Rows of each answer about a group that a more specific one, or a later one about the same rows, is about."""
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


def settled_share(confidence: NDArray[np.floating[Any]]) -> float:
    """Share of the images whose value is settled."""
    return float(np.mean(confidence >= SETTLED))


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
    return votes.take(usable[votes.rows])


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
    from iv_pipeline.learn.attribute_classifier import AttributeClassifier  # it imports scikit-learn

    return AttributeClassifier().fit(X, votes.labels, votes.weights, votes.groups)


def predict_values(
    model: AttributeClassifier | None,
    X: NDArray[np.float32],
    usable: NDArray[np.bool_],
    answers: Sequence[Answer] = (),
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
    answers
        What was answered: of a single image it is certain, whatever a model says.

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
    for answer in answers:
        if answer.is_fact and answer.value is not None:
            value[answer.members], confidence[answer.members] = answer.value, 1
    return value, confidence
