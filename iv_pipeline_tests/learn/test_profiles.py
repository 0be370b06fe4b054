import numpy as np
import pandas as pd
import pytest

from iv_pipeline.learn.evaluation import evaluate, label_accuracy
from iv_pipeline.learn.profiles import describe_geometry, majority, propose_name


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


def test_accuracy_is_one_for_pure_clusters_and_chance_for_random_ones() -> None:
    rng = np.random.default_rng(0)
    truth = pd.Series(rng.choice(["a", "b", "c", "d"], 4000))
    pure = truth.map({"a": 3, "b": 1, "c": 0, "d": 7}).to_numpy(np.int32)
    assert label_accuracy(pure, truth) == 1
    assert label_accuracy(rng.integers(5, size=4000).astype(np.int32), truth) == pytest.approx(0.25, abs=0.04)


def test_unlabelled_images_are_not_judged() -> None:
    truth = pd.Series(["a", "b", None, None] * 50)
    labels = np.array([0, 1, 5, 6] * 50, np.int32)
    assert evaluate(labels, truth)["adjusted_rand"] == 1
    assert evaluate(labels, pd.Series([None] * 200)) == {}
