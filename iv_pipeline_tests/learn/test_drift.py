from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iv_pipeline.learn.drift import (
    BY_CHANCE,
    Limits,
    Reference,
    index_by_chance,
    measure_drift,
    population_stability_index,
    reference_of,
)

LIMITS = Limits(psi=0.25, refused=0.02)
counts = st.lists(st.integers(0, 1000), min_size=2, max_size=60).map(np.array).filter(lambda c: c.sum() > 0)


@given(counts)
@settings(deadline=None)
def test_a_population_has_not_shifted_against_itself(images: np.ndarray) -> None:
    assert population_stability_index(images, images) == 0


@given(counts)
@settings(deadline=None)
def test_the_index_is_positive_and_the_same_both_ways(images: np.ndarray) -> None:
    others = np.random.default_rng(len(images)).permutation(images)
    index = population_stability_index(images, others)
    assert index >= 0
    assert index == pytest.approx(population_stability_index(others, images))


def test_the_index_is_the_one_of_the_textbook() -> None:
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.3, 0.2])
    expected = ((q - p) * np.log(q / p)).sum()
    found = population_stability_index((p * 1e9).astype(np.int64), (q * 1e9).astype(np.int64))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "classes"), [(200, 10), (1200, 50), (10_000, 50)])
def test_samples_of_one_population_stay_below_what_chance_explains(n: int, classes: int) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(classes, 20.0))
    expected = rng.multinomial(20_000, shares)
    indices = [population_stability_index(expected, rng.multinomial(n, shares)) for _ in range(500)]
    beyond = np.mean(np.array(indices) > index_by_chance(expected, rng.multinomial(n, shares)))
    assert beyond <= 10 * BY_CHANCE


# ── vehicles that are photographed many times ────────────────────────────────────────────────────────────────


