import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iv_pipeline.learn.groups import fit_groups
from iv_pipeline.learn.questions import (
    MAX_SHARE,
    Candidate,
    first_questions,
    posterior,
    rank_questions,
    tree_candidates,
)


def cluster(begin: int, end: int) -> Candidate:
    members = np.arange(begin, end)
    return Candidate("cluster", members)


def one_sure_of(n_rows: int, confidence: float, value: int = 0, n_values: int = 2) -> np.ndarray:
    p = np.full((n_rows, n_values), (1 - confidence) / (n_values - 1))
    p[:, value] = confidence
    return p


def test_what_is_not_the_confidence_of_a_value_is_spread_over_the_others() -> None:
    p = posterior(np.array(["bus", "", "van", "car"], object), np.array([0.8, 0, 0.6, 1]))
    np.testing.assert_allclose(p, [[0.8, 0.1, 0.1], [0, 0, 0], [0.2, 0.2, 0.6], [0, 1, 0]])
    assert posterior(np.array(["", ""], object), np.zeros(2)).shape == (2, 0)
    np.testing.assert_allclose(
        posterior(np.array(["bus", "bus"], object), np.array([0.9, 0.8])), [[0.9], [0.8]]
    )


def test_before_any_answer_the_groups_of_a_cut_come_first_and_the_largest_of_them() -> None:
    X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    tree = fit_groups(X, 0)
    nodes, candidates = tree_candidates(tree)
    found = rank_questions(candidates, {}, [], 30, first=first_questions(tree, nodes, 12))
    assert {int(nodes[q.index]) for q in found[:12]} == set(tree.cut(12).tolist())
    assert [q.gain for q in found[:12]] == sorted((q.gain for q in found[:12]), reverse=True)
    assert len({q.index for q in found}) == 30


def test_uncertain_groups_come_before_settled_ones() -> None:
    p = np.concatenate([one_sure_of(20, 0.99), one_sure_of(20, 0.6), one_sure_of(60, 0.9)])
    found = rank_questions([cluster(0, 20), cluster(20, 40)], {"type": p}, [], 2)
    assert [q.index for q in found] == [1, 0]
    assert found[0].gain == pytest.approx(20 * 0.4)
    assert found[0].attributes == ("type",)


def test_a_group_whose_images_are_predicted_to_differ_is_asked_about_in_parts() -> None:
    p = np.concatenate([*(one_sure_of(20, 0.7, value, 3) for value in range(3)), one_sure_of(200, 0.9, 0, 3)])
    whole, parts = cluster(0, 60), [cluster(20 * i, 20 * i + 20) for i in range(3)]
    found = rank_questions([whole, *parts], {"type": p}, [], 3)
    assert sorted(q.index for q in found) == [1, 2, 3]
    assert len(whole.members) <= MAX_SHARE * len(p) / 3  # it is not its size that rules it out


def test_a_question_names_the_attributes_that_it_would_settle() -> None:
    mixed = np.concatenate([one_sure_of(20, 0.7, 0), one_sure_of(20, 0.7, 1), one_sure_of(60, 0.9)])
    beliefs = {"color": mixed, "type": one_sure_of(100, 0.6), "view": one_sure_of(100, 0.8)}
    assert rank_questions([cluster(0, 40)], beliefs, [], 1)[0].attributes == ("type", "view")


def test_no_two_questions_of_a_batch_are_about_the_same_images() -> None:
    candidates = [cluster(0, 30), cluster(0, 29), cluster(40, 50)]
    found = rank_questions(candidates, {"type": one_sure_of(100, 0.5)}, [], 2)
    assert [q.index for q in found] == [0, 2]


def test_groups_get_smaller_with_the_answers() -> None:
    sizes = [40, 20, 10]
    candidates = [cluster(100 * i, 100 * i + size) for i, size in enumerate(sizes)]
    p = {"type": one_sure_of(300, 0.5)}
    for n_asked in (0, 10, 20):
        asked = list(range(3, 3 + n_asked))
        others = [cluster(299, 300)] * n_asked
        found = rank_questions([*candidates, *others], p, asked, 1)
        assert len(found[0].candidate.members) <= MAX_SHARE * 300 / (n_asked + 1)


def test_single_images_come_last_the_uncertain_and_typical_ones_first() -> None:
    p = {"type": np.concatenate([one_sure_of(50, 0.5), one_sure_of(50, 0.9)])}
    density = np.linspace(1, 0.5, 100)
    known = np.zeros(100, bool)
    known[0] = True
    found = rank_questions([cluster(50, 60)], p, [], 3, density=density, known=known)
    assert [q.candidate.kind for q in found] == ["cluster", "image", "image"]
    assert [int(q.candidate.members[0]) for q in found[1:]] == [1, 2]
    assert found[1].index == -1


@given(seed=st.integers(0, 200), n_asked=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_answered_questions_do_not_come_back(seed: int, n_asked: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = [cluster(i * 5, i * 5 + int(rng.integers(1, 30))) for i in range(30)]
    asked = rng.choice(30, n_asked, replace=False).tolist()
    for beliefs in ({}, {"type": rng.dirichlet(np.ones(3), 200)}):
        found = [q.index for q in rank_questions(candidates, beliefs, asked, 40) if q.index >= 0]
        assert len(set(found)) == len(found)
        assert not set(found) & set(asked)


def test_nothing_is_asked_where_everything_is_known() -> None:
    p = {"type": one_sure_of(10, 1.0)}
    assert rank_questions([], p, [], 5) == rank_questions([], {}, [], 5) == []
    assert rank_questions([], {"type": one_sure_of(10, 0.5)}, [], 5, known=np.ones(10, bool)) == []


@pytest.mark.slow
def test_a_large_delivery_is_ranked_in_seconds() -> None:
    rng = np.random.default_rng(0)
    n_rows = 416_314
    X = rng.normal(size=(n_rows, 4)).astype(np.float32)
    tree = fit_groups(X, 0)
    _, candidates = tree_candidates(tree, 1_000)
    posterior = {name: rng.dirichlet(np.ones(8), n_rows) for name in ("type", "view", "color")}
    begin = time.monotonic()
    rank_questions(candidates, posterior, [], 100)
    assert time.monotonic() - begin < 15
