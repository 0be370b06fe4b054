import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from iv_pipeline.learn.groups import SHEET_SIZE, GroupTree, fit_groups, sheet


def labels_of(tree: GroupTree, n: int) -> np.ndarray:
    labels = np.full(tree.n_rows, -1)
    for i, node in enumerate(tree.cut(n)):
        labels[tree.members(int(node))] = i
    return labels


@given(n_rows=st.integers(1, 120), seed=st.integers(0, 100), data=st.data())
@settings(max_examples=30, deadline=None)
def test_every_cut_is_a_partition_of_the_rows_with_vectors(
    n_rows: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 6, (n_rows, 2)).astype(np.float32)
    X[rng.random(n_rows) < 0.1] = np.nan
    tree = fit_groups(X, seed)
    usable = np.flatnonzero(np.isfinite(X).all(axis=1))
    n = data.draw(st.integers(1, 40))
    nodes = tree.cut(n)
    assert len(nodes) == min(n, tree.n_leaves)
    members = [tree.members(int(node)) for node in nodes]
    assert [len(m) for m in members] == tree.sizes[nodes].tolist()
    np.testing.assert_array_equal(np.sort(np.concatenate([*members, np.empty(0, np.int64)])), usable)


def test_a_node_has_the_rows_of_its_two_children() -> None:
    tree = fit_groups(np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32), 0)
    assert (np.diff(tree.heights) >= 0).all()
    for i, (a, b) in enumerate(tree.children):
        node = tree.n_leaves + i
        both = np.union1d(tree.members(int(a)), tree.members(int(b)))
        np.testing.assert_array_equal(tree.members(node), both)
        assert tree.parents[a] == tree.parents[b] == node


def test_a_cut_finds_clear_groups() -> None:
    X, y = make_blobs(1_000, centers=7, n_features=4, cluster_std=0.3, random_state=0)
    assert adjusted_rand_score(y, labels_of(fit_groups(X.astype(np.float32), 0), 7)) > 0.99


def test_equal_rows_share_a_leaf_and_a_seed_gives_one_tree() -> None:
    X = np.repeat(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), 6, axis=0)
    tree, again = fit_groups(X, 3, 20), fit_groups(X, 3, 20)
    assert (tree.leaf.reshape(50, 6) == tree.leaf.reshape(50, 6)[:, :1]).all()
    assert tree.n_leaves <= 20
    for name, array in GroupTree.from_arrays(again.to_arrays()).to_arrays().items():
        np.testing.assert_array_equal(array, tree.to_arrays()[name])


def test_without_vectors_there_are_no_groups() -> None:
    tree = fit_groups(np.full((5, 2), np.nan, np.float32), 0)
    assert (tree.n_leaves, tree.n_nodes, len(tree.cut(3))) == (0, 0, 0)


def test_a_sheet_shows_the_core_of_a_group_the_same_whenever_it_is_made() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5)).astype(np.float32)
    rows = np.arange(0, 400, 2)
    X[rows[:60]] += 20
    shown = sheet(X[rows], rows, 0)
    assert len(set(shown.tolist())) == SHEET_SIZE
    assert not np.isin(shown, rows[:60]).any()
    np.testing.assert_array_equal(sheet(X[rows], rows, 0), shown)
    np.testing.assert_array_equal(sheet(X[rows[:5]], rows[:5], 0), rows[:5])


def test_two_leaves_have_the_size_of_the_first_node_that_holds_both() -> None:
    tree = fit_groups(np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32), 0)
    common = tree.common_sizes
    members = [set(tree.members(node).tolist()) for node in range(tree.n_nodes)]
    for a in range(tree.n_leaves):
        for b in range(tree.n_leaves):
            holding = [len(rows) for rows in members if members[a] | members[b] <= rows]
            assert common[a, b] == min(holding)
