import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs

from iv_pipeline.learn.attributes import (
    MEMBER_WEIGHT,
    Answer,
    AttributeClassifier,
    fit_votes,
    predict_values,
    votes_of,
    votes_on,
)


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def votes_by_row(answers: list[Answer], n_rows: int = 100) -> dict[int, list[tuple[str, float]]]:
    found: dict[int, list[tuple[str, float]]] = {}
    votes = votes_of(answers, n_rows)
    for row, label, weight in zip(votes.rows, votes.labels, votes.weights, strict=True):
        found.setdefault(int(row), []).append((str(label), float(weight)))
    return found


def test_images_shown_weigh_more_than_the_other_members() -> None:
    found = votes_by_row([Answer(rows(1, 2, 3), rows(2), "bus")])
    assert found == {1: [("bus", MEMBER_WEIGHT)], 2: [("bus", 1.0)], 3: [("bus", MEMBER_WEIGHT)]}


def test_an_answer_about_a_part_overrides_that_about_the_whole() -> None:
    whole, part = Answer(rows(1, 2, 3, 4), rows(1, 2), "bus"), Answer(rows(1, 2), rows(1, 2), "car")
    for answers in ([whole, part], [part, whole]):
        found = votes_by_row(answers)
        assert found[1] == found[2] == [("car", 1.0)]
        assert found[3] == found[4] == [("bus", MEMBER_WEIGHT)]


def test_a_mixed_part_takes_back_what_was_said_of_the_whole() -> None:
    found = votes_by_row([Answer(rows(1, 2, 3), rows(1, 3), "bus"), Answer(rows(1, 2), rows(1, 2), None)])
    assert found == {3: [("bus", 1.0)]}


def test_a_fact_overrides_every_group() -> None:
    groups = [Answer(rows(1, 2), rows(1, 2), "bus"), Answer(rows(1, 3), rows(1), "car")]
    assert votes_by_row([*groups, Answer(rows(1), rows(1), "van")])[1] == [("van", 1.0)]


def test_groups_that_overlap_both_vote() -> None:
    found = votes_by_row([Answer(rows(1, 2), rows(1), "bus"), Answer(rows(1, 3), rows(3), "car")])
    assert sorted(found[1]) == [("bus", 1.0), ("car", MEMBER_WEIGHT)]


def test_no_answers_give_no_votes() -> None:
    assert votes_by_row([]) == votes_by_row([Answer(rows(1, 2), rows(1), None)]) == {}


@given(seed=st.integers(0, 300), n_answers=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_last_answer_about_the_same_rows_counts(seed: int, n_answers: int) -> None:
    rng = np.random.default_rng(seed)
    members = np.sort(rng.choice(50, 6, replace=False))
    answers = [Answer(members, members[:3], str(rng.choice(["a", "b", "c"]))) for _ in range(n_answers)]
    votes = votes_of(answers, 50)
    assert set(votes.labels.tolist()) == {answers[-1].value}
    assert sorted(votes.rows.tolist()) == members.tolist()


def noisy_answers(n_answers: int, seed: int) -> tuple[np.ndarray, ...]:
    """Rows of overlapping classes, and sheets of nine that each give the class of their majority."""
    X, y = make_blobs(3_000, centers=5, n_features=12, cluster_std=4.0, random_state=seed)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    shown = np.concatenate(
        [rng.choice(np.flatnonzero(y == i % 5), 9, replace=False) for i in range(n_answers)]
    )
    return X, y, shown, np.repeat(np.arange(n_answers), 9)


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_match_the_share_that_is_right(seed: int) -> None:
    X, y, shown, groups = noisy_answers(40, seed)
    model = AttributeClassifier().fit(X[shown], y[shown], groups=groups)
    p = model.predict_proba(X).max(axis=1)
    right = model.predict(X) == y
    bins = np.clip((p * 10).astype(int), 0, 9)
    gaps = [abs(right[bins == b].mean() - p[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert right.mean() > 0.7
    assert sum(gaps) < 0.06


@given(n_classes=st.integers(1, 4), n_rows=st.integers(1, 30), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_probabilities_are_a_distribution_over_the_values_seen(
    n_classes: int, n_rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n_rows, 3)), rng.integers(0, n_classes, n_rows).astype(str)
    model = AttributeClassifier().fit(X, y, rng.random(n_rows) + 0.1, rng.integers(0, 8, n_rows))
    p = model.predict_proba(X)
    assert model.classes_.tolist() == sorted(set(y.tolist()))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (model.predict(X) == model.classes_[p.argmax(axis=1)]).all()


def test_a_fit_keeps_the_images_that_were_looked_at_and_can_be_repeated() -> None:
    X, y, shown, groups = noisy_answers(10, 0)
    everything = np.concatenate([shown, np.arange(3_000)])
    weights = np.repeat([1.0, MEMBER_WEIGHT], [len(shown), 3_000])
    answers = np.concatenate([groups, y])
    labels = np.concatenate([y[shown], (y + 1) % 5])  # the members' labels are all wrong
    capped = AttributeClassifier(max_rows=len(shown)).fit(X[everything], labels, weights, answers)
    alone = AttributeClassifier().fit(X[shown], y[shown], groups=groups)
    np.testing.assert_allclose(capped.coef_, alone.coef_)
    again = AttributeClassifier(max_rows=len(shown)).fit(X[everything], labels, weights, answers)
    np.testing.assert_array_equal(capped.coef_, again.coef_)


def test_nothing_can_be_learned_without_labels() -> None:
    with pytest.raises(ValueError, match="y is empty"):
        AttributeClassifier().fit(np.empty((0, 3)), np.empty(0))


def test_rows_without_features_neither_teach_nor_get_a_value() -> None:
    X = np.array([[0.0], [1.0], [9.0], [np.nan]], np.float32)
    usable = np.isfinite(X).all(axis=1)
    answers = [Answer(rows(i), rows(i), value) for i, value in enumerate(["bus", "bus", "car", "van"])]
    votes = votes_on(answers, usable)
    assert votes.rows.tolist() == [0, 1, 2]
    value, confidence = predict_values(fit_votes(votes, X[votes.rows]), X, usable)
    assert value.tolist() == ["bus", "bus", "car", ""]
    assert confidence[3] == 0 < confidence[:3].min()


def test_without_votes_nothing_is_predicted() -> None:
    X = np.zeros((2, 3), np.float32)
    votes = votes_on([Answer(rows(0, 1), rows(0, 1), None)], np.ones(2, bool))
    model = fit_votes(votes, X[votes.rows])
    assert model is None
    value, confidence = predict_values(model, X, np.ones(2, bool))
    assert (value.tolist(), confidence.tolist()) == (["", ""], [0, 0])


def test_one_answer_alone_makes_nothing_certain() -> None:
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    usable = np.ones(20, bool)
    votes = votes_on([Answer(np.arange(5), np.arange(5), "van")], usable)
    value, confidence = predict_values(fit_votes(votes, X[votes.rows]), X, usable)
    assert set(value) == {"van"}
    np.testing.assert_allclose(confidence, 2 / 3, rtol=1e-6)
