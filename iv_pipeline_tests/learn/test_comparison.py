import json

import numpy as np
import pandas as pd
import pytest

from iv_pipeline.learn.comparison import agreement, rank_descriptors, square, strengths


def test_each_pair_stands_once_and_equal_labelings_agree_fully() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2], np.int32)
    pairs = agreement({"a": labels, "b": labels[::-1].copy(), "c": np.zeros(6, np.int32)}, "descriptor")
    assert list(zip(pairs["first"], pairs["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs["adjusted_rand"].iloc[0] == 1
    assert pairs["adjusted_rand"].iloc[1] == 0


def test_one_labeling_makes_no_pairs_but_a_table() -> None:
    assert agreement({"a": np.zeros(3, np.int32)}, "algorithm").columns.tolist()[:3] == [
        "kind",
        "first",
        "second",
    ]


def test_pairs_become_a_symmetric_table() -> None:
    pairs = pd.DataFrame({"first": ["a", "a"], "second": ["b", "c"], "v": [0.2, 0.4]})
    table = square(pairs, "v")
    assert table.loc["b", "a"] == table.loc["a", "b"] == 0.2
    assert (np.diag(table) == 1).all()


def winner(predicted_by: dict[str, float], stability: float = 0.5) -> "pd.Series[object]":
    return pd.Series(
        {
            "scaler": "standard",
            "representation": "pca",
            "algorithm": "kmeans",
            "parameters": "{}",
            "n_clusters": 50,
            "stability": stability,
            "predicted_by": json.dumps(predicted_by),
            "criterion": "predictability" if predicted_by else "stability",
            "reason": "r",
        }
    )


def test_descriptors_that_others_judge_rank_before_those_that_only_agree_with_themselves() -> None:
    ranked = rank_descriptors(
        {
            "weak": winner({"a": 0.1, "b": 0.2}),
            "alone": winner({}, stability=0.9),
            "strong": winner({"a": 0.2, "b": 0.4}),
            "alone, too": winner({}, stability=0.95),
        }
    )
    assert ranked["descriptor"].tolist() == ["strong", "weak", "alone, too", "alone"]
    assert ranked["rank"].tolist() == [1, 2, 3, 4]


def test_strength_does_not_depend_on_the_panel_of_judges() -> None:
    strength, acuity = {"x": 0.6, "y": 0.3, "z": 0.5}, {"x": 1.0, "y": 0.2, "z": 0.7}
    panel = {n: {j: strength[n] * acuity[j] for j in acuity if j != n} for n in strength}
    found = strengths(panel)
    assert max(panel, key=lambda n: np.mean(list(panel[n].values()))) == "z"  # a mean would be misled
    assert sorted(found, key=found.__getitem__) == ["y", "z", "x"]
    assert found["x"] / found["y"] == pytest.approx(2)


def test_nobody_judged_has_no_strength() -> None:
    assert strengths({"a": {}}) == {}


def test_a_combination_is_as_strong_as_its_best_block_times_what_combining_gained() -> None:
    alone = {"a": {"b": 0.4, "c": 0.2}, "b": {"a": 0.2, "c": 0.1}, "c": {"a": 0.2, "b": 0.2}}
    blocks = {"a": ["a"], "a+b": ["a", "b"], "a+b+c": ["a", "b", "c"]}
    # a judges b and c together, b judges a and c, c judges a and b
    combined = {"a+b": {"c": 0.3}, "a+b+c": {"a": 0.4, "b": 0.8, "c": 0.4}}
    strong = strengths({**alone, **combined}, blocks)
    assert strong["a"] == pytest.approx(strengths(alone)["a"])
    assert strong["a+b"] == pytest.approx(1.5 * strong["a"])
    assert strong["a+b+c"] == pytest.approx(2 * strong["a"])


def test_a_combination_of_blocks_that_were_not_judged_is_ranked_like_a_descriptor() -> None:
    scores = {"a": {"c": 0.2}, "b+d": {"c": 0.3}}
    assert strengths(scores, {"a": ["a"], "b+d": ["b", "d"]}) == strengths(scores)
