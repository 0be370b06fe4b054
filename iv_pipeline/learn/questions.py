"""What to ask next: groups or single images, by how many images an answer is expected to settle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import csr_array
from scipy.special import bdtrc

from iv_pipeline.learn.groups import SHEET_SIZE, GroupTree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FIRST_GROUPS = 25
"""Groups that are asked about before anything is known: as many as a person answers in one sitting."""
MAX_NODES = 600
"""Groups of the finest cut whose nodes are worth asking about."""
MAX_SHARE = 0.85
"""Share of the mean number of images per answer that a group has at most to be asked about. Without a bound the
largest groups are asked about again and again; between 0.7 and 1 it makes little difference."""
LIKELY = 2 / 3
"""Probability of agreement from which an attribute is said to be settled."""
AGREED = 2 / 3
"""Share of the images shown that have to agree for an answer."""


@dataclass(frozen=True)
class Candidate:
    """Something to ask about.

    Attributes
    ----------
    kind
        ``cluster`` or ``image``.
    members
        Rows that the answer is about, ascending; `iv_pipeline.learn.groups.sheet` says which to look at.
    """

    kind: Literal["cluster", "image"]
    members: NDArray[np.int64]

    @property
    def n_shown(self) -> int:
        """Number of rows to look at."""
        return min(len(self.members), SHEET_SIZE)


@dataclass(frozen=True)
class Question:
    """A candidate and what its answer is worth.

    Attributes
    ----------
    candidate
        What to ask about.
    index
        Its position in the list of candidates, −1 for a single image.
    gain
        Images that the answer is expected to settle, on the mean of the attributes.
    attributes
        Attributes that it would settle, the most first.
    """

    candidate: Candidate
    index: int
    gain: float
    attributes: tuple[str, ...]


def tree_candidates(tree: GroupTree, n_groups: int = MAX_NODES) -> tuple[NDArray[np.int64], list[Candidate]]:
    """Nodes of a tree that are worth asking about, the largest cut first, and a candidate for each.

    Parameters
    ----------
    tree
        Groups of all rows.
    n_groups
        Number of groups of the finest cut.
    """
    finest = tree.cut(n_groups)
    nodes = np.concatenate([np.arange(tree.n_nodes - 1, tree.n_nodes - len(finest), -1), finest])
    return nodes.astype(np.int64), [Candidate("cluster", tree.members(int(node))) for node in nodes]


def first_questions(tree: GroupTree, nodes: NDArray[np.int64], n: int = FIRST_GROUPS) -> list[int]:
    """Positions in `nodes` of the cut into `n` groups, the largest first: what to ask before any answer.

    Parameters
    ----------
    tree
        Groups of all rows.
    nodes
        Nodes that are candidates, as from `tree_candidates`.
    n
        Number of groups.
    """
    position = {int(node): i for i, node in enumerate(nodes)}
    cut = tree.cut(n)
    largest_first = cut[np.argsort(-tree.sizes[cut], kind="stable")]
    return [position[int(node)] for node in largest_first if int(node) in position]


def posterior(value: NDArray[Any], confidence: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probability of each value of an attribute for each row, as `rank_questions` takes it.

    What is not the confidence of a row's value is spread evenly over the others.

    Parameters
    ----------
    value
        Value of each row, empty where nothing is known, shape ``(n_rows,)``.
    confidence
        Its probability, shape ``(n_rows,)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(n_rows, n_values)``; rows of zeros where nothing is known.
    """
    values, codes = np.unique(value.astype(np.str_), return_inverse=True)
    is_known, n_values = values[codes] != "", int((values != "").sum())
    codes = codes - (len(values) - n_values)  # the empty one, if there is one, sorts first
    p = np.repeat(((1 - confidence) / max(n_values - 1, 1))[:, None], n_values, axis=1).astype(np.float64)
    p[~is_known] = 0
    p[is_known, codes[is_known]] = confidence[is_known]
    return p


