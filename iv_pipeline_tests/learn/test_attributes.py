import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from iv_pipeline.learn.attributes import (
    MEMBER_WEIGHT,
    Answer,
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
