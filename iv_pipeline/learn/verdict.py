"""One verdict on every image: a bad picture or unusual vectors, over all descriptors.

Thresholds come from the scores. What is usual is described by the median and the 90th percentile, which a tenth of
outliers cannot move, and extrapolated to the score that no image of the delivery is expected to exceed; the
contamination only bounds how many images the vectors may flag beyond that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from iv_pipeline.learn.image_quality import quality_outliers, read_enough
from iv_pipeline.learn.neighbors import NeighborSearch, neighbor_graph
from iv_pipeline.learn.precision import REPRODUCIBLE_ROWS
from iv_pipeline.learn.statistics import finite_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from numpy.typing import NDArray

N_REFERENCE = 5_000
"""Rows whose neighborhoods say how dense it is where: clumps keep their share in a sample."""
MIN_NEIGHBORS = 100
MAX_NEIGHBOR_SHARE = 0.1
"""Share of the reference that a larger neighborhood may take: a cluster of that size is no outlier."""
MIN_DISTANCE = 0.05
"""Share of the median distance below which rows count as equally near: duplicates have none."""
BATCH_ROWS = 16_384
EXPECTED_ABOVE = 0.5
"""Rows that are expected beyond a threshold if the tail is exponential; those of real descriptors are lighter."""
MIN_TAIL = 0.001
"""Smallest distance of the 90th percentile from the median that is believed: in logarithms one in a thousand."""
MIN_SUSPICION = 0.2
"""Severity from which a fault of the picture is named where vectors are unusual, too."""
NO_VECTOR = "no usable vector"
UNUSUAL = "unusual vectors"


def anomaly_scores(
    components: NDArray[np.float32], contamination: float, seed: int = 0
) -> NDArray[np.float32]:
    """Score of how far every row is from all others, by its place and by its direction; 1 is the threshold.

    The place counts by the mean distance to the nearest neighbors (Angiulli and Pizzuti 2002), the direction by
    the local outlier factor (Breunig et al. 2000) of rows at unit length: garbage lies far out, an odd picture
    turns its vectors. The logarithm of each is put on a scale on which its median is 0 and its `tail_threshold`
    is 1; the larger one counts.

    Neighborhoods take twice the share of rows that may be outliers: twenty overexposed frames are each other's
    neighbors, and only a neighborhood larger than the clump sees that they are far away.

    Parameters
    ----------
    components
        Whitened components (the recipe ``whitened``), shape ``(n_rows, n_components)``, float32.
    contamination
        Share of the rows that may be outliers.
    seed
        Seed of the reference sample, which is used beyond `N_REFERENCE` rows.

    Returns
    -------
    numpy.ndarray
        Shape ``(n_rows,)``, float32; NaN for rows that are not finite. Of one or two rows none is unusual: 0.
    """
    scores = np.full(len(components), np.nan, np.float32)
    usable = np.flatnonzero(finite_rows(components))
    scores[usable] = 0
    if len(usable) > 2:
        rows = components[usable]
        place, _ = _neighborhood_scores(rows, contamination, seed)
        _, direction = _neighborhood_scores(_unit_rows(rows), contamination, seed)
        scores[usable] = np.maximum(_in_thresholds(place), _in_thresholds(direction))
    return scores


def _unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def _neighborhood_scores(
    X: NDArray[np.float32], contamination: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of the mean neighbor distance and of the local outlier factor, each of shape ``(n_rows,)``."""
    sample = np.sort(np.random.default_rng(seed).permutation(len(X))[:N_REFERENCE])
    reference = np.ascontiguousarray(X[sample])
    k = _n_neighbors(len(sample), contamination)
    graph = neighbor_graph(reference, k, seed)
    k_distance = graph.distances[:, -1]
    reach = np.maximum(graph.distances, k_distance[graph.indices]).mean(axis=1, dtype=np.float64)
    floor = MIN_DISTANCE * float(np.median(reach)) or 1.0
    density = 1 / np.maximum(reach, floor)
    distance, factor = np.empty(len(X)), np.empty(len(X))
    found = _search_others(X, sample, reference, k, seed)
    for rows, indices, distances in [(sample, graph.indices, graph.distances), *found]:
        own = np.maximum(distances, k_distance[indices]).mean(axis=1, dtype=np.float64)
        distance[rows] = np.log(np.maximum(distances.mean(axis=1, dtype=np.float64), floor))
        factor[rows] = np.log(density[indices].mean(axis=1) * np.maximum(own, floor))
    return distance, factor


def _n_neighbors(n_rows: int, contamination: float) -> int:
    wide = min(round(2 * contamination * n_rows), int(MAX_NEIGHBOR_SHARE * n_rows))
    return min(max(MIN_NEIGHBORS, wide), n_rows - 1)


def _search_others(
    X: NDArray[np.float32], sample: NDArray[np.int64], reference: NDArray[np.float32], k: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]]:
    """Batches of rows outside the sample, with indices of and distances to their neighbors in it."""
    others = np.setdiff1d(np.arange(len(X)), sample, assume_unique=True)
    if not len(others):
        return
    search = NeighborSearch(reference, seed, reproducible=len(X) <= REPRODUCIBLE_ROWS)
    for start in range(0, len(others), BATCH_ROWS):
        rows = others[start : start + BATCH_ROWS]
        yield (rows, *search(np.ascontiguousarray(X[rows]), k))


