"""How good automatic labelling is, where true labels exist. Labels judge; they never choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMED_SHARE = 0.7


def label_accuracy(labels: NDArray[np.int32], truth: pd.Series[Any], seed: int = 0) -> float:
    """Share of images labelled rightly when each cluster is named after the majority of its known images.

    Parameters
    ----------
    labels
        Cluster of each row, −1 for noise (named like a cluster), shape ``(n_rows,)``.
    truth
        True label of each row, missing where unknown.
    seed
        Of the rows whose labels name the clusters, a share of `NAMED_SHARE`; the others judge.
    """
    known = truth.notna().to_numpy()
    frame = pd.DataFrame({"cluster": labels[known], "label": truth[known].astype(str).to_numpy()})
    names_it = np.random.default_rng(seed).random(len(frame)) < NAMED_SHARE
    if names_it.all() or not names_it.any():
        return float("nan")
    named = frame[names_it].groupby("cluster")["label"].agg(lambda values: values.mode()[0])
    judged = frame[~names_it]
    return float((judged["cluster"].map(named) == judged["label"]).mean())


def evaluate(labels: NDArray[np.int32], truth: pd.Series[Any]) -> dict[str, float]:
    """Accuracy of labelling, adjusted Rand index, homogeneity and completeness against true labels."""
    from sklearn import metrics

    known = truth.notna().to_numpy()
    if not known.any():
        return {}
    true, found = truth[known].astype(str).to_numpy(), labels[known]
    homogeneity, completeness, _ = metrics.homogeneity_completeness_v_measure(true, found)
    return {
        "label_accuracy": label_accuracy(labels, truth),
        "adjusted_rand": float(metrics.adjusted_rand_score(true, found)),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
    }
