import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.errors import InputError
from iv_pipeline.learn.statistics import QUANTILES, Statistics, compute_statistics, finite_rows


def badly_scaled(n_rows: int, seed: int) -> np.ndarray:
    """Columns of very different scales and offsets, skewed like the features behind a ReLU, one constant."""
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.normal(size=(n_rows, 7)) @ rng.normal(size=(7, 7)), 0)
    scale = np.array([1e-12, 1e-3, 1, 1, 1e3, 1e9, 1])
    offset = np.array([0, 5, 1e3, -20, 1e6, 0, 0])
    X = X * scale + offset
    X[:, 6] = 3.25
    return X.astype(np.float32)


@given(n_rows=st.integers(2, 400), batch_rows=st.integers(1, 100), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_one_pass_in_float32_batches_agrees_with_float64(n_rows: int, batch_rows: int, seed: int) -> None:
    X = badly_scaled(n_rows, seed)
    wide = X.astype(np.float64)
    found = compute_statistics(ArrayBatches(X, batch_rows))
    deviation = wide.std(axis=0)
    tolerance = 1e-5 * np.maximum(deviation, np.abs(wide).max(axis=0) * 1e-7)
    assert (np.abs(found.mean - wide.mean(axis=0)) <= tolerance).all()
    np.testing.assert_allclose(found.quartiles, np.percentile(wide, [25, 50, 75], axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found.minimum, wide.min(axis=0))
    np.testing.assert_array_equal(found.maximum, wide.max(axis=0))
    expected = np.cov(wide, rowvar=False, ddof=0)
    unit = np.outer(deviation, deviation)
    assert (np.abs(found.covariance - expected) <= 2e-5 * unit + 1e-30).all()
    assert found.constant[6]
    assert found.standard_deviation[6] == 0


def test_rows_with_nan_or_infinity_are_reported_and_take_no_part() -> None:
    X = badly_scaled(300, 0)
    broken = np.insert(X, [0, 10, 300], np.nan, axis=0)
    broken[0], broken[11], broken[302] = np.nan, np.inf, X[0]
    broken[302, 3] = -np.inf
    found = compute_statistics(ArrayBatches(broken, 64))
    expected = compute_statistics(ArrayBatches(X, 64))
    assert found.unusable.tolist() == [0, 11, 302]
    assert found.n_usable == 300
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
    np.testing.assert_array_equal(found.quartiles, expected.quartiles)


def test_a_whole_batch_of_nan_is_no_obstacle() -> None:
    X = badly_scaled(100, 1)
    X[:50] = np.nan
    found = compute_statistics(ArrayBatches(X, 25))
    np.testing.assert_array_equal(found.minimum, X[50:].min(axis=0))


def test_values_near_the_ends_of_float32_neither_overflow_nor_vanish() -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(500, 2)) * [1e30, 1e-30]).astype(np.float32)
    found = compute_statistics(ArrayBatches(X, 100))
    np.testing.assert_allclose(found.standard_deviation, X.astype(np.float64).std(axis=0), rtol=1e-5)


def test_fewer_than_two_usable_rows_are_refused_in_one_sentence() -> None:
    X = np.full((5, 3), np.nan, np.float32)
    with pytest.raises(InputError, match="only 0 of 5 rows are free of NaN"):
        compute_statistics(ArrayBatches(X))


def test_a_row_whose_sum_overflows_is_still_finite() -> None:
    rows = np.array([[3e38, 3e38], [np.nan, 1], [1, 2]], np.float32)
    assert finite_rows(rows).tolist() == [True, False, True]


def test_statistics_survive_storage() -> None:
    computed = compute_statistics(ArrayBatches(badly_scaled(50, 2)))
    restored = Statistics.from_arrays(computed.to_arrays())
    assert restored.n_rows == 50
    np.testing.assert_array_equal(restored.covariance, computed.covariance)


@given(n_rows=st.integers(2, 300), later=st.integers(2, 300), shift=st.floats(-3, 3), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_statistics_of_later_rows_add_up_with_those_before(
    n_rows: int, later: int, shift: float, seed: int
) -> None:
    X = badly_scaled(n_rows + later, seed)
    X[n_rows:] += np.float32(shift) * X.std(axis=0)
    X[n_rows // 2], X[-1] = np.nan, np.inf
    if n_rows < 4 or later < 3:
        return
    parts = [compute_statistics(ArrayBatches(part, 64)) for part in (X[:n_rows], X[n_rows:])]
    found, expected = parts[0].followed_by(parts[1]), compute_statistics(ArrayBatches(X, 64))
    assert found.n_rows == expected.n_rows
    for exact in ("unusable", "minimum", "maximum", "constant"):
        np.testing.assert_array_equal(getattr(found, exact), getattr(expected, exact))
    # both are sums of float32: as near to each other as one is to float64
    finite = X[np.isfinite(X).all(axis=1)].astype(np.float64)
    scale = np.maximum(finite.std(axis=0), np.abs(finite).max(axis=0) * 1e-7)
    assert (np.abs(found.mean - expected.mean) <= 2e-5 * scale).all()
    unit = np.outer(scale, scale)
    assert (np.abs(found.covariance - expected.covariance) <= 2e-4 * unit + 1e-30).all()


def test_quantiles_of_rows_that_came_in_parts_are_off_by_no_more_than_a_step() -> None:
    X = badly_scaled(30_000, 3)
    whole, parts = compute_statistics(ArrayBatches(X)), [X[:20_000], X[20_000:26_000], X[26_000:] * 2]
    X[26_000:] *= 2
    found = compute_statistics(ArrayBatches(parts[0]))
    for part in parts[1:]:
        found = found.followed_by(compute_statistics(ArrayBatches(part)))
    step = 1 / (len(QUANTILES) - 1)
    for row, share in zip(found.quartiles, (0.25, 0.5, 0.75), strict=True):
        low, high = np.quantile(X.astype(np.float64), [share - 2 * step, share + 2 * step], axis=0)
        assert ((low - 1e-6 * np.abs(low) <= row) & (row <= high + 1e-6 * np.abs(high))).all()
    assert whole.n_rows == found.n_rows


def test_rows_of_other_features_cannot_follow() -> None:
    a, b = (compute_statistics(ArrayBatches(np.eye(n, dtype=np.float32))) for n in (3, 4))
    with pytest.raises(ValueError, match="4 features cannot follow rows of 3"):
        a.followed_by(b)
