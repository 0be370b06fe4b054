"""What to ask next: groups or single images, by how many images an answer is expected to settle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import csr_array

from iv_pipeline.learn.groups import GroupTree, sheet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FIRST_GROUPS = 25
"""Groups that are asked about before anything is known: as many as a person answers in one sitting."""
MAX_NODES = 600
"""Groups of the finest cut whose nodes are worth asking about."""
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
        Rows that the answer is about.
    shown
        Rows to look at, `SHEET_SIZE` at most.
    """

    kind: Literal["cluster", "image"]
    members: NDArray[np.int64]
    shown: NDArray[np.int64]


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
        Images whose value the answer is expected to settle, over all attributes.
    attributes
        Attributes that it would settle, the most first.
    """

    candidate: Candidate
    index: int
    gain: float
    attributes: tuple[str, ...]


def tree_candidates(
    tree: GroupTree, X: NDArray[np.float32], seed: int, n_groups: int = MAX_NODES
) -> tuple[NDArray[np.int64], list[Candidate]]:
    """Nodes of a tree that are worth asking about, the largest cut first, and a candidate for each.

    Parameters
    ----------
    tree
        Groups of all rows.
    X
        Vectors that the sheets are chosen by, shape ``(n_rows, n_features)``.
    seed
        Seed of the sheets.
    n_groups
        Number of groups of the finest cut.
    """
    finest = tree.cut(n_groups)
    nodes = np.concatenate([np.arange(tree.n_nodes - 1, tree.n_nodes - len(finest), -1), finest])
    members = [tree.members(int(node)) for node in nodes]
    return nodes.astype(np.int64), [Candidate("cluster", m, sheet(X, m, seed)) for m in members]


def rank_questions(
    candidates: Sequence[Candidate],
    posterior: Mapping[str, NDArray[np.floating[Any]]],
    asked: Sequence[int],
    n_questions: int,
    *,
    first: Sequence[int] = (),
) -> list[Question]:
    """Questions, best first, no two about the same rows where others are worth as much.

    An answer settles the attribute of its members that is uncertain as yet, if the images shown agree. So a
    candidate is worth, averaged over the attributes, the sum over its members of one minus the confidence, times
    the probability that `AGREED` of the images shown have one value. After each pick, the uncertainty of its
    members shrinks by the probability that it is answered.

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
        Positions of candidates to ask about before anything is known, best first; others follow by size.
    """
    open_ = np.ones(len(candidates), bool)
    open_[np.asarray(asked, np.int64)] = False
    if not posterior:
        order = [i for i in first if open_[i]]
        rest = np.setdiff1d(np.flatnonzero(open_), order)
        sizes = np.array([len(candidates[i].members) for i in rest])
        order += rest[np.argsort(-sizes, kind="stable")].tolist()
        return [
            Question(candidates[i], i, float(len(candidates[i].members)), ()) for i in order[:n_questions]
        ]
    names = list(posterior)
    unsure = np.stack([1 - p.max(axis=1) for p in posterior.values()], axis=1).astype(np.float64)
    sizes = np.array([len(c.members) for c in candidates])
    inside = csr_array(
        (np.ones(sizes.sum()), np.concatenate([c.members for c in candidates]), np.cumsum([0, *sizes])),
        shape=(len(candidates), len(unsure)),
    )
    shown = np.array([len(c.shown) for c in candidates])
    agree = np.stack([_agreement(inside, sizes, shown, p) for p in posterior.values()], axis=1)
    picked: list[Question] = []
    while len(picked) < n_questions and open_.any():
        gains = (inside @ unsure) * agree
        total = np.where(open_, gains.mean(axis=1), -1)
        i = int(total.argmax())
        ranked = np.argsort(-gains[i], kind="stable")
        settles = tuple(names[a] for a in ranked if agree[i, a] >= 0.5)
        picked.append(Question(candidates[i], i, float(total[i] * len(names)), settles))
        open_[i] = False
        unsure[candidates[i].members] *= 1 - agree[i]
    return picked


def _agreement(
    inside: csr_array, sizes: NDArray[np.int64], shown: NDArray[np.int64], p: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Probability that enough of the images shown of each candidate have one value, shape ``(n_candidates,)``."""
    from scipy.stats import binom

    mean = (inside @ p) / sizes[:, None]
    needed = np.ceil(AGREED * shown - 1e-9)[:, None]
    tails: NDArray[np.float64] = binom.sf(needed - 1, shown[:, None], mean).sum(axis=1)
    return np.minimum(tails, 1.0)
