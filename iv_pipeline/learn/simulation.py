"""What answers are worth, measured on true labels: a simulated person answers the questions as they are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from iv_pipeline.learn.attributes import Answer, Votes, fit_votes, predict_values, votes_on
from iv_pipeline.learn.groups import fit_groups, sheet
from iv_pipeline.learn.questions import (
    AGREED,
    first_questions,
    posterior,
    rank_questions,
    tree_candidates,
)
from iv_pipeline.learn.statistics import finite_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from iv_pipeline.learn.questions import Question

BUDGETS = (25, 50, 100, 150)
"""Numbers of answers at which the curve is measured."""
AT_ONCE = 25
"""Answers between two updates of the questions."""
PRECISIONS = (0.90, 0.95, 0.98)
"""Shares of right values at which coverage is measured."""
RANDOM_DRAWS = 3
HELD_OUT = 0.3
"""Share of the labels that judge what all others teach."""
N_BINS = 10
COLUMNS = (
    *("attribute", "strategy", "n_answers", "n_images", "accuracy"),
    *(f"coverage_{100 * precision:.0f}" for precision in PRECISIONS),
    "calibration_error",
)


class Pool(NamedTuple):
    """Images that questions are asked about.

    Attributes
    ----------
    X
        Joint features, NaN for images without any, shape ``(n_rows, n_features)``.
    embedding
        Coordinates that images are grouped by, shape ``(n_rows, n_components)``.
    density
        How typical each image is, in [0, 1], shape ``(n_rows,)``.
    labels
        True labels of each attribute, missing where unknown, shape ``(n_rows,)`` each.
    """

    X: NDArray[np.float32]
    embedding: NDArray[np.float32]
    density: NDArray[np.float64]
    labels: Mapping[str, pd.Series[Any]]


def learning_curve(pool: Pool, seed: int, budgets: Sequence[int] = BUDGETS) -> pd.DataFrame:
    """Accuracy, coverage and calibration by the number of answers, on images that nobody looked at.

    A person answers a group's question where `AGREED` of the images shown, of those whose label is known, have one
    label, and leaves it open otherwise. Three strategies learn in the same way from what is answered:
    ``questions``, as they are ranked; ``random``, as many single images drawn at random; ``all labels``, the
    ceiling, where `HELD_OUT` of the labels judge and as many of the others teach as a classifier takes.

    Parameters
    ----------
    pool
        Images, their features and true labels.
    seed
        Seed of the groups, of the images shown and of those at random.
    budgets
        Numbers of answers at which to measure, ascending. Where the questions end before, so does the curve.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`, a row for each attribute, strategy and budget. `n_answers` given and `n_images` looked at;
        `accuracy`; ``coverage_<p>``, the largest share of the images, those of the highest confidence, of which
        `p` percent are right; `calibration_error`, the mean of the difference between confidence and accuracy
        over `N_BINS` bins of confidence (expected calibration error, Naeini et al. 2015).
    """
    rows = [
        *_by_questions(pool, seed, budgets),
        *_at_random(pool, seed, budgets),
        *_by_all_labels(pool, seed),
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    order = [name for name in pool.labels if name in set(frame["attribute"])]
    return frame.sort_values("attribute", key=lambda c: c.map(order.index), kind="stable", ignore_index=True)


def calibration_error(confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over `N_BINS` equally wide bins; NaN without rows."""
    if not len(right):
        return float("nan")
    bins = np.minimum((confidence * N_BINS).astype(np.int64), N_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=N_BINS)
    return float(np.abs(gaps).sum() / len(right))


def coverage(confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_], precision: float) -> float:
    """Largest share of the rows, all those from some confidence on, of which a share of `precision` is right."""
    if not len(right):
        return float("nan")
    order = np.argsort(-confidence, kind="stable")
    precise = np.cumsum(right[order]) >= precision * np.arange(1, len(right) + 1)
    precise &= np.append(np.diff(confidence[order]) != 0, True)  # rows of one confidence belong together
    return float((np.flatnonzero(precise)[-1] + 1) / len(right)) if precise.any() else 0.0


def _by_questions(pool: Pool, seed: int, budgets: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    tree = fit_groups(pool.embedding, seed)
    nodes, candidates = tree_candidates(tree)
    first = first_questions(tree, nodes)
    answers: dict[str, list[Answer]] = {name: [] for name in pool.labels}
    asked: list[int] = []
    seen, known = np.zeros(len(pool.X), bool), np.zeros(len(pool.X), bool)
    beliefs: dict[str, NDArray[np.float64]] = {}
    n_answers = measured = 0
    for budget in budgets:
        while n_answers < budget:
            n = min(AT_ONCE, budget - n_answers)
            ranked = rank_questions(
                candidates, beliefs, asked, n, first=first, density=pool.density, known=known
            )
            if not ranked:
                break
            for question in ranked:
                members = question.candidate.members
                shown = sheet(pool.X[members], members, seed)
                _answer(question, shown, pool.labels, answers)
                seen[shown] = True
                if question.candidate.kind == "image":
                    known[members] = True
                else:
                    asked.append(question.index)
            n_answers += len(ranked)
            found = {name: _learn(given, pool.X) for name, given in answers.items()}
            beliefs = {name: p for name, pair in found.items() if (p := posterior(*pair)).size}
        if n_answers == measured:
            return
        measured = n_answers
        effort = "questions", n_answers, int(seen.sum())
        for name, (value, confidence) in found.items():
            yield (name, *effort, *_measure(value, confidence, pool.labels[name], ~seen))


def _answer(
    question: Question,
    shown: NDArray[np.int64],
    labels: Mapping[str, pd.Series[Any]],
    answers: Mapping[str, list[Answer]],
) -> None:
    """What a person says of a question who sees some of its images."""
    for name, given in answers.items():
        counts = labels[name].iloc[shown].value_counts()
        agreed = len(counts) > 0 and counts.iloc[0] >= AGREED * counts.sum() - 1e-9
        value = str(counts.index[0]) if agreed else None
        if value is not None or question.candidate.kind == "cluster":
            given.append(Answer(question.candidate.members, shown, value))


def _at_random(pool: Pool, seed: int, budgets: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """The mean of `RANDOM_DRAWS` draws of as many images as answers."""
    usable = np.flatnonzero(finite_rows(pool.X))
    for name, labels in pool.labels.items():
        labeled = usable[labels.notna().to_numpy()[usable]]
        orders = [np.random.default_rng([seed, i]).permutation(labeled) for i in range(RANDOM_DRAWS)]
        for budget in budgets:
            if budget >= len(labeled):
                break
            draws = [_after_images(order[:budget], labels, pool.X) for order in orders]
            yield (name, "random", budget, budget, *np.mean(draws, axis=0))


def _by_all_labels(pool: Pool, seed: int) -> Iterator[tuple[Any, ...]]:
    from iv_pipeline.learn.attribute_classifier import MAX_ROWS  # it imports scikit-learn

    usable = finite_rows(pool.X)
    rng = np.random.default_rng(seed)
    taught = rng.random(len(pool.X)) >= HELD_OUT
    for name, labels in pool.labels.items():
        rows = np.flatnonzero(usable & labels.notna().to_numpy() & taught)
        rows = np.sort(rng.permutation(rows)[:MAX_ROWS])
        yield (name, "all labels", len(rows), len(rows), *_after_images(rows, labels, pool.X, ~taught))


def _after_images(
    rows: NDArray[np.int64],
    labels: pd.Series[Any],
    X: NDArray[np.float32],
    judges: NDArray[np.bool_] | None = None,
) -> tuple[float, ...]:
    """Measures once single images are answered, on `judges` or on all others."""
    values = labels.iloc[rows].astype(str).to_numpy(np.str_)
    votes = Votes(rows, values, np.ones(len(rows)), np.arange(len(rows)))
    others = np.ones(len(X), bool)
    others[rows] = False
    found = predict_values(fit_votes(votes, X[rows]), X, finite_rows(X))
    return _measure(*found, labels, others if judges is None else judges)


def _learn(answers: Sequence[Answer], X: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Values and confidences as the answers teach them."""
    usable = finite_rows(X)
    votes = votes_on(answers, usable)
    return predict_values(fit_votes(votes, X[votes.rows]), X, usable, answers)


def _measure(
    value: NDArray[Any], confidence: NDArray[np.float32], labels: pd.Series[Any], judges: NDArray[np.bool_]
) -> tuple[float, ...]:
    """Accuracy, coverage at each of `PRECISIONS` and calibration error on labeled rows among `judges`."""
    judged = judges & labels.notna().to_numpy()
    right = value[judged] == labels[judged].astype(str).to_numpy(object)
    sure = confidence[judged].astype(np.float64)
    accuracy = float(right.mean()) if len(right) else float("nan")
    return accuracy, *(coverage(sure, right, p) for p in PRECISIONS), calibration_error(sure, right)