def tail_threshold(scores: NDArray[np.floating[Any]]) -> float:
    """Score that `EXPECTED_ABOVE` rows are expected to exceed, if the upper tail is exponential.

    Peaks over a threshold have a generalized Pareto tail (Pickands 1975; Coles 2001, section 4.2), of which this
    is the one with shape 0; for logarithms of distances it is the power law of Hill (1975). Its scale comes from
    the quantiles 0.5 and 0.9. Real descriptors have lighter tails, so that regular rows rarely come near.

    Parameters
    ----------
    scores
        Shape ``(n_rows,)``, finite.
    """
    median, high = np.quantile(scores, (0.5, 0.9))
    steps = np.log(0.5 * len(scores) / EXPECTED_ABOVE) / np.log(0.5 / 0.1)
    return float(median + max(high - median, MIN_TAIL) * steps)


def _in_thresholds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    median = np.median(scores)
    return np.asarray((scores - median) / (tail_threshold(scores) - median))


def outlier_verdict(
    quality: pd.DataFrame | None, anomaly: Mapping[str, NDArray[np.floating[Any]]], contamination: float
) -> pd.DataFrame:
    """Judge every image by its picture and by its vectors in all descriptors.

    Both kinds of evidence are put on a scale on which 1 suffices for a verdict: the odds of the picture's score,
    and the anomaly score in the descriptor where it is largest. The Euclidean norm of the two counts, so
    that a doubtful picture with doubtful vectors is flagged as well.

    Parameters
    ----------
    quality
        Table of stage `image_quality`: what `measure_images` and `quality_outliers` return, one row per image.
        None without pictures; where too few of them could be read (see `read_enough`), they take no part.
    anomaly
        Scores of every image by descriptor (see `anomaly_scores`), at least one, in the order of `quality`, shape
        ``(n_images,)``; NaN for rows without a usable vector, which are flagged: what cannot be read should not
        be trained on.
    contamination
        Largest share of the images that is flagged for its vectors; the strangest are, ties in order.

    Returns
    -------
    pandas.DataFrame
        One row per image: `is_outlier`; `outlier_score` in [0, 1], at least one half if and only if the image is
        flagged; `reasons` in words, joined by "; ", empty if it is not.

    Raises
    ------
    ValueError
        If there is no descriptor, or `quality` has another number of rows.
    """
    if not anomaly:
        raise ValueError("anomaly is empty: at least one descriptor is needed")
    scores = np.column_stack([np.asarray(values, np.float64) for values in anomaly.values()])
    pictures = quality if quality is not None and read_enough(quality) else None
    if pictures is not None and len(pictures) != len(scores):
        raise ValueError(f"quality has {len(pictures)} rows, anomaly {len(scores)}")
    odds = np.zeros(len(scores)) if pictures is None else _odds(pictures["score"])
    excess = np.where(np.isnan(scores), -np.inf, scores)
    has_vectors = np.isfinite(excess).all(axis=1)
    evidence = np.where(has_vectors, np.hypot(odds, excess.max(axis=1, initial=0)), np.inf)
    certain = (odds >= 1) | ~has_vectors
    flagged = certain | _strangest(np.where(certain, 0, evidence), contamination)
    score = 1 - 1 / (1 + evidence)
    score[~flagged] = np.minimum(score[~flagged], np.nextafter(0.5, 0))
    rows = np.flatnonzero(flagged)
    words = zip(
        _picture_reasons(pictures, rows),
        _vector_reasons(excess[rows], odds[rows] >= 1, list(anomaly)),
        strict=True,
    )
    reasons = np.full(len(scores), "", object)
    reasons[rows] = ["; ".join(filter(None, pair)) for pair in words]
    return pd.DataFrame(
        {"is_outlier": flagged, "outlier_score": score, "reasons": pd.array(reasons, dtype="string")}
    )


def _odds(score: pd.Series[Any]) -> NDArray[np.float64]:
    """Odds of scores in [0, 1]; 0 for pictures that are missing."""
    share = score.fillna(0).to_numpy(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(share / (1 - share))


def _strangest(evidence: NDArray[np.float64], contamination: float) -> NDArray[np.bool_]:
    """Rows with evidence of at least 1, the strongest up to the share `contamination`, shape ``(n_rows,)``."""
    chosen = np.argsort(-evidence, kind="stable")[: int(contamination * len(evidence))]
    flagged = np.zeros(len(evidence), bool)
    flagged[chosen] = evidence[chosen] >= 1
    return flagged


def _picture_reasons(pictures: pd.DataFrame | None, rows: NDArray[np.int64]) -> list[str]:
    """Faults of some pictures; of those without one, what they are suspected of."""
    if pictures is None:
        return [""] * len(rows)
    judged = pictures.iloc[rows]
    reasons = judged["reasons"].fillna("").astype(str).to_list()
    doubtful = np.flatnonzero((judged["reasons"].fillna("") == "") & judged["error"].isna())
    suspected = quality_outliers(judged.iloc[doubtful], pictures, MIN_SUSPICION)["reasons"]
    for i, words in zip(doubtful, suspected, strict=True):
        reasons[i] = f"possibly {words}" if words else ""
    return reasons


def _vector_reasons(excess: NDArray[np.float64], is_bad: NDArray[np.bool_], names: list[str]) -> list[str]:
    """Descriptors that images are unusual in; the strangest where only a doubtful picture tips the scales."""
    reasons = []
    for row, bad in zip(excess, is_bad, strict=True):
        unusual = [name for name, value in zip(names, row, strict=True) if value >= 1]
        unusable = [name for name, value in zip(names, row, strict=True) if not np.isfinite(value)]
        if unusable:
            reasons.append(f"{NO_VECTOR}: {', '.join(unusable)}")
        elif unusual:
            reasons.append(f"{UNUSUAL}: {', '.join(unusual)}")
        else:
            reasons.append("" if bad else f"rather {UNUSUAL}: {names[int(row.argmax())]}")
    return reasons
