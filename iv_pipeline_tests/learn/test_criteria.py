from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, mutual_info_score, silhouette_score

from iv_pipeline.learn.criteria import (
    UNDEFINED,
    Score,
    agreement_score,
    fit_predictor,
    identity_score,
    internal_scores,
    mean_score,
    standard_error_of_difference,
)

pytestmark = pytest.mark.kernels

labelings = st.integers(2, 60).flatmap(
    lambda n: st.tuples(*2 * [st.lists(st.integers(-1, 4), min_size=n, max_size=n)])
)


def views(n_rows: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Eight classes, and a descriptor that shows most of them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(8, size=n_rows).astype(np.int32)
    centers = np.random.default_rng(99).normal(size=(8, 6)) * 1.5
    return truth, (centers[truth] + rng.normal(size=(n_rows, 6))).astype(np.float32)


@given(labelings)
def test_agreement_is_the_adjusted_rand_index(pair: tuple[list[int], list[int]]) -> None:
    one, other = (np.array(labels, np.int32) for labels in pair)
    assert agreement_score(one, other).value == pytest.approx(adjusted_rand_score(one, other), abs=1e-9)


def test_predictability_without_the_part_of_chance_is_mutual_information_over_the_budget() -> None:
    truth, view = views()
    predictor = fit_predictor(view)
    votes = np.array([np.bincount(truth[known], minlength=8).argmax() for known in predictor.known])
    told = mutual_info_score(truth[predictor.rows], votes) / np.log(8)
    found = predictor.score(truth, 8).value
    assert told - 0.02 < found < told


def test_every_row_is_predicted_once_and_only_from_the_other_half() -> None:
    _, view = views(301)
    view[7] = np.nan
    predictor = fit_predictor(view)
    assert sorted(predictor.rows.tolist()) == [row for row in range(301) if row != 7]
    half = {row: i < 150 for i, row in enumerate(predictor.rows.tolist())}
    for row, known in zip(predictor.rows.tolist(), predictor.known.tolist(), strict=True):
        assert {half[other] for other in known} == {not half[row]}


@pytest.mark.parametrize("n_finite", [0, 1])
def test_too_few_rows_predict_nothing(n_finite: int) -> None:
    view = np.full((5, 3), np.nan, np.float32)
    view[:n_finite] = 1
    assert fit_predictor(view).score(np.arange(5, dtype=np.int32), 5) is UNDEFINED


def resampled(score: Callable[..., float], *arrays: np.ndarray, n: int = 300) -> float:
    """Standard deviation of a statistic over bootstrap samples."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(n):
        rows = rng.integers(len(arrays[0]), size=len(arrays[0]))
        values.append(score(*(a[rows] for a in arrays)))
    return float(np.std(values))


def test_the_standard_error_of_agreement_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(6, size=1500).astype(np.int32)
    other = np.where(rng.random(1500) < 0.3, rng.integers(6, size=1500), one).astype(np.int32)
    error = agreement_score(one, other).standard_error
    assert error == pytest.approx(resampled(adjusted_rand_score, one, other), rel=0.15)


def test_the_standard_error_of_predictability_is_that_of_the_bootstrap() -> None:
    truth, view = views()
    predictor = fit_predictor(view)
    votes = np.array([np.bincount(truth[known], minlength=8).argmax() for known in predictor.known])
    error = predictor.score(truth, 8).standard_error
    expected = resampled(mutual_info_score, truth[predictor.rows], votes) / np.log(8)
    assert error == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("shares", [(1 / 6,) * 6, (0.6, 0.2, 0.1, 0.1), (0.95, 0.05)])
def test_the_standard_error_of_identity_is_that_of_samples_of_vehicles(shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    photos = rng.integers(1, 9, size=400)
    vehicles = np.repeat(np.arange(400), photos)
    own = rng.choice(len(shares), p=shares, size=400)[vehicles]
    other = rng.choice(len(shares), p=shares, size=len(own))
    labels = np.where(rng.random(len(own)) < 0.4, other, own).astype(np.int32)
    rows = np.split(np.arange(len(vehicles)), np.cumsum(photos)[:-1])

    def score(drawn: np.ndarray) -> float:
        chosen = np.concatenate([rows[v] for v in drawn])
        again = np.repeat(np.arange(len(drawn)), photos[drawn])
        return identity_score(labels[chosen], again).value

    error = identity_score(labels, vehicles).standard_error
    assert error == pytest.approx(resampled(score, np.arange(400)), rel=0.15)


def test_clusterings_that_err_on_the_same_rows_differ_by_less_than_chance_moves_each() -> None:
    truth, view = views()
    predictor = fit_predictor(view)
    rng = np.random.default_rng(0)
    nearly = np.where(rng.random(len(truth)) < 0.02, rng.integers(8, size=len(truth)), truth).astype(np.int32)
    one, other = predictor.score(truth, 8), predictor.score(nearly, 8)
    assert standard_error_of_difference(one, one) == 0
    assert standard_error_of_difference(one, other) < 0.7 * min(one.standard_error, other.standard_error)


def test_a_mean_of_scores_has_the_mean_of_their_contributions() -> None:
    both = mean_score(
        [Score(0.2, np.array([0.1, 0], np.float32)), Score(0.4, np.array([0.1, 0.2], np.float32))]
    )
    assert both.value == pytest.approx(0.3)
    np.testing.assert_allclose(both.contributions, [0.1, 0.1], rtol=1e-6)
    assert mean_score([]) is UNDEFINED


def test_identity_is_one_when_vehicles_stay_together_and_zero_by_chance() -> None:
    vehicles = np.repeat(np.arange(300), 8)
    assert identity_score((vehicles % 6).astype(np.int32), vehicles).value == pytest.approx(1)
    chance = np.random.default_rng(0).integers(6, size=2400).astype(np.int32)
    assert abs(identity_score(chance, vehicles).value) < 0.02


@pytest.mark.parametrize("identities", [None, np.full(4, -1), np.arange(4)])
def test_without_two_photos_of_a_vehicle_identity_is_undefined(identities: np.ndarray | None) -> None:
    assert identity_score(np.array([0, 0, 1, 1], np.int32), identities) is UNDEFINED


def test_internal_scores_leave_noise_out() -> None:
    X, y = make_blobs(500, centers=4, random_state=0)
    noisy = np.vstack([X, np.full((20, 2), 1e3)]).astype(np.float32)
    labels = np.concatenate([y, np.full(20, -1)]).astype(np.int32)
    assert internal_scores(noisy, labels)["silhouette"] == pytest.approx(silhouette_score(X, y), abs=1e-4)


def test_one_cluster_has_no_internal_scores() -> None:
    scores = internal_scores(np.zeros((10, 2), np.float32), np.zeros(10, np.int32))
    assert all(np.isnan(value) for value in scores.values())
