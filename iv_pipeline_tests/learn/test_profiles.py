import numpy as np
import pandas as pd
import pytest

from iv_pipeline.learn.profiles import (
    describe_geometry,
    identity_agreement,
    majority,
    propose_name,
)


def test_a_tight_far_cluster_is_cohesive_and_separate() -> None:
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(100, 3)), rng.normal(size=(50, 3)) * 0.1 + 20]).astype(np.float32)
    labels = np.repeat([0, 1], [100, 50]).astype(np.int32)
    loose, tight = describe_geometry(X, labels, np.ones(150, np.float32))
    assert (loose.size, tight.size) == (100, 50)
    assert loose.nearest_cluster == 1
    assert tight.cohesion > loose.cohesion > 0.9
    assert tight.separation > loose.separation > 5


def test_exemplars_are_members_and_the_central_one_is_nearest() -> None:
    X = np.arange(40, dtype=np.float32)[:, None]
    labels = np.repeat([0, 1], 20).astype(np.int32)
    confidence = np.linspace(0, 1, 40).astype(np.float32)
    first, second = describe_geometry(X, labels, confidence)
    assert first.central[0] in (9, 10)
    assert set(first.central) | set(first.typical) | set(first.borderline) <= set(range(20))
    assert second.borderline[0] == 20


def test_noise_and_a_single_cluster_are_described() -> None:
    X = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    X[0] = np.nan
    labels = np.zeros(30, np.int32)
    labels[0] = -1
    (only,) = describe_geometry(X, labels, np.ones(30, np.float32))
    assert (only.size, only.nearest_cluster) == (29, -1)


def test_the_majority_ignores_unknown_values() -> None:
    assert majority(pd.Series(["van", None, "van", "suv"])) == ("van", pytest.approx(2 / 3))
    assert majority(pd.Series([None, None]))[0] == ""


def test_a_name_says_what_most_images_show_and_on_what_evidence() -> None:
    name, evidence = propose_name(("sedan", 0.8), ("white", 0.7), 0.5)
    assert name == "white sedan"
    assert "80% of the labelled images are 'sedan'" in evidence
    assert propose_name(("sedan", 0.3), ("red", 0.2), 0.1)[0] == "dark"
    assert propose_name(("", np.nan), ("", np.nan), np.nan) == ("mixed", "")


def test_distances_between_centroids_are_those_of_every_pair() -> None:
    X = np.repeat(np.array([[0, 0], [3, 4], [6, 8]], np.float32), 5, axis=0)
    labels = np.repeat([0, 1, 2], 5).astype(np.int32)
    described = describe_geometry(X, labels, np.ones(15, np.float32))
    np.testing.assert_allclose(
        np.stack([geometry.distances for geometry in described]), [[0, 5, 10], [5, 0, 5], [10, 5, 0]]
    )


def test_agreement_of_identities_is_the_share_of_other_photos_of_a_vehicle_that_are_there_too() -> None:
    cluster = np.array([0, 0, 0, 1, 1, -1, 0])
    vehicle = np.array([7, 7, 8, 8, 9, 7, -1])
    agreement = identity_agreement(cluster, vehicle)
    # cluster 0: each photo of 7 sees one of two others there, the one of 8 none: 2 of 5; cluster 1: 0 of 1
    assert agreement == {0: pytest.approx(2 / 5), 1: 0}
    assert np.isnan(identity_agreement(np.array([0, 1]), np.array([1, 2]))[0])
    assert identity_agreement(np.array([0, 1]), np.array([-1, -1])) == {}
