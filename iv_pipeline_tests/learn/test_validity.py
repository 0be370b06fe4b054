"""Vectors that cannot be used are found, whatever the scale of the descriptor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iv_pipeline.errors import InputError
from iv_pipeline.learn.validity import (
    ALL_ZERO,
    NOT_FINITE,
    TOO_LONG,
    USABLE,
    ValidityRule,
    fit_validity,
    lengths,
    without_unusable,
)


class Rows:
    """Rows in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array.astype(np.float32)
        self.shape = array.shape

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._array[rows]


def usual(n: int = 240, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_codes_tell_the_kinds_of_unusable_vectors_apart_at_every_scale(scale: float) -> None:
    X = usual() * np.float32(scale)
    X[3, 5], X[4, 0] = np.nan, np.inf
    X[7] = 0
    X[9] = 1e6 * np.float32(scale)
    X[11, 2] = -1e7 * np.float32(scale)
    codes = fit_validity(Rows(X)).codes(X)
    assert {int(row): int(codes[row]) for row in np.flatnonzero(codes)} == {
        3: NOT_FINITE,
        4: NOT_FINITE,
        7: ALL_ZERO,
        9: TOO_LONG,
        11: TOO_LONG,
    }


def test_a_third_of_garbage_does_not_move_the_bound() -> None:
    X = usual()
    X[::3] *= np.float32(1e12)
    codes = fit_validity(Rows(X)).codes(X)
    assert (codes == np.where(np.arange(len(X)) % 3 == 0, TOO_LONG, USABLE)).all()


def test_lengths_that_vary_by_nature_are_all_usable() -> None:
    X = usual(5_000)
    X *= np.random.default_rng(1).lognormal(0, 2, (len(X), 1)).astype(np.float32)
    assert lengths(X).max() > 100 * np.median(lengths(X))
    assert (fit_validity(Rows(X)).codes(X) == USABLE).all()


def test_groups_far_apart_are_all_usable() -> None:
    X = usual() + 3_000 * usual(4, seed=1)[np.arange(240) % 4]
    assert (fit_validity(Rows(X)).codes(X) == USABLE).all()


@given(st.floats(-37, 37), st.integers(1, 40))
def test_lengths_match_numpy_where_squares_overflow_or_vanish(exponent: float, width: int) -> None:
    X = usual(5, width) * np.float32(10) ** np.float32(exponent)
    wide = np.linalg.norm(X.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths(X), wide, rtol=2e-5, atol=1e-30 * (exponent < -18))


def test_a_vector_of_a_combination_is_usable_if_all_its_descriptors_are() -> None:
    rule = ValidityRule.join([ValidityRule((2,), (10.0,)), ValidityRule((1,), (1.0,))])
    codes = rule.codes(np.array([[1, 1, 1], [0, 0, 1], [1, 1, 2], [20, 0, np.nan]], np.float32))
    assert codes.tolist() == [USABLE, ALL_ZERO, TOO_LONG, TOO_LONG]
    assert ValidityRule.from_arrays(rule.to_arrays()) == rule


def test_unusable_rows_become_nan_and_the_others_stay() -> None:
    X = usual(3)
    masked = without_unusable(X, np.array([0, ALL_ZERO, 0], np.uint8))
    assert np.isnan(masked[1]).all()
    np.testing.assert_array_equal(masked[[0, 2]], X[[0, 2]])
    assert without_unusable(X, np.zeros(3, np.uint8)) is X


def test_a_feature_that_is_nan_everywhere_is_named() -> None:
    X = usual()
    X[:, 7] = np.nan
    with pytest.raises(InputError, match=r"^descriptor x: .*feature 7 .* in every row; "):
        fit_validity(Rows(X), "descriptor x")


def test_a_constant_descriptor_is_named() -> None:
    with pytest.raises(InputError, match="descriptor x: every vector is the same"):
        fit_validity(Rows(np.full((5, 3), 0.5)), "descriptor x")