def rank_questions(
    candidates: Sequence[Candidate],
    posterior: Mapping[str, NDArray[np.floating[Any]]],
    asked: Sequence[int],
    n_questions: int,
    *,
    first: Sequence[int] = (),
    density: NDArray[np.floating[Any]] | None = None,
    known: NDArray[np.bool_] | None = None,
) -> list[Question]:
    """Questions, best first, such that each is worth asking although those before it will be answered.

    An answer settles an attribute of the members that are uncertain as yet, if the images shown agree. So a
    candidate is worth, on the mean of the attributes, the sum over its members of one minus their confidence,
    times the probability that `AGREED` of the images shown would get one value if each were what is predicted
    for a random member. After each pick, the uncertainty of its members shrinks by that probability.

    Groups larger than `MAX_SHARE` of the delivery over the number of answers are not asked about: where little is
    known, predictions look alike although the images do not.

    Parameters
    ----------
    candidates
        Groups to choose from.
    posterior
        Probability of each value of each attribute, rows of zeros where nothing is known, shape
        ``(n_rows, n_values)`` each; empty before any answer.
    asked
        Positions of candidates that were answered.
    n_questions
        Number of questions at most.
    first
        Positions of candidates to ask about before anything is known, best first; the other groups follow, the
        largest first.
    density
        How typical each row is, in [0, 1], shape ``(n_rows,)``; None if all are alike. Single images follow the
        groups, by uncertainty times density.
    known
        Rows whose values are facts, shape ``(n_rows,)``, which no question about a single image is about.
    """
    open_ = np.ones(len(candidates), bool)
    open_[np.asarray(asked, np.int64)] = False
    if not posterior:
        return _blind(candidates, open_, first, n_questions)
    unsure = np.stack([1 - p.max(axis=1) for p in posterior.values()], axis=1).astype(np.float64)
    questions: list[Question] = []
    if candidates:
        sizes = np.array([len(c.members) for c in candidates])
        open_ &= sizes <= MAX_SHARE * len(unsure) / (len(asked) + n_questions)
        questions = _groups(candidates, open_, posterior, unsure, n_questions)
    if len(questions) < n_questions:
        questions += _images(list(posterior), unsure, n_questions - len(questions), density, known)
    return questions


def _blind(
    candidates: Sequence[Candidate], open_: NDArray[np.bool_], first: Sequence[int], n_questions: int
) -> list[Question]:
    """Questions before any answer."""
    order = [i for i in first if open_[i]]
    rest = np.setdiff1d(np.flatnonzero(open_), order)
    sizes = np.array([len(candidates[i].members) for i in rest])
    order += rest[np.argsort(-sizes, kind="stable")].tolist()
    return [Question(candidates[i], i, float(len(candidates[i].members)), ()) for i in order[:n_questions]]


def _groups(
    candidates: Sequence[Candidate],
    open_: NDArray[np.bool_],
    posterior: Mapping[str, NDArray[np.floating[Any]]],
    unsure: NDArray[np.float64],
    n_questions: int,
) -> list[Question]:
    """The best open groups; `unsure`, shape ``(n_rows, n_attributes)``, becomes what they leave unsettled."""
    positions = np.flatnonzero(open_).tolist()
    if not positions:
        return []
    names = list(posterior)
    sizes = np.array([len(candidates[i].members) for i in positions])
    inside = csr_array(
        (
            np.ones(sizes.sum(), np.float32),
            np.concatenate([candidates[i].members for i in positions]),
            np.cumsum([0, *sizes]),
        ),
        shape=(len(positions), len(unsure)),
    )
    shown = np.array([candidates[i].n_shown for i in positions])
    agree = np.stack([_agreement(inside, sizes, shown, p) for p in posterior.values()], axis=1)
    left = np.ones(len(positions), bool)
    questions: list[Question] = []
    while len(questions) < n_questions and left.any():
        gains = (inside @ unsure) * agree
        best = int(np.where(left, gains.mean(axis=1), -1).argmax())
        settled = [names[a] for a in np.argsort(-gains[best], kind="stable") if agree[best, a] >= LIKELY]
        candidate = candidates[positions[best]]
        gain = float(gains[best].mean())
        questions.append(Question(candidate, positions[best], gain, tuple(settled)))
        left[best] = False
        unsure[candidate.members] *= 1 - agree[best]
    return questions


def _agreement(
    inside: csr_array, sizes: NDArray[np.int64], shown: NDArray[np.int64], p: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Probability that enough of the images shown of each candidate have one value, shape ``(n_candidates,)``."""
    predicted = csr_array(
        (np.ones(len(p), np.float32), p.argmax(axis=1), np.arange(len(p) + 1)), shape=p.shape
    )
    shares = (inside @ predicted).toarray() / sizes[:, None]
    needed = np.ceil(AGREED * shown - 1e-9)[:, None]
    tails: NDArray[np.float64] = bdtrc(needed - 1, shown[:, None], shares.clip(0, 1)).sum(axis=1)
    return np.minimum(tails, 1.0)


def _images(
    names: list[str],
    unsure: NDArray[np.float64],
    n_questions: int,
    density: NDArray[np.floating[Any]] | None,
    known: NDArray[np.bool_] | None,
) -> list[Question]:
    """Single images by uncertainty times density."""
    worth = unsure.mean(axis=1)
    score = worth if density is None else worth * density
    if known is not None:
        score = np.where(known, -1, score)
    best = np.argsort(-score, kind="stable")[:n_questions]
    questions = []
    for row in best[score[best] > 0]:
        settled = tuple(names[a] for a in np.argsort(-unsure[row], kind="stable") if unsure[row, a] > 0)
        one = np.array([row], np.int64)
        questions.append(Question(Candidate("image", one), -1, float(worth[row]), settled))
    return questions
