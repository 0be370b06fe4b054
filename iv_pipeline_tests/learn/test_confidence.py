from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from sklearn.metrics import roc_auc_score

from iv_pipeline.learn.confidence import cluster_confidence
from iv_pipeline.learn.groups import GroupTree, fit_groups


@pytest.fixture
def tree() -> GroupTree:
    """Leaves 0 and 1 of four rows each, joined to node 3, and leaf 2 of eight."""
    leaf = np.repeat([0, 1, 2], [4, 4, 8]).astype(np.int32)
    return GroupTree(leaf, np.array([[0, 1], [3, 2]], np.int32), np.array([1.0, 2.0]))


def test_a_cluster_within_one_leaf_is_certain(tree: GroupTree) -> None:
    assert cluster_confidence(tree.leaf, tree).tolist() == [1] * 16


def test_confidence_is_the_mean_information_of_what_holds_both_over_that_of_the_leaf(
    tree: GroupTree,
) -> None:
    cluster = np.full(16, -1, np.int32)
    cluster[[0, 1, 4, 8]] = 0
    confidence = cluster_confidence(cluster, tree)
    quarter, half = np.log(4), np.log(2)
    expected = [(quarter + half) / 3 / quarter] * 2 + [2 * half / 3 / quarter, 0]
    np.testing.assert_allclose(confidence[[0, 1, 4, 8]], expected, rtol=1e-6)


def test_images_without_a_cluster_a_leaf_or_company_have_none(tree: GroupTree) -> None:
    leaf = tree.leaf.copy()
    leaf[3] = -1
    cluster = np.array([0, 0, -1, 0, 1, *[-1] * 11], np.int32)
    confidence = cluster_confidence(cluster, GroupTree(leaf, tree.children, tree.heights))
    assert confidence[:5].tolist() == [1, 1, 0, 0, 0]
    assert not cluster_confidence(np.full(16, -1, np.int32), tree).any()


def test_a_delivery_of_one_group_says_nothing_of_its_clusters() -> None:
    tree = fit_groups(np.zeros((20, 2), np.float32), 0)
    assert tree.n_leaves == 1
    assert not cluster_confidence(np.arange(20, dtype=np.int32) % 2, tree).any()


def test_the_numbers_of_clusters_do_not_matter(tree: GroupTree) -> None:
    cluster = np.random.default_rng(0).integers(0, 3, 16).astype(np.int32)
    np.testing.assert_allclose(
        cluster_confidence(cluster, tree), cluster_confidence(7 - 2 * cluster, tree), rtol=1e-6
    )


@given(n_rows=st.integers(1, 120), n_clusters=st.integers(1, 9), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_it_lies_between_0_and_1(n_rows: int, n_clusters: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 5, (n_rows, 2)).astype(np.float32)
    X[rng.random(n_rows) < 0.1] = np.nan
    cluster = rng.integers(-1, n_clusters, n_rows).astype(np.int32)
    confidence = cluster_confidence(cluster, fit_groups(X, seed))
    assert confidence.dtype == np.float32
    assert ((confidence >= 0) & (confidence <= 1)).all()
    assert not confidence[(cluster < 0) | np.isnan(X).any(axis=1)].any()


def test_images_that_a_cluster_took_from_elsewhere_rank_last() -> None:
    X, group = make_blobs(600, centers=6, n_features=4, random_state=0)
    cluster = group.astype(np.int32)
    strayed = np.random.default_rng(0).permutation(600)[:60]
    cluster[strayed] = (cluster[strayed] + 1) % 6
    confidence = cluster_confidence(cluster, fit_groups(X.astype(np.float32), 0))
    assert roc_auc_score(cluster == group, confidence) > 0.95


def test_a_tree_of_other_rows_is_refused(tree: GroupTree) -> None:
    with pytest.raises(ValueError, match="cluster has 3 rows, but the tree 16"):
        cluster_confidence(np.zeros(3, np.int32), tree)
