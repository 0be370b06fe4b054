import json

import numpy as np
import pandas as pd
import pytest

from iv_pipeline.learn.comparison import (
    agreement,
    crossings,
    disagreement,
    gains,
    rank_configurations,
    rank_descriptors,
    square,
    strengths,
)


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
    assert gains({**alone, **combined}, blocks) == {"a+b": pytest.approx(1.5), "a+b+c": pytest.approx(2)}


def test_a_combination_of_blocks_that_were_not_judged_is_ranked_like_a_descriptor() -> None:
    scores = {"a": {"c": 0.2}, "b+d": {"c": 0.3}}
    assert strengths(scores, {"a": ["a"], "b+d": ["b", "d"]}) == strengths(scores)


def test_crossings_count_each_image_once_in_each_direction() -> None:
    kind, color = np.array([0, 0, 0, 1, 1, -1]), np.array([0, 0, 1, 1, 1, 1])
    table = crossings({"type": kind.astype(np.int32), "color": color.astype(np.int32)})
    of_type = table[table["first"] == "type"]
    assert of_type[["cluster", "other_cluster", "images"]].to_numpy().tolist() == [
        [0, 0, 2],
        [0, 1, 1],
        [1, 1, 2],
    ]
    assert of_type["share"].tolist() == pytest.approx([2 / 3, 1 / 3, 1])
    assert of_type["lift"].tolist() == pytest.approx([5 / 3, 5 / 9, 5 / 3])
    assert table.groupby("first")["images"].sum().tolist() == [5, 5]
    assert crossings({"alone": np.zeros(3, np.int32)}).empty


def test_descriptors_disagree_about_images_that_cross_as_hardly_any_other_does() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(5, size=1000).astype(np.int32)
    second, third = first.copy(), rng.integers(5, size=1000).astype(np.int32)
    second[:7] = (first[:7] + 1) % 5
    first[10] = -1
    disputed = disagreement({"a": first, "b": second, "c": third})
    assert set(np.argsort(-disputed)[:7]) == set(range(7))
    assert disputed[np.setdiff1d(np.arange(11, 1000), [10])].max() < 0.5
    assert np.isnan(disagreement({"a": first})).all()


def test_configurations_are_ranked_in_their_descriptor_by_every_criterion() -> None:
    trials = pd.DataFrame(
        {
            "scaler": ["standard", "minmax", "robust", "standard"],
            "representation": ["pca", "pca", "pca", "umap"],
            "algorithm": "kmeans",
            "parameters": "{}",
            "n_clusters": 50,
            "round": [2, 2, 2, 1],
            "n_rows": [2_000, 2_000, 2_000, 1_000],
            "predictability": [0.2, 0.5, np.nan, 0.9],
            "stability": [0.9, 0.8, 0.7, np.nan],
            "identity": np.nan,
            "calinski_harabasz": [1.0, 2.0, 3.0, np.nan],
            "davies_bouldin": [1.0, 2.0, 3.0, np.nan],
            "silhouette": 0.1,
            "noise_share": 0.0,
            "kept": True,
            "tied": True,
            "won": [False, True, False, False],
            "criterion": "predictability",
        }
    )
    ranked = rank_configurations({"vdc_type": trials, "osnet": trials})
    assert ranked["descriptor"].tolist() == ["vdc_type"] * 4 + ["osnet"] * 4
    dropped = ranked.iloc[3]  # in round 1, on fewer images: its score cannot be compared
    assert dropped["representation"] == "umap"
    assert dropped.filter(like="rank_").isna().all()
    mine = ranked.head(3)
    assert mine["scaler"].tolist() == ["minmax", "standard", "robust"]
    assert mine["rank_davies_bouldin"].tolist() == [2, 1, 3]
    assert mine["rank_calinski_harabasz"].tolist() == [2, 3, 1]
    assert mine["rank_predictability"].isna().tolist() == [False, False, True]
    assert mine["rank_identity"].isna().all()
