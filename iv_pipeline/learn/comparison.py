"""How descriptors and algorithms agree, which configuration is best, and where they disagree."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def rank_descriptors(winners: Mapping[str, pd.Series[Any]], criterion_of: Mapping[str, str]) -> pd.DataFrame:
    """One row a descriptor: what won in it, its scores, and its rank by the leading criterion.

    Parameters
    ----------
    winners
        By descriptor, the trial that won.
    criterion_of
        By descriptor, the criterion that led. Descriptors judged by predictability come before those that
        could only be judged by themselves.

    Returns
    -------
    pandas.DataFrame
        `descriptor`, `rank` and the trial's columns, best first.
    """
    rows = []
    for name, winner in winners.items():
        rows.append(
            {
                "descriptor": name,
                "scaler": winner["scaler"],
                "algorithm": winner["algorithm"],
                "parameters": winner["parameters"],
                "n_clusters": int(winner["n_clusters"]),
                **{score: winner.get(score, np.nan) for score in SCORES},
                "criterion": criterion_of[name],
                "reason": winner["reason"],
            }
        )
    frame = pd.DataFrame(rows)
    lead = [float(row[str(row["criterion"])]) for row in rows]
    order = sorted(
        range(len(rows)),
        key=lambda i: (rows[i]["criterion"] != "predictability", -np.nan_to_num(lead[i], nan=-1.0)),
    )
    frame = frame.iloc[order].reset_index(drop=True)
    frame.insert(1, "rank", np.arange(1, len(frame) + 1))
    return frame


def square(pairs: pd.DataFrame, value: str) -> pd.DataFrame:
    """Pairs as a symmetric table with ones on the diagonal, in the order of first appearance."""
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    table = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for row in pairs.to_dict("records"):
        table.loc[row["first"], row["second"]] = table.loc[row["second"], row["first"]] = row[value]
    return table
