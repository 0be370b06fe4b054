"""How good labels are, by true labels or by what people said. These judge; they never choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iv_pipeline.learn.attributes import Votes

NAMED_SHARE = 0.7
ACCURACY_COLUMNS = ("attribute", "judged_by", "descriptor", "n_images", "accuracy", "rank")


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
    cluster, label = labels[known], truth[known].astype(str).to_numpy(np.str_)
    names_it = np.random.default_rng(seed).random(len(label)) < NAMED_SHARE
    if names_it.all() or not names_it.any():
        return float("nan")
    return named_accuracy(cluster[names_it], label[names_it], cluster[~names_it], label[~names_it])


def named_accuracy(
    cluster: NDArray[np.int32],
    label: NDArray[np.str_],
    unseen_cluster: NDArray[np.int32],
    unseen_label: NDArray[np.str_],
) -> float:
    """Share of unseen rows labelled rightly when each cluster is named after the majority of its known rows."""
    named = pd.Series(label).groupby(cluster).agg(lambda values: values.mode()[0])
    return float((pd.Series(unseen_cluster).map(named) == pd.Series(unseen_label)).mean())


def evaluate(labels: NDArray[np.int32], truth: pd.Series[Any]) -> dict[str, float]:
    """Accuracy of labelling, adjusted Rand index, homogeneity, completeness and V-measure against true labels."""
    from sklearn import metrics

    known = truth.notna().to_numpy()
    if not known.any():
        return {}
    true, found = pd.factorize(truth[known].astype(str))[0], labels[known]  # text would be sorted every time
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(true, found)
    return {
        "label_accuracy": label_accuracy(labels, truth),
        "adjusted_rand": float(metrics.adjusted_rand_score(true, found)),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v_measure),
    }


def judge_ranking(wanted: NDArray[np.bool_], contamination: float) -> dict[str, float]:
    """How well a ranking of outliers finds those that should be found.

    Parameters
    ----------
    wanted
        Of each image, most suspicious first, whether it should be found; some should.
    contamination
        Share of the images that are looked at.

    Returns
    -------
    dict of str to float
        `average_precision` of the ranking, and `precision` and `recall` among the images looked at.
    """
    ranks = np.flatnonzero(wanted) + 1
    found = int(wanted[: max(1, int(contamination * len(wanted)))].sum())
    return {
        "average_precision": float(np.mean(np.arange(1, len(ranks) + 1) / ranks)),
        "precision": found / max(1, int(contamination * len(wanted))),
        "recall": found / len(ranks),
    }


def descriptor_accuracy(
    clusters: Mapping[str, NDArray[np.int32]],
    labels: Mapping[str, pd.Series[Any]],
    votes: Mapping[str, Votes],
    seed: int = 0,
) -> pd.DataFrame:
    """How well the clusters of each descriptor tell each attribute.

    Parameters
    ----------
    clusters
        Cluster of each row by descriptor, −1 for noise, shape ``(n_rows,)`` each.
    labels
        True labels by attribute, missing where unknown.
    votes
        What people said of rows, by attribute.
    seed
        As for `label_accuracy`.

    Returns
    -------
    pandas.DataFrame
        `ACCURACY_COLUMNS`; `judged_by` is ``labels`` (see `label_accuracy`) or ``answers`` (see `vote_accuracy`),
        `n_images` those whose value is known, `rank` is 1 for the most accurate descriptor. Attributes that
        nothing is known of are left out.
    """
    rows: list[tuple[str, str, str, int, float]] = []
    for attribute, truth in labels.items():
        n_known = int(truth.notna().sum())
        rows += [
            (attribute, "labels", name, n_known, label_accuracy(cluster, truth, seed))
            for name, cluster in clusters.items()
        ]
    for attribute, said in votes.items():
        looked_at = said.looked_at
        rows += [
            (attribute, "answers", name, len(np.unique(looked_at.rows)), vote_accuracy(cluster, looked_at))
            for name, cluster in clusters.items()
        ]
    frame = pd.DataFrame(rows, columns=list(ACCURACY_COLUMNS[:-1])).dropna(subset="accuracy")
    judged = frame.groupby(["attribute", "judged_by"], sort=False)["accuracy"]
    frame["rank"] = judged.rank(method="min", ascending=False).astype("Int64")
    return frame.reset_index(drop=True)


def vote_accuracy(cluster: NDArray[np.int32], votes: Votes) -> float:
    """Share of the votes that the other answers foretell: the majority of their votes in the same cluster.

    Where no other answer has a vote in a cluster, the majority of all other votes counts. NaN with fewer than two
    answers.

    Parameters
    ----------
    cluster
        Cluster of each row, −1 for noise, which counts as a cluster, shape ``(n_rows,)``.
    votes
        What people said of rows.
    """
    answers, answer = np.unique(votes.groups, return_inverse=True)
    if len(answers) < 2:
        return float("nan")
    code = np.unique(votes.labels, return_inverse=True)[1]
    place = np.unique(cluster[votes.rows], return_inverse=True)[1]
    part = np.unique(answer * (place.max() + 1) + place, return_inverse=True)[1]
    of_others = _counts(place, code)[place] - _counts(part, code)[part]
    anywhere = _counts(np.zeros_like(code), code) - _counts(answer, code)[answer]
    found = np.where(of_others.any(axis=1), of_others.argmax(axis=1), anywhere.argmax(axis=1))
    return float(np.mean(found == code))


def _counts(group: NDArray[np.int64], code: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each code occurs in each group, shape ``(n_groups, n_codes)``."""
    shape = int(group.max()) + 1, int(code.max()) + 1
    return np.bincount(group * shape[1] + code, minlength=shape[0] * shape[1]).reshape(shape)
