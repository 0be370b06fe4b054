import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from iv_pipeline.learn.evaluation import effort_curve, evaluate, judge_ranking, label_accuracy


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
    assert evaluate(labels, truth)["v_measure"] == 1
    assert evaluate(labels, pd.Series([None] * 200)) == {}


def kinds(n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eight clusters of four kinds: cluster, vector and true label of each row."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(8, size=n_rows).astype(np.int32)
    X = np.eye(8)[cluster] * 4 + rng.normal(size=(n_rows, 8))
    return cluster, X.astype(np.float32), np.array(["a", "b", "c", "d"])[cluster % 4]


def curve(truth_of_fit: np.ndarray | None = None) -> pd.DataFrame:
    cluster, X, truth = kinds(800, 0)
    unseen, U, judged = kinds(400, 1)
    confidence = np.linspace(1, 0.1, 800).astype(np.float32)
    known = truth if truth_of_fit is None else truth_of_fit
    return effort_curve((cluster, confidence, X), (unseen, U), (known, judged))


def test_naming_every_pure_cluster_by_one_image_labels_all_unseen_images() -> None:
    points = curve().query("strategy == 'clusters' and exemplars == 1")
    assert points["accuracy"].iloc[-1] == 1
    assert points["images"].iloc[-1] == 8
    assert points["accuracy"].is_monotonic_increasing
    assert points["accuracy"].iloc[0] < 0.3


def test_as_many_images_at_random_tell_less() -> None:
    points = curve()
    random = points.query("strategy == 'random'").set_index("images")["accuracy"]
    named = points.query("strategy == 'clusters' and exemplars == 1").set_index("images")["accuracy"]
    assert set(points.query("strategy == 'clusters'")["images"]) == set(random.index)
    assert random[8] < 0.8 * named[8]
    assert random.iloc[-1] > random.iloc[0]


def test_only_images_that_a_person_looked_at_name_a_cluster() -> None:
    cluster, _, truth = kinds(800, 0)
    looked = np.zeros(800, bool)
    for number in range(8):  # the middle one of each, as they are sorted by confidence
        rows = np.flatnonzero(cluster == number)
        looked[rows[len(rows) // 2]] = True
    hidden = np.where(looked, truth, "nobody knows")
    seen = curve(hidden).query("strategy == 'clusters' and exemplars == 1")
    pd.testing.assert_frame_equal(seen, curve().query("strategy == 'clusters' and exemplars == 1"))


@given(arrays(np.bool_, st.integers(1, 60)).filter(np.any), st.floats(0.01, 0.4))
def test_rankings_are_judged_as_scikit_learn_does(wanted: np.ndarray, contamination: float) -> None:
    judged = judge_ranking(wanted, contamination)
    scores = -np.arange(len(wanted), dtype=float)
    assert judged["average_precision"] == pytest.approx(average_precision_score(wanted, scores))
    n_looked = max(1, int(contamination * len(wanted)))
    assert judged["precision"] == pytest.approx(wanted[:n_looked].mean())
    assert judged["recall"] == pytest.approx(wanted[:n_looked].sum() / wanted.sum())
