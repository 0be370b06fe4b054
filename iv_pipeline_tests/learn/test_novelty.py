import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iv_pipeline.learn import novelty
from iv_pipeline.learn.novelty import Novelty, fit_novelty
from iv_pipeline.learn.outliers import Unifier


def cloud(n_rows: int = 3000, seed: int = 0) -> np.ndarray:
    """Rows near a plane in twelve dimensions, as descriptors are."""
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(99).normal(size=(2, 12))
    return (rng.uniform(-2, 2, size=(n_rows, 2)) @ plane + 0.1 * rng.normal(size=(n_rows, 12))).astype(
        np.float32
    )


@pytest.mark.parametrize("n_reference", [1000, 5000])
def test_as_many_rows_like_those_of_the_fit_are_far_out_as_was_asked_for(
    n_reference: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(novelty, "N_REFERENCE", n_reference)
    fitted = fit_novelty(cloud(), contamination=0.02, unknown=0.002)
    scores = fitted.score(cloud(20_000, seed=1))
    assert np.mean(scores > fitted.outlier_above) == pytest.approx(0.02, abs=0.012)
    assert np.mean(scores > fitted.unknown_above) < 0.008


def test_rows_off_the_surface_that_the_fit_lies_on_are_unknown() -> None:
    X = cloud()
    fitted = fit_novelty(X, contamination=0.01, unknown=0.001)
    rng = np.random.default_rng(3)
    shuffled = np.stack([rng.permutation(column) for column in X.T], axis=1)  # every feature as it was
    assert np.mean(fitted.score(shuffled) > fitted.unknown_above) > 0.95


def test_a_clump_of_strange_rows_in_the_fit_is_still_strange() -> None:
    X = cloud()
    X[:20] = 9 + 0.01 * X[:20]
    fitted = fit_novelty(X, contamination=0.01, unknown=0.0)
    assert (fitted.score(X[:20]) > fitted.outlier_above).all()


def test_rows_of_the_fit_are_never_unknown_beyond_the_share() -> None:
    X = cloud(500)
    fitted = fit_novelty(X, contamination=0.01, unknown=0.001)
    assert np.mean(fitted.score(X) > fitted.unknown_above) <= 0.002


def test_no_rows_have_no_scores() -> None:
    fitted = fit_novelty(cloud(100), contamination=0.01, unknown=0.001)
    assert fitted.score(np.empty((0, 12), np.float32)).shape == (0,)


def test_what_was_learnt_survives_storage() -> None:
    fitted = fit_novelty(cloud(300), contamination=0.01, unknown=0.001)
    again = Novelty.from_arrays(fitted.to_arrays())
    np.testing.assert_array_equal(again.score(cloud(50, 5)), fitted.score(cloud(50, 5)))
    assert (again.outlier_above, again.unknown_above) == (fitted.outlier_above, fitted.unknown_above)


@given(arrays(np.float64, st.integers(2, 40), elements=st.floats(-1e6, 1e6)), st.floats(-1e7, 1e7))
def test_other_scores_are_put_on_the_scale_of_the_fit(raw: np.ndarray, other: float) -> None:
    unifier = Unifier.fit(raw)
    known, new = unifier(raw), float(unifier(np.array([other]))[0])
    assert 0 <= new <= 1
    assert (known[raw <= other] <= new + 1e-6).all()


def test_a_spread_next_to_nothing_puts_all_else_as_far_out_as_can_be() -> None:
    raw = np.array([0.0] * 12 + [2.2e-311] + [1.0] * 12)
    assert Unifier.fit(raw)(raw)[-1] == 1
    assert Unifier(0.0, 5e-324)(np.array([0.0, 1.0])).tolist() == [0, 1]
