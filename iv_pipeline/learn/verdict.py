"""One verdict on every image: a bad picture or unusual vectors, over all descriptors.

Thresholds come from the scores. What is usual is described by the median and the 90th percentile, which a tenth of
outliers cannot move, and extrapolated to the score that half an image of the delivery is expected to exceed; the
contamination only bounds how many images the vectors may flag beyond that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from iv_pipeline.learn.image_quality import quality_outliers, read_enough
from iv_pipeline.learn.neighbors import NeighborSearch, neighbor_graph
from iv_pipeline.learn.statistics import finite_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

N_REFERENCE = 5_000
"""Rows whose neighborhoods say how dense it is where: clumps keep their share in a sample."""
MIN_NEIGHBORS = 100
MAX_NEIGHBOR_SHARE = 0.1
"""Share of the reference that a neighborhood may take at most: a cluster of that size is no outlier."""
MIN_REACHABILITY = 0.05
"""Share of the median reachability distance below which rows count as equally dense: duplicates have none."""
BATCH_ROWS = 16_384
MIN_TAIL = 0.001
"""Smallest distance of the 90th percentile from the median of log outlier factors that is believed: one in a thousand."""
MIN_SUSPICION = 0.2
"""Severity from which a fault of the picture is named where vectors are unusual, too."""
NO_VECTOR = "no usable vector"


def strangeness(components: NDArray[np.float32], contamination: float, seed: int = 0) -> NDArray[np.float32]:
    """Log of the local outlier factor (Breunig et al. 2000) of every row: 0 inside a cluster, larger outside.

    Neighborhoods are twice as large as the share of rows that may be outliers: twenty overexposed frames are each
    other's neighbors, and only a neighborhood larger than the clump sees that they are far away.

    Parameters
    ----------
    components
        Whitened components with rows of unit length (the recipe ``normalized``), shape ``(n_rows, n_components)``,
        float32. Lengths are left out: with them, an unusual length outweighs an unusual direction.
    contamination
        Share of the rows that may be outliers.
    seed
        Seed of the reference sample, which is used beyond `N_REFERENCE` rows.

    Returns
    -------
    numpy.ndarray
        Shape ``(n_rows,)``, float32; NaN for rows that are not finite, and for all if there are too few.
    """
    scores = np.full(len(components), np.nan, np.float32)
    usable = np.flatnonzero(finite_rows(components))
    if len(usable) <= 2:
        return scores
    sample = np.sort(np.random.default_rng(seed).permutation(usable)[:N_REFERENCE])
    reference = np.ascontiguousarray(components[sample])
    largest = max(MIN_NEIGHBORS, int(MAX_NEIGHBOR_SHARE * len(sample)))
    k = min(max(MIN_NEIGHBORS, round(2 * contamination * len(sample))), largest, len(sample) - 1)
    graph = neighbor_graph(reference, k, seed)
    k_distance = graph.distances[:, -1]
    reach = _reachability(graph.indices, graph.distances, k_distance)
    floor = MIN_REACHABILITY * float(np.median(reach)) or 1.0
    density = 1 / np.maximum(reach, floor)
    scores[sample] = np.log(density[graph.indices].mean(axis=1) / density)
    others = np.setdiff1d(usable, sample, assume_unique=True)
    search = NeighborSearch(reference, seed) if len(others) else None
    for start in range(0, len(others), BATCH_ROWS):
        assert search is not None
        rows = others[start : start + BATCH_ROWS]
        indices, distances = search(np.ascontiguousarray(components[rows]), k)
        own = np.maximum(_reachability(indices, distances, k_distance), floor)
        scores[rows] = np.log(density[indices].mean(axis=1) * own)
    return scores


def _reachability(
    indices: NDArray[np.int32], distances: NDArray[np.float32], k_distance: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Mean reachability distance of rows from their neighbors, shape ``(n_rows,)``."""
    return np.asarray(np.maximum(distances, k_distance[indices]).mean(axis=1, dtype=np.float64))


def tail_threshold(scores: NDArray[np.floating[Any]], min_tail: float = MIN_TAIL) -> float:
    """Score that half a row is expected to exceed, if the upper tail is exponential.

    Peaks over a threshold have a generalized Pareto tail (Pickands 1975; Coles 2001, section 4.2), of which this is
    the one with shape 0; for logarithms of scores it is the power law of Hill (1975). Its scale comes from the
    quantiles 0.5 and 0.9. Real descriptors have lighter tails, so that regular rows rarely come near.

    Parameters
    ----------
    scores
        Shape ``(n_rows,)``; NaN is left out.
    min_tail
        Smallest distance of those quantiles that is believed.

    Returns
    -------
    float
        Infinity if there are no scores.
    """
    known = np.asarray(scores, np.float64)[~np.isnan(scores)]
    if not len(known):
        return np.inf
    median, high = np.quantile(known, (0.5, 0.9))
    return float(median + max(high - median, min_tail) * np.log(len(known)) / np.log(5))


