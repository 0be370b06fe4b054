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

BETTER_LOW = frozenset({"davies_bouldin", "noise_share"})
"""Of `SCORES`, those of which less is better."""
NOISE = -1
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
        `descriptor`, `rank`, `strength`, `combining_gain` (see `gains`) and the trial's columns, best first.
    """
    predicted_by = {name: json.loads(winner["predicted_by"]) for name, winner in winners.items()}
    strong = strengths(predicted_by, blocks or {})
    gained = gains(predicted_by, blocks or {})
    rows = [
        {
            "descriptor": name,
            "scaler": winner["scaler"],
            "representation": winner["representation"],
            "algorithm": winner["algorithm"],
            "parameters": winner["parameters"],
            "n_clusters": int(winner["n_clusters"]),
            "strength": strong.get(name, np.nan),
            "combining_gain": gained.get(name, np.nan),
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

    No descriptor judges itself, so each is judged by a different panel, and a mean would favor those that escape
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
    scores = _logarithms(predicted_by)
    gained = gains(predicted_by, blocks or {})
    strong = _two_way({name: row for name, row in scores.items() if name not in gained})
    for name, gain in gained.items():
        strong[name] = max(strong[part] for part in (blocks or {})[name]) + float(np.log(gain))
    return {name: float(np.exp(strong[name])) for name in scores if scores[name]}


def gains(
    predicted_by: Mapping[str, Mapping[str, float]], blocks: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """What combining gained: how many times better judges predict a combination than the best of its blocks.

    Parameters
    ----------
    predicted_by, blocks
        As for `strengths`.

    Returns
    -------
    dict of str to float
        The geometric mean over judges, above 1 if combining helped, for each combination whose blocks were
        judged as well.
    """
    scores = _logarithms(predicted_by)
    return {
        name: float(np.exp(gain))
        for name, parts in blocks.items()
        if len(parts) > 1 and (gain := _gain(name, parts, scores)) is not None
    }


def _logarithms(predicted_by: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {judge: float(np.log(max(score, LEAST_SCORE))) for judge, score in row.items()}
        for name, row in predicted_by.items()
    }


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


def crossings(labelings: Mapping[str, NDArray[np.int32]]) -> pd.DataFrame:
    """How the clusters of each descriptor cross with those of every other.

    Parameters
    ----------
    labelings
        By descriptor, −1 for noise, which takes no part; shape ``(n_rows,)`` each, of the same rows.

    Returns
    -------
    pandas.DataFrame
        `first`, `cluster`, `second`, `other_cluster`; `images` in both, `share` of the cluster of the first, and
        `lift`, how many times more than by chance; each ordered pair of clusters that share an image, the
        largest share of a cluster first.
    """
    parts = []
    for first, a in labelings.items():
        for second, b in labelings.items():
            if first == second:
                continue
            both = (a != NOISE) & (b != NOISE)
            pairs = pd.DataFrame({"cluster": a[both], "other_cluster": b[both]})
            table = pairs.value_counts().rename("images").reset_index()
            of_first, of_second = (pairs[column].value_counts() for column in pairs)
            table["share"] = table["images"] / table["cluster"].map(of_first)
            table["lift"] = table["share"] / (table["other_cluster"].map(of_second) / len(pairs))
            parts.append(table.assign(first=first, second=second))
    columns = ["first", "cluster", "second", "other_cluster", "images", "share", "lift"]
    if not parts:
        return pd.DataFrame(columns=columns)
    order = ["first", "second", "cluster", "images"]
    frame = pd.concat(parts)[columns]
    return frame.sort_values(order, ascending=[True, True, True, False], kind="stable", ignore_index=True)


def disagreement(labelings: Mapping[str, NDArray[np.int32]]) -> NDArray[np.float64]:
    """How much descriptors disagree about each image, in bits, shape ``(n_rows,)``.

    For a pair of descriptors, ``log2(n_a n_b / (n n_ab))``, the pointwise mutual information (Church, Hanks 1990)
    with its sign turned: large if hardly any other image lies in the same two clusters, though both are large.
    The mean over pairs; rows without a cluster take no part in a pair. NaN where no pair says anything.

    Parameters
    ----------
    labelings
        As for `crossings`.
    """
    values = list(labelings.values())
    n_rows = len(values[0]) if values else 0
    total, count = np.zeros(n_rows), np.zeros(n_rows)
    for a, b in combinations(values, 2):
        both = np.flatnonzero((a != NOISE) & (b != NOISE))
        if not len(both):
            continue
        x, y = a[both].astype(np.int64), b[both].astype(np.int64)
        width = int(y.max()) + 1
        cell = x * width + y
        joint = np.bincount(cell)[cell]
        expected = np.bincount(x)[x] * (np.bincount(y)[y] / len(both))
        total[both] += np.log2(expected / joint)
        count[both] += 1
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(n_rows, np.nan), where=count > 0)
    return mean


def rank_configurations(trials: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every configuration that was tried in any descriptor, and its rank by each criterion among those of its own.

    Parameters
    ----------
    trials
        By descriptor, as `iv_pipeline.learn.selection.Selection.to_frame` makes them.

    Returns
    -------
    pandas.DataFrame
        `descriptor`, the configuration, the last round that it took part in, every score of `SCORES` and
        ``rank_<score>`` beside it: 1 for the best of the descriptor among those of the last round that it was
        measured for, missing for the others; by descriptor, then by the criterion that led.
    """
    kept = ["scaler", "representation", "algorithm", "parameters", "n_clusters", "round", "n_rows"]
    parts = []
    for name, frame in trials.items():
        columns: dict[str, pd.Series[Any]] = {column: frame[column] for column in kept}
        is_finalist = frame["round"] == frame["round"].max()
        for score in SCORES:
            ranks = frame[score].where(is_finalist).rank(method="min", ascending=score in BETTER_LOW)
            columns |= {score: frame[score], f"rank_{score}": ranks.astype("Int64")}
        columns |= {name: frame[name] for name in ("kept", "tied", "won")}
        part = pd.DataFrame(columns)
        part.insert(0, "descriptor", name)
        leading = str(frame["criterion"].iloc[0])
        parts.append(part.sort_values(["round", leading], ascending=False, kind="stable"))
    return pd.concat(parts, ignore_index=True)
