import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics
from iv_pipeline_tests.learn.test_statistics import badly_scaled

REFERENCE = {"standard": StandardScaler, "minmax": MinMaxScaler, "robust": RobustScaler}


@pytest.mark.parametrize("kind", REFERENCE)
@given(seed=st.integers(0, 1000), n_rows=st.integers(20, 300))
@settings(max_examples=15, deadline=None)
def test_each_scaler_agrees_with_scikit_learn(kind: str, seed: int, n_rows: int) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.gamma(1.5, size=(n_rows, 6)) * rng.uniform(0.1, 50, 6) + rng.uniform(-100, 100, 6)).astype(
        np.float32
    )
    X[:, 5] = 7
    expected = REFERENCE[kind]().fit_transform(X.astype(np.float64))
    found = fit_scaler(kind, compute_statistics(ArrayBatches(X, 32))).transform(X)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("kind", REFERENCE)
def test_blocks_side_by_side_have_the_same_total_variance(kind: str) -> None:
    X = badly_scaled(400, 0)
    scaled = fit_scaler(kind, compute_statistics(ArrayBatches(X)), blocks=[2, 5]).transform(X)
    totals = [part.astype(np.float64).var(axis=0).sum() for part in (scaled[:, :2], scaled[:, 2:])]
    assert totals[0] == pytest.approx(totals[1], rel=1e-3)


def test_a_block_of_constants_is_left_alone() -> None:
    X = np.hstack([np.full((50, 2), 3), np.random.default_rng(0).normal(size=(50, 2))]).astype(np.float32)
    scaled = fit_scaler("standard", compute_statistics(ArrayBatches(X)), blocks=[2, 2]).transform(X)
    assert np.isfinite(scaled).all()
    assert not scaled[:, :2].any()


def test_an_unknown_scaler_is_named() -> None:
    with pytest.raises(ValueError, match="unknown scaler 'quantile'"):
        fit_scaler("quantile", compute_statistics(ArrayBatches(badly_scaled(10, 0))))
