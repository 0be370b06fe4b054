from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iv_pipeline.learn import simulation
from iv_pipeline.learn.simulation import Pool, calibration_error, coverage, learning_curve

KINDS = 6


def pool(n_rows: int = 600, seed: int = 0, spread: float = 0.3) -> Pool:
    """Images of as many shapes as colors, side by side in their features; a few have none."""
    rng = np.random.default_rng(seed)
    shape, color = rng.integers(KINDS, size=(2, n_rows))
    X = np.hstack([np.eye(KINDS)[shape], np.eye(KINDS)[color]]) + spread * rng.normal(
        size=(n_rows, 2 * KINDS)
    )
    X[:3] = np.nan
    labels = {
        "shape": pd.Series(np.array(list("abcdef"))[shape]),
        "color": pd.Series(np.array(list("uvwxyz"))[color]),
    }
    X = X.astype(np.float32)
    return Pool(X, X, np.ones(n_rows), labels)


@pytest.fixture(scope="module")
def curve() -> pd.DataFrame:
    return learning_curve(pool(), 0, (10, 25, 60))


def test_questions_teach_more_than_as_many_images_at_random(curve: pd.DataFrame) -> None:
    by = curve.set_index(["attribute", "strategy", "n_answers"])["accuracy"].sort_index()
    for attribute in ("shape", "color"):
        for n_answers in (10, 25, 60):
            assert by[attribute, "questions", n_answers] > by[attribute, "random", n_answers]
        assert by[attribute, "questions", 60] > 0.85
        assert by.loc[attribute, "all labels"].iloc[0] > 0.9


def test_questions_show_up_to_nine_images_and_random_ones_are_single(curve: pd.DataFrame) -> None:
    asked, random = (curve[curve["strategy"] == kind] for kind in ("questions", "random"))
    assert set(asked["n_answers"]) == set(random["n_answers"]) == {10, 25, 60}
    assert (random["n_images"] == random["n_answers"]).all()
    assert (asked["n_images"] > asked["n_answers"]).all()
    assert (asked["n_images"] <= 9 * asked["n_answers"]).all()


def test_a_curve_is_the_same_whenever_it_is_made(curve: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(learning_curve(pool(), 0, (10, 25, 60)), curve)


def test_a_curve_ends_where_the_questions_end() -> None:
    few = learning_curve(pool(40), 0, (10, 100, 200)).query(
        "strategy == 'questions' and attribute == 'shape'"
    )
    assert few["n_answers"].iloc[0] == 10
    assert few["n_answers"].iloc[1:].between(11, 99).all()
    assert len(few) == 2


def test_labels_that_nobody_looked_at_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    measure = simulation._measure

    def record(value: np.ndarray, confidence: np.ndarray, labels: pd.Series, judges: np.ndarray) -> object:
        found.append((value.copy(), confidence.copy(), judges.copy()))
        return measure(value, confidence, labels, judges)

    monkeypatch.setattr(simulation, "_measure", record)
    known = pool(400)._replace(labels={"shape": pool(400).labels["shape"]})
    learning_curve(known, 0, (25, 40))
    unseen = np.flatnonzero(found[1][2])  # after all questions
    shuffled = known.labels["shape"].copy()
    shuffled.iloc[unseen] = np.random.default_rng(0).permutation(shuffled.iloc[unseen])
    learning_curve(known._replace(labels={"shape": shuffled}), 0, (25, 40))
    half = len(found) // 2
    for at in (0, 1):
        for one, other in zip(found[at], found[half + at], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_label_that_is_missing_is_no_disagreement() -> None:
    known = pool(400)
    hidden = known.labels["shape"].where(np.random.default_rng(0).random(400) < 0.5)
    gaps = learning_curve(known._replace(labels={**known.labels, "shape": hidden}), 0, (25,))
    by = gaps.set_index(["attribute", "strategy"])["accuracy"]
    assert by["shape", "questions"] > by["shape", "random"]


def test_images_without_labels_or_features_are_no_ground_for_failure() -> None:
    nothing = pool(30)
    nothing.X[:] = np.nan
    frame = learning_curve(nothing, 0, (10,))
    assert set(frame["strategy"]) == {"all labels"}
    empty = pd.Series([None] * 600, dtype="str")
    frame = learning_curve(pool()._replace(labels={"shape": empty}), 0, (10,))
    assert frame.query("strategy == 'random'").empty
    assert frame["accuracy"].isna().all()


@given(arrays(np.float64, 40, elements=st.floats(0, 1)), arrays(np.bool_, 40))
def test_calibration_error_is_the_mean_gap_of_each_bin(confidence: np.ndarray, right: np.ndarray) -> None:
    bins = np.clip((confidence * 10).astype(int), 0, 9)
    gaps = [
        abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins)
    ]
    assert calibration_error(confidence, right) == pytest.approx(sum(gaps))


@given(arrays(np.float64, 30, elements=st.floats(0, 1)), arrays(np.bool_, 30), st.floats(0.5, 1))
def test_coverage_is_the_largest_share_that_is_precise_from_some_confidence_on(
    confidence: np.ndarray, right: np.ndarray, precision: float
) -> None:
    from_each = [confidence >= threshold for threshold in confidence]
    longest = max(
        (sure.sum() for sure in from_each if right[sure].sum() >= precision * sure.sum()), default=0
    )
    assert coverage(confidence, right, precision) == pytest.approx(longest / 30)


def test_of_no_images_nothing_is_known() -> None:
    none, never = np.empty(0), np.empty(0, bool)
    assert np.isnan(coverage(none, never, 0.9))
    assert np.isnan(calibration_error(none, never))
