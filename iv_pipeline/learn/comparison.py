"""How descriptors and algorithms agree, which configuration is best, and where they disagree."""

from __future__ import annotations

import json
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SCORES = (
    "predictability",
    "stability",
    "identity",
    "calinski_harabasz",
    "davies_bouldin",
    "silhouette",
    "noise_share",
)

LEAST_SCORE = 1e-3
"""Scores at the level of chance are told apart no further."""


def agreement(labelings: Mapping[str, NDArray[np.int32]], kind: str) -> pd.DataFrame:
    """Adjusted Rand index and adjusted mutual information of every pair of labelings of the same rows.

    Parameters
    ----------
    labelings
        By name, shape ``(n_rows,)`` each.
    kind
        What the names are, ``"descriptor"`` or ``"algorithm"``; becomes a column.

    Returns
    -------
    pandas.DataFrame
        `kind`, `first`, `second`, `adjusted_rand`, `adjusted_mutual_information`; each pair once.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    rows = [
        {
            "kind": kind,
            "first": first,
            "second": second,
            "adjusted_rand": float(adjusted_rand_score(labelings[first], labelings[second])),
            "adjusted_mutual_information": float(
                adjusted_mutual_info_score(labelings[first], labelings[second])
            ),
        }
        for first, second in combinations(labelings, 2)
    ]
    columns = ["kind", "first", "second", "adjusted_rand", "adjusted_mutual_information"]
    return pd.DataFrame(rows, columns=columns)


def rank_descriptors(
    winners: Mapping[str, pd.Series[Any]], blocks: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """One row a descriptor: what won in it, its scores, and its rank.

    Descriptors are ranked by their strength (see `strengths`); those whose clusters no other descriptor could
    judge come after them, by stability.

    Parameters
    ----------
    winners
        By descriptor, the trial that won.
    blocks
        The descriptors that each combination is made of, for `strengths`.

    Returns
    -------
    pandas.DataFrame
        `descriptor`, `rank`, `strength` and the trial's columns, best first.
    """
    predicted_by = {name: json.loads(winner["predicted_by"]) for name, winner in winners.items()}
    strong = strengths(predicted_by, blocks or {})
    rows = [
        {
            "descriptor": name,
            "scaler": winner["scaler"],
            "representation": winner["representation"],
            "algorithm": winner["algorithm"],
            "parameters": winner["parameters"],
            "n_clusters": int(winner["n_clusters"]),
            "strength": strong.get(name, np.nan),
            **{score: winner.get(score, np.nan) for score in SCORES},
            "criterion": winner["criterion"],
            "reason": winner["reason"],
        }
        for name, winner in winners.items()
    ]
    frame = pd.DataFrame(rows).sort_values(
        ["strength", "stability"], ascending=False, na_position="last", kind="stable", ignore_index=True
    )
    frame.insert(1, "rank", np.arange(1, len(frame) + 1))
    return frame


def strengths(
    predicted_by: Mapping[str, Mapping[str, float]], blocks: Mapping[str, Sequence[str]] | None = None
) -> dict[str, float]:
    """How predictable each descriptor's clusters are, whichever descriptors judged them.

    No descriptor judges itself, so each is judged by a different panel, and a mean would favour those that escape
    weak judges. In a two-way layout, score = strength of the judged × acuity of the judge, least squares on the
    logarithms separates the two (a row and a column effect; missing cells are those of a descriptor's own blocks).

    A combination is as strong as its strongest block times what combining gained: its score over the best of the
    same blocks alone, by the same judge, the geometric mean over judges. Where a block judges, the combination is
    made without it; so it is never compared with a block that it had to do without.

    Parameters
    ----------
    predicted_by
        By descriptor, the score that each judge gave its clusters.
    blocks
        The descriptors that each combination is made of. Combinations of blocks that were not judged themselves
        take part in the two-way layout.

    Returns
    -------
    dict of str to float
        Strength of each descriptor that anybody judged: the score that a judge of mean acuity would give.
    """
    scores = {
        name: {judge: float(np.log(max(score, LEAST_SCORE))) for judge, score in row.items()}
        for name, row in predicted_by.items()
    }
    gains = {
        name: gain
        for name, parts in (blocks or {}).items()
        if len(parts) > 1 and (gain := _gain(name, parts, scores)) is not None
    }
    strong = _two_way({name: row for name, row in scores.items() if name not in gains})
    for name, gain in gains.items():
        strong[name] = max(strong[part] for part in (blocks or {})[name]) + gain
    return {name: float(np.exp(strong[name])) for name in scores if scores[name]}


def _gain(name: str, parts: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> float | None:
    """Mean over judges of what a combination scores above the best of its parts; None where nobody can say."""
    if not all(scores.get(part) for part in parts):
        return None
    gains = [
        score - max(best)
        for judge, score in scores.get(name, {}).items()
        if (best := [scores[part][judge] for part in parts if judge in scores[part]])
    ]
    return float(np.mean(gains)) if gains else None


def _two_way(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Effects of the judged in a two-way layout, at a judge of mean effect."""
    cells = [(name, judge, score) for name, row in scores.items() for judge, score in row.items()]
    if not cells:
        return {}
    names, judges = (list(dict.fromkeys(column)) for column in list(zip(*cells, strict=True))[:2])
    design = np.zeros((len(cells), len(names) + len(judges)))
    for i, (name, judge, _) in enumerate(cells):
        design[i, names.index(name)] = design[i, len(names) + judges.index(judge)] = 1
    effects = np.linalg.lstsq(design, np.array([score for *_, score in cells]), rcond=None)[0]
    mean_judge = effects[len(names) :].mean()
    return {name: float(effects[i] + mean_judge) for i, name in enumerate(names)}


def square(pairs: pd.DataFrame, value: str) -> pd.DataFrame:
    """Pairs as a symmetric table with ones on the diagonal, in the order of first appearance."""
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    table = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for row in pairs.to_dict("records"):
        table.loc[row["first"], row["second"]] = table.loc[row["second"], row["first"]] = row[value]
    return table
