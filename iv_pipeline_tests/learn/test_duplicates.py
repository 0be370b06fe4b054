"""Equal rows are found, and stand for each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.duplicates import distinct_rows, first_equal


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_every_row_is_led_to_the_first_that_equals_it(kinds: list[int]) -> None:
    X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)[kinds]
    assert first_equal(X).tolist() == [kinds.index(kind) for kind in kinds]
    rows, inverse = distinct_rows(X)
    np.testing.assert_array_equal(X[rows][inverse], X)
    assert len(rows) == len(set(kinds))


def test_batches_and_the_sign_of_zero_make_no_difference() -> None:
    X = np.array([[0.0, 1], [-0.0, 1], [0, 2], [0, 1]], np.float32)
    assert first_equal(ArrayBatches(X, 2)).tolist() == [0, 0, 2, 0]
