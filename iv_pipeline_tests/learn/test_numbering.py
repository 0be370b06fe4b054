import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from iv_pipeline.learn.numbering import carry_over, number_by_size

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
