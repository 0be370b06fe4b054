import numpy as np
import pandas as pd

from iv_pipeline.learn.comparison import agreement, rank_descriptors, square


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


def winner(criterion: str, score: float) -> "pd.Series[object]":
    return pd.Series(
        {
            "scaler": "standard",
            "algorithm": "kmeans",
            "parameters": "{}",
            "n_clusters": 50,
            criterion: score,
            "reason": "r",
        }
    )


def test_the_rank_follows_the_leading_criterion_and_foreign_judgement_comes_first() -> None:
    winners = {
        "weak": winner("predictability", 0.1),
        "alone": winner("stability", 0.9),
        "strong": winner("predictability", 0.3),
    }
    criteria = {"weak": "predictability", "alone": "stability", "strong": "predictability"}
    ranked = rank_descriptors(winners, criteria)
    assert ranked["descriptor"].tolist() == ["strong", "weak", "alone"]
    assert ranked["rank"].tolist() == [1, 2, 3]
