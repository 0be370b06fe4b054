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
