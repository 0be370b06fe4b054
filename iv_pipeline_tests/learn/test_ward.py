import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from iv_pipeline.learn.ward import cut_tree, ward_merges


@given(n=st.integers(2, 60), d=st.integers(1, 5), seed=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_heights_of_unweighted_points_are_scipys(n: int, d: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(n, d))
    merges = ward_merges(points, np.ones(n))
    np.testing.assert_allclose(merges[:, 2], linkage(points, "ward")[:, 2], rtol=1e-6, atol=1e-7)


@given(seed=st.integers(0, 200), k=st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_a_weight_is_as_good_as_repetition(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(25, 3)), rng.integers(1, 6, 25)
    repeated = np.repeat(points, weights, axis=0)
    expected = AgglomerativeClustering(k).fit_predict(repeated)
    found = cut_tree(ward_merges(points, weights), len(points), k)
    assert adjusted_rand_score(expected, np.repeat(found, weights)) == 1


def test_a_cut_has_as_many_clusters_as_asked_for() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2))
    merges = ward_merges(points, np.ones(40))
    assert [cut_tree(merges, 40, k).max() + 1 for k in (1, 7, 40)] == [1, 7, 40]
