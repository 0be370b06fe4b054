import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from iv_pipeline.learn.numbering import carry_over, changes, number_by_size

LABELS = arrays(np.int32, st.integers(1, 60), elements=st.integers(-1, 6))


@given(LABELS)
def test_numbers_fall_with_size_and_groups_stay(labels: np.ndarray) -> None:
    numbered = number_by_size(labels)
    assert ((numbered == -1) == (labels == -1)).all()
    assert adjusted_rand_score(labels, numbered) == 1
    sizes = np.bincount(numbered[numbered >= 0])
    assert (np.diff(sizes) <= 0).all()


@given(LABELS, st.randoms())
def test_a_refit_that_only_shuffles_numbers_changes_none(labels: np.ndarray, random: object) -> None:
    shuffled = np.array(random.sample(range(50), 8))[labels]  # type: ignore[attr-defined]
    shuffled[labels == -1] = -1
    np.testing.assert_array_equal(carry_over(shuffled, labels), labels)


@given(LABELS)
def test_the_first_fit_is_numbered_by_size(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(carry_over(labels, None), number_by_size(labels))


def test_a_new_cluster_gets_a_number_that_nobody_used() -> None:
    previous = np.array([0, 0, 0, 4, 4, 4])
    refit = np.array([1, 1, 1, 0, 0, 2])
    assert carry_over(refit, previous).tolist() == [0, 0, 0, 4, 4, 5]


def test_the_larger_part_of_a_split_cluster_keeps_the_number() -> None:
    previous = np.array([0, 0, 0, 0, 0])
    assert carry_over(np.array([7, 7, 3, 3, 3]), previous).tolist() == [1, 1, 0, 0, 0]


def test_what_became_of_each_cluster_is_told() -> None:
    previous = np.repeat([0, 1, 2, 3, 4, -1], [10, 10, 10, 10, 10, 5])
    now = np.repeat([0, 1, 9, 2, 2, -1, 7], [10, 6, 4, 10, 10, 10, 5])
    told = changes(now, previous).set_index("cluster")
    assert told["change"].to_dict() == {
        0: "kept",
        1: "split",
        2: "kept",
        3: "merged",
        4: "vanished",
        7: "new",
        9: "new",
    }
    assert told["into"].to_dict() == {0: [], 1: [9], 2: [], 3: [2], 4: [], 7: [], 9: []}
    assert told.loc[1, "kept_share"] == 0.6
    assert told.loc[[1, 7], "images"].tolist() == [10, 5]


@given(LABELS)
def test_nothing_becomes_of_clusters_that_are_found_again(labels: np.ndarray) -> None:
    told = changes(labels, labels)
    assert told["cluster"].tolist() == sorted(set(labels.tolist()) - {-1})
    assert (told["change"] == "kept").all()


@given(LABELS, LABELS)
def test_every_cluster_of_either_fit_is_told_of_once(labels: np.ndarray, previous: np.ndarray) -> None:
    n = min(len(labels), len(previous))
    labels, previous = carry_over(labels[:n], previous[:n]), previous[:n]
    told = changes(labels, previous)
    assert told["cluster"].is_unique
    assert set(told["cluster"]) == {*labels.tolist(), *previous.tolist()} - {-1}
