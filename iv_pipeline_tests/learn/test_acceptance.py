from typing import Any

import numpy as np
import pytest

from iv_pipeline.learn.acceptance import Terms, compare_fits, objections
from iv_pipeline.learn.criteria import Score

TERMS = Terms(score_loss=0.02, kept_share=0.8)
OLD = np.repeat([0, 1, 2], 40).astype(np.int32)


def compared(
    new: np.ndarray,
    old: np.ndarray = OLD,
    scores: tuple[float, float] = (0.5, 0.5),
    error: float = 0,
    **names: str,
) -> dict[str, Any]:
    given = {int(number[1:]): name for number, name in names.items()}
    values = iter(
        [Score(scores[0], np.zeros(1, np.float32)), Score(scores[1], np.full(1, error, np.float32))]
    )
    return compare_fits(old, new.astype(np.int32), len(OLD), given, lambda _: next(values))


def test_the_same_clusters_are_no_reason_against() -> None:
    found = compared(OLD)
    assert objections(found, TERMS) == []
    assert found["kept_share"] == 1
    assert found["clusters_kept"] == 3


def test_images_that_came_later_say_nothing_about_what_was_kept() -> None:
    old = np.concatenate([OLD, np.full(50, 0)])
    found = compared(np.concatenate([OLD, np.full(50, 7)]), old)
    assert found["kept_share"] == 1
    assert found["clusters_new"] == 0


def test_too_many_images_in_other_clusters_are_a_reason() -> None:
    new = OLD.copy()
    new[:30] = 1
    found = compared(new)
    assert found["kept_share"] == 0.75
    assert objections(found, TERMS) == ["only 75% of the images keep their cluster"]


@pytest.mark.parametrize(("after", "accepted"), [(0.6, True), (0.49, True), (0.47, False), (np.nan, False)])
def test_a_score_may_fall_by_little(after: float, accepted: bool) -> None:
    assert (objections(compared(OLD, scores=(0.5, after)), TERMS) == []) == accepted


@pytest.mark.parametrize(("error", "accepted"), [(0.0, False), (0.04, False), (0.06, True)])
def test_a_fall_that_chance_explains_is_no_reason(error: float, accepted: bool) -> None:
    found = compared(OLD, scores=(0.5, 0.4), error=error)
    assert found["score_error"] == pytest.approx(error)
    assert (objections(found, TERMS) == []) == accepted


def test_where_nothing_can_be_scored_the_score_is_no_reason() -> None:
    assert objections(compared(OLD, scores=(np.nan, np.nan)), TERMS) == []


def test_a_named_cluster_that_is_gone_is_a_reason() -> None:
    new = np.where(OLD == 2, 1, OLD)
    found = compared(new, n1="vans", n2="night")
    assert found["names_lost"] == "night"
    assert "named clusters are gone: night" in objections(found, Terms(1.0, 0.0))
    assert objections(compared(new, n1="vans"), Terms(1.0, 0.0)) == []