def outlier_verdict(
    quality: pd.DataFrame | None, strangeness: Mapping[str, NDArray[np.floating[Any]]], contamination: float
) -> pd.DataFrame:
    """Judge every image by its picture and by its vectors in all descriptors.

    Both kinds of evidence are put on a scale on which 1 suffices for a verdict: the odds of the picture's score, and
    how far the strangest descriptor is beyond its median, relative to its `tail_threshold`. Evidence is the Euclidean
    norm of the two, so that a doubtful picture with doubtful vectors is flagged as well.

    Parameters
    ----------
    quality
        Table of stage `image_quality`: what `measure_images` and `quality_outliers` return, one row per image. None
        without pictures; where too few of them could be read (see `read_enough`), they take no part.
    strangeness
        Scores of every image by descriptor (see `strangeness`), at least one, in the order of `quality`, shape
        ``(n_images,)``; NaN for rows without a usable vector.
    contamination
        Largest share of the images that is flagged for its vectors; the strangest are, equally strange ones in order.

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
    if not strangeness:
        raise ValueError("strangeness is empty: name at least one descriptor")
    excess = _excess(strangeness)
    pictures = quality if quality is not None and read_enough(quality) else None
    n_images = excess.shape[0] if pictures is None else len(pictures)
    if len(excess) != n_images:
        raise ValueError(f"quality has {n_images} rows, strangeness {len(excess)}")
    odds = np.zeros(n_images) if pictures is None else _odds(pictures["score"])
    evidence = np.hypot(odds, excess.max(axis=1, initial=0))
    is_bad = odds >= 1
    has_vector = np.isfinite(excess).any(axis=1)
    evidence[~has_vector] = np.inf
    flagged = is_bad | ~has_vector | _strangest(np.where(is_bad | ~has_vector, 0, evidence), contamination)
    score = 1 - 1 / (1 + evidence)
    score[~flagged] = np.minimum(score[~flagged], np.nextafter(0.5, 0))
    rows = np.flatnonzero(flagged)
    words = [_picture_reasons(pictures, rows), _vector_reasons(excess[rows], is_bad[rows], list(strangeness))]
    reasons = np.full(n_images, "", object)
    reasons[rows] = ["; ".join(filter(None, pair)) for pair in zip(*words, strict=True)]
    return pd.DataFrame(
        {"is_outlier": flagged, "outlier_score": score, "reasons": pd.array(reasons, dtype="string")}
    )


def _excess(strangeness: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """Distance from the median relative to the threshold's, shape ``(n_images, n_descriptors)``; -inf for NaN."""
    columns: list[NDArray[np.float64]] = []
    for scores in strangeness.values():
        median = np.nanmedian(scores) if np.isfinite(scores).any() else 0.0
        columns.append((np.asarray(scores, np.float64) - median) / (tail_threshold(scores) - median))
    excess = np.column_stack(columns)
    return np.where(np.isnan(excess), -np.inf, excess)


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
    own = pictures["reasons"].iloc[rows].fillna("").astype(str)
    seen = pictures.iloc[rows][(own == "").to_numpy() & pictures["error"].iloc[rows].isna().to_numpy()]
    suspected = quality_outliers(seen, reference=pictures, least=MIN_SUSPICION)["reasons"]
    own.loc[seen.index] = [f"possibly {words}" if words else "" for words in suspected]
    return own.to_list()


def _vector_reasons(excess: NDArray[np.float64], is_bad: NDArray[np.bool_], names: list[str]) -> list[str]:
    """Descriptors that images are unusual in; the strangest where only a doubtful picture tips the scales."""
    reasons = []
    for row, bad in zip(excess, is_bad, strict=True):
        unusual = [name for name, value in zip(names, row, strict=True) if value >= 1]
        if not np.isfinite(row).any():
            reasons.append(NO_VECTOR)
        elif unusual:
            reasons.append(f"unusual vectors: {', '.join(unusual)}")
        else:
            reasons.append("" if bad else f"rather unusual vectors: {names[int(row.argmax())]}")
    return reasons
