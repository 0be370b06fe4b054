import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import make_blobs
from sklearn.metrics import average_precision_score
from sklearn.neighbors import LocalOutlierFactor

from iv_pipeline.learn.hierarchy import build_hierarchy
from iv_pipeline.learn.neighbors import neighbor_graph
from iv_pipeline.learn.outliers import (
    METHODS,
    flag,
    local_outlier_factor,
    score_outliers,
    unify,
)


def clump_among_blobs() -> tuple[np.ndarray, np.ndarray]:
    """A thousand rows in clusters, and twenty that lie together, far from everything."""
    X, _ = make_blobs(1000, centers=5, n_features=8, random_state=0)
    clump = np.random.default_rng(0).normal(scale=0.3, size=(20, 8)) + 25
    return np.vstack([X, clump]).astype(np.float32), np.arange(1020) >= 1000


def test_lof_is_scikit_learns() -> None:
    X, _ = clump_among_blobs()
    reference = -LocalOutlierFactor(n_neighbors=50).fit(X).negative_outlier_factor_
    np.testing.assert_allclose(local_outlier_factor(neighbor_graph(X, 50)), reference, rtol=1e-4)


def test_a_clump_of_outliers_is_found_by_a_neighborhood_larger_than_it() -> None:
    X, planted = clump_among_blobs()
    graph = neighbor_graph(X, 50)
    scores = score_outliers(X, graph, build_hierarchy(X, graph, 10))
    assert set(scores) == {*METHODS, "score"}
    assert all(((s >= 0) & (s <= 1)).all() for s in scores.values())
    assert average_precision_score(planted, scores["score"]) > 0.95


@given(arrays(np.float64, st.integers(2, 80), elements=st.floats(-1e6, 1e6)))
def test_unified_scores_keep_the_order_and_stay_below_one(raw: np.ndarray) -> None:
    scores = unify(raw)
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert (np.diff(scores[np.argsort(raw, kind="stable")]) >= 0).all()


@given(arrays(np.float32, st.integers(1, 200), elements=st.floats(0, 1, width=32)), st.floats(0.01, 0.4))
def test_no_more_are_flagged_than_expected_and_those_score_highest(
    scores: np.ndarray, contamination: float
) -> None:
    flagged = flag(scores, contamination)
    assert flagged.sum() <= contamination * len(scores)
    if flagged.any():
        assert scores[flagged].min() > scores[~flagged].max()
