"""How good automatic labelling is, where true labels exist. Labels judge; they never choose.

The effort of labelling is what a person looks at: some images of each cluster, whose name all images of the
cluster get. It is weighed against looking at as many images at random, whose names their neighbours get.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from iv_pipeline.learn.neighbors import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NAMED_SHARE = 0.7
RANDOM_DRAWS = 5
NOISE = -1


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
    true, found = truth[known].astype(str).to_numpy(), labels[known]
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


def effort_curve(
    fitted: tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]],
    unseen: tuple[NDArray[np.int32], NDArray[np.float32]],
    truth: tuple[NDArray[np.str_], NDArray[np.str_]],
    *,
    exemplars: Sequence[int] = (1, 3, 10),
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy on unseen images by what a person looked at: exemplars of clusters, or images at random.

    Parameters
    ----------
    fitted
        Of the images of the fit: cluster, −1 for noise; confidence; vector.
    unseen
        Of images that took no part in it: cluster, as a model labels them, and vector.
    truth
        True labels of both. Of the images of the fit, only those that a person looks at are used.
    exemplars
        Images that a person looks at of each cluster, spread from the surest to the least sure; their majority
        names it.
    seed
        Of the images at random, the mean of `RANDOM_DRAWS` draws.

    Returns
    -------
    pandas.DataFrame
        `strategy`, ``clusters`` or ``random``; `clusters_named`, the largest first; `exemplars` of each;
        `images`, which a person looked at; `accuracy` on the unseen images, unnamed ones counted as wrong.
    """
    cluster, confidence, X = fitted
    numbers, sizes = np.unique(cluster[cluster != NOISE], return_counts=True)
    by_size = numbers[np.argsort(-sizes, kind="stable")]
    rows: list[dict[str, Any]] = []
    for each in exemplars:
        looked = {int(c): _spread(np.flatnonzero(cluster == c), confidence, each) for c in by_size}
        names = {c: _majority(truth[0][seen]) for c, seen in looked.items()}
        for n_named in _steps(len(by_size)):
            named = by_size[:n_named].tolist()
            given = pd.Series(unseen[0]).map({c: names[c] for c in named}).to_numpy()
            n_images = sum(len(looked[c]) for c in named)
            rows.append(_point("clusters", n_named, each, n_images, float(np.mean(given == truth[1]))))
    for n_images in sorted({row["images"] for row in rows}):
        draws = [_at_random(X, unseen[1], truth, n_images, seed + i) for i in range(RANDOM_DRAWS)]
        rows.append(_point("random", 0, 0, n_images, float(np.mean(draws))))
    return pd.DataFrame(rows)


def _steps(n_clusters: int) -> list[int]:
    """Numbers of clusters to stop at: about a fifth, two fifths, ... of them."""
    return sorted({max(1, round(n_clusters * share)) for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)})


def _spread(rows: NDArray[np.int64], confidence: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """At most `n` rows, evenly spread over their order from the surest to the least sure."""
    ordered = rows[np.argsort(-confidence[rows], kind="stable")]
    n = min(n, len(rows))
    return ordered[((np.arange(n) + 0.5) * len(rows) / n).astype(np.int64)]


def _majority(labels: NDArray[np.str_]) -> str:
    values, counts = np.unique(labels, return_counts=True)
    return str(values[counts.argmax()])


def _at_random(
    X: NDArray[np.float32],
    unseen: NDArray[np.float32],
    truth: tuple[NDArray[np.str_], NDArray[np.str_]],
    n_images: int,
    seed: int,
) -> float:
    """Accuracy when as many random images are labelled and each unseen one gets the label of the nearest."""
    known = np.random.default_rng(seed).choice(len(X), n_images, replace=False)
    found = nearest(unseen, np.ascontiguousarray(X[known]), 1)[:, 0]
    return float(np.mean(truth[0][known][found] == truth[1]))


def _point(strategy: str, clusters: int, exemplars: int, images: int, accuracy: float) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "clusters_named": clusters,
        "exemplars": exemplars,
        "images": images,
        "accuracy": accuracy,
    }
