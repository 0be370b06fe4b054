import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from iv_pipeline.learn.attributes import Votes
from iv_pipeline.learn.evaluation import (
    descriptor_accuracy,
    evaluate,
    judge_ranking,
    label_accuracy,
    vote_accuracy,
)


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


def votes(rows: list[int], labels: list[str], groups: list[int]) -> Votes:
    return Votes(np.array(rows), np.array(labels), np.ones(len(rows)), np.array(groups))


CLUSTER = np.array([0, 0, 0, 1, 1, 1], np.int32)


def test_an_answer_is_foretold_by_others_in_its_cluster_and_never_by_itself() -> None:
    one_each = votes([0, 1, 3, 4], ["bus", "bus", "van", "van"], [0, 1, 2, 3])
    assert vote_accuracy(CLUSTER, one_each) == 1
    assert vote_accuracy(np.zeros(6, np.int32), one_each) == 0  # of the others, most say the other value
    of_one_answer = votes([0, 1, 3, 4], ["bus", "bus", "van", "van"], [0, 0, 1, 1])
    assert vote_accuracy(CLUSTER, of_one_answer) == 0
    assert np.isnan(vote_accuracy(CLUSTER, votes([0, 1], ["bus", "bus"], [0, 0])))


def test_where_no_other_answer_is_in_a_cluster_what_is_most_frequent_counts() -> None:
    alone = votes([0, 1, 2, 3], ["bus", "bus", "bus", "bus"], [0, 1, 2, 3])
    assert vote_accuracy(CLUSTER, alone) == 1


@given(st.integers(0, 2**32 - 1))
def test_votes_are_foretold_as_a_loop_over_them_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given_ = votes(
        rng.integers(6, size=20).tolist(),
        rng.choice(list("abc"), 20).tolist(),
        rng.integers(5, size=20).tolist(),
    )
    if len(set(given_.groups.tolist())) < 2:
        return
    right = []
    for i in range(20):
        others = given_.groups != given_.groups[i]
        near = others & (CLUSTER[given_.rows] == CLUSTER[given_.rows[i]])
        values = given_.labels[near if near.any() else others]
        found, counts = np.unique(values, return_counts=True)
        right.append(found[counts.argmax()] == given_.labels[i])
    assert vote_accuracy(CLUSTER, given_) == pytest.approx(np.mean(right))


def test_descriptors_are_ranked_for_each_attribute_by_labels_and_by_answers() -> None:
    rng = np.random.default_rng(0)
    kind, color = rng.integers(3, size=(2, 900))
    clusters = {"sees kind": kind.astype(np.int32), "sees color": color.astype(np.int32)}
    labels = {"kind": pd.Series(kind).astype(str), "color": pd.Series(color).astype(str)}
    said = votes(list(range(60)), [str(kind[i]) for i in range(60)], [i // 2 for i in range(60)])
    found = descriptor_accuracy(clusters, labels, {"kind": said, "color": said.take(np.zeros(60, bool))})
    best = found[found["rank"] == 1].set_index(["attribute", "judged_by"])["descriptor"]
    assert best.to_dict() == {
        ("kind", "labels"): "sees kind",
        ("color", "labels"): "sees color",
        ("kind", "answers"): "sees kind",
    }
    assert found.groupby(["attribute", "judged_by"])["rank"].max().eq(2).all()
    assert set(found.loc[found["judged_by"] == "answers", "n_images"]) == {60}


@given(arrays(np.bool_, st.integers(1, 60)).filter(np.any), st.floats(0.01, 0.4))
def test_rankings_are_judged_as_scikit_learn_does(wanted: np.ndarray, contamination: float) -> None:
    judged = judge_ranking(wanted, contamination)
    scores = -np.arange(len(wanted), dtype=float)
    assert judged["average_precision"] == pytest.approx(average_precision_score(wanted, scores))
    n_looked = max(1, int(contamination * len(wanted)))
    assert judged["precision"] == pytest.approx(wanted[:n_looked].mean())
    assert judged["recall"] == pytest.approx(wanted[:n_looked].sum() / wanted.sum())