def bursts(
    rng: np.random.Generator, shares: np.ndarray, n_vehicles: int, loyalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters and vehicles of photos: 1 to 40 of each vehicle, of which `loyalty` lie in its own cluster."""
    vehicles = np.repeat(np.arange(n_vehicles), rng.integers(1, 41, n_vehicles))
    home = rng.choice(len(shares), n_vehicles, p=shares)[vehicles]
    stray = rng.choice(len(shares), len(vehicles), p=shares)
    return np.where(rng.random(len(vehicles)) < loyalty, home, stray), vehicles


def drift_of(clusters: np.ndarray, vehicles: np.ndarray, reference: Reference) -> bool:
    scores = np.random.default_rng(len(clusters)).normal(size=len(clusters))
    return bool(measure_drift(labels_of(clusters, scores), reference, LIMITS, vehicles)["drifted"])


@pytest.mark.parametrize("classes", [5, 30])
@pytest.mark.parametrize("n_vehicles", [1, 2, 3, 20, 60, 300])
@pytest.mark.parametrize("loyalty", [0.3, 1.0])
def test_vehicles_from_where_the_fit_came_from_are_no_drift(
    classes: int, n_vehicles: int, loyalty: float
) -> None:
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, classes + 1)
    shares /= shares.sum()
    fitted, of = bursts(rng, shares, 4000, loyalty)
    scores = rng.normal(size=len(fitted))
    reference = reference_of(fitted, scores, 0.001, of)
    warned = [drift_of(*bursts(rng, shares, n_vehicles, loyalty), reference) for _ in range(150)]
    assert np.mean(warned) <= 0.01


def test_without_their_vehicles_bursts_would_be_taken_for_drift() -> None:
    rng = np.random.default_rng(0)
    shares = np.full(30, 1 / 30)
    fitted, _ = bursts(rng, shares, 4000, 1.0)
    reference = reference_of(fitted, rng.normal(size=len(fitted)), 0.001)
    clusters, vehicles = bursts(rng, shares, 60, 1.0)
    assert drift_of(clusters, np.full(len(vehicles), -1), reference)


@pytest.mark.parametrize("photos", [0, 100, 5000])
def test_a_vehicle_that_is_photographed_all_day_hides_no_drift(reference: Reference, photos: int) -> None:
    rng = np.random.default_rng(0)
    clusters = np.append(rng.integers(0, 8, 2000), np.full(photos, 19))  # 12 of 20 clusters are missing
    vehicles = np.append(np.full(2000, -1), np.zeros(photos, int))
    assert drift_of(clusters, vehicles, reference)


@given(st.lists(st.integers(0, 19), min_size=1, max_size=60), st.integers(1, 9))
@settings(deadline=None)
def test_a_vehicle_counts_once_however_many_photos_there_are_of_it(drawn: list[int], photos: int) -> None:
    once, scores = np.array(drawn), np.random.default_rng(0).normal(size=len(drawn))
    reference = reference_of(np.arange(2000) % 20, np.random.default_rng(1).normal(size=2000), 0.001)
    vehicles = np.arange(len(once))
    found = measure_drift(labels_of(once, scores), reference, LIMITS, vehicles)
    times = partial(np.repeat, repeats=photos)
    again = measure_drift(labels_of(times(once), times(scores)), reference, LIMITS, times(vehicles))
    assert {**again, "images": len(once)} == pytest.approx(found)


def test_a_fit_of_few_vehicles_says_little() -> None:
    rng = np.random.default_rng(0)
    fitted, vehicles = np.repeat(rng.integers(0, 20, 40), 50), np.repeat(np.arange(40), 50)
    by_vehicle = reference_of(fitted, rng.normal(size=2000), 0.001, vehicles)
    assert by_vehicle.images.sum() == pytest.approx(40)
    assert by_vehicle.scored.sum() == pytest.approx(40)
    assert reference_of(fitted, rng.normal(size=2000), 0.001).scored.sum() == pytest.approx(2000)


def test_one_vehicle_alone_shows_no_shift(reference: Reference) -> None:
    labels = labels_of(np.zeros(300, int), np.full(300, 9.0))
    assert measure_drift(labels, reference, LIMITS)["drifted"]
    assert not measure_drift(labels, reference, LIMITS, np.zeros(300, int))["drifted"]


def test_other_vehicles_than_those_of_the_fit_are_drift(reference: Reference) -> None:
    rng = np.random.default_rng(0)
    clusters, vehicles = bursts(rng, np.full(4, 0.25), 200, 0.8)
    found = measure_drift(labels_of(clusters, rng.normal(size=len(clusters))), reference, LIMITS, vehicles)
    assert "shares of the clusters" in found["reasons"]


def test_one_refused_vehicle_among_few_is_no_drift_and_many_are(reference: Reference) -> None:
    cluster, score = batch(400)
    labels = labels_of(cluster, score, 40)
    vehicles = np.arange(400) // 40
    assert not measure_drift(labels, reference, LIMITS, vehicles)["drifted"]
    assert "like nothing" in measure_drift(labels, reference, LIMITS, np.arange(400) // 2)["reasons"]


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────


def labels_of(cluster: np.ndarray, score: np.ndarray, unknown: int = 0) -> pd.DataFrame:
    status = np.where(np.arange(len(cluster)) < unknown, "unknown: far from every image of the fit", "ok")
    cluster = np.where(status == "ok", cluster, -1)
    return pd.DataFrame(
        {"cluster": cluster, "outlier_score": score, "is_outlier": score > 0.9, "status": status}
    )


@pytest.fixture
def reference() -> Reference:
    rng = np.random.default_rng(0)
    return reference_of(rng.integers(0, 20, 5000), np.maximum(rng.normal(size=5000), 0), 0.001)


def batch(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 20, n), np.maximum(rng.normal(size=n), 0).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 30, 300, 10_000])
def test_images_from_where_the_fit_came_from_have_not_drifted(reference: Reference, n: int) -> None:
    found = measure_drift(labels_of(*batch(n)), reference, LIMITS)
    assert not found["drifted"], found
    assert found["images"] == n
    assert found["reasons"] == ""


def test_a_small_batch_exceeds_the_rule_of_thumb_by_chance_alone(reference: Reference) -> None:
    found = measure_drift(labels_of(*batch(40)), reference, LIMITS)
    assert found["psi_clusters"] > LIMITS.psi
    assert not found["drifted"]


def test_other_shares_of_the_clusters_are_drift(reference: Reference) -> None:
    cluster, score = batch(400)
    found = measure_drift(labels_of(cluster // 4, score), reference, LIMITS)
    assert found["drifted"]
    assert "shares of the clusters" in found["reasons"]


def test_images_farther_out_than_those_of_the_fit_are_drift(reference: Reference) -> None:
    cluster, score = batch(400)
    found = measure_drift(labels_of(cluster, score + 1), reference, LIMITS)
    assert "distances to the fit" in found["reasons"]
    assert "shares of the clusters" not in found["reasons"]


def test_images_nearer_to_the_fit_than_its_own_are_no_drift(reference: Reference) -> None:
    cluster, score = batch(400)
    found = measure_drift(labels_of(cluster, 0 * score), reference, LIMITS)
    assert found["psi_distances"] > LIMITS.psi
    assert not found["drifted"]


def test_images_like_nothing_in_the_fit_are_drift_if_they_are_more_than_chance(reference: Reference) -> None:
    cluster, score = batch(400)
    assert "like nothing" in measure_drift(labels_of(cluster, score, 40), reference, LIMITS)["reasons"]
    cluster, score = batch(20)
    one = measure_drift(labels_of(cluster, score, 1), reference, LIMITS)
    assert one["refused"] == 0.05
    assert not one["drifted"]


def test_unusable_rows_do_not_count(reference: Reference) -> None:
    labels = labels_of(*batch(300))
    broken = labels.assign(cluster=-1, outlier_score=1.0, status="unusable: NaN or infinite values")
    found = measure_drift(pd.concat([labels, broken]), reference, LIMITS)
    assert found == measure_drift(labels, reference, LIMITS)


def test_a_reference_survives_being_stored(reference: Reference) -> None:
    again = Reference.from_arrays(reference.to_arrays())
    labels = labels_of(*batch(300))
    assert measure_drift(labels, again, LIMITS) == measure_drift(labels, reference, LIMITS)
