"""What the page says of batches and refits."""

import dataclasses
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iv_pipeline.learn.drift import Limits
from iv_pipeline.report import plots
from iv_pipeline.report.later import MAX_BATCHES, Later, describe_later
from iv_pipeline.report.page import render_report
from iv_pipeline_tests.report.test_page import make, parse

LIMITS = Limits(psi=0.25, refused=0.02)


def facts(batch: str, day: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "batch": batch,
        "labelled_at": f"2026-11-{day:02}T03:00:00+00:00",
        "model_version": 1,
        "images": 1200,
        "known_before": 7,
        **more,
    }


def drift(batch: str, *, drifted: bool = False) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "batch": batch,
            "descriptor": ["type", "color"],
            "refused": [0.001, 0.3 if drifted else 0.002],
            "psi_clusters": [0.05, 0.06],
            "psi_distances": [0.01, 1.5 if drifted else 0.02],
            "drifted": [False, drifted],
            "reasons": ["", "30% of the images are like nothing in the fit" if drifted else ""],
        }
    )


def refits(*, accepted: bool) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "refit": "2026-11-08T03:00:00+00:00",
            "version": 2 if accepted else 1,
            "accepted": accepted,
            "descriptor": ["type", "color"],
            "reason": [np.nan, np.nan if accepted else "its score falls from 0.500 to 0.400"],
            "batches": "monday",
            "images_joined": 1193,
            "kept_share": [0.97, 0.95],
        }
    )


def later(**changes: Any) -> Later:
    said = {
        "version": 1,
        "joined": ["monday"],
        "batches": [facts("monday", 2), facts("night", 3)],
        "drift": pd.concat([drift("monday"), drift("night", drifted=True)]),
        "refits": pd.DataFrame(),
        "limits": LIMITS,
    }
    return Later(**(said | changes))


def text_of(shown: Later | None) -> str:
    return parse(render_report(dataclasses.replace(make(), later=shown))).text


def test_the_page_says_what_came_and_whether_the_models_fit_it() -> None:
    text = text_of(later())
    assert "2 batches have come so far, 1 of them has joined the fit, and 1 lies too far" in text
    night, monday = text.index("night 2026-11-03 03:00"), text.index("monday 2026-11-02 03:00")
    assert night < monday  # the latest first
    assert "no: color: 30% of the images are like nothing in the fit" in text
    assert "1,200 7" in text


@pytest.mark.parametrize(
    ("accepted", "words"),
    [(True, "yes, as version 2"), (False, "no, version 1 stays: color: its score falls from 0.500 to 0.400")],
)
def test_a_refit_is_told_with_its_reason(accepted: bool, words: str) -> None:
    text = text_of(later(refits=refits(accepted=accepted)))
    assert words in text
    assert "monday 1,193 95 %" in text.replace("\u00a0", " ")


def test_before_anything_has_come_there_is_no_such_section() -> None:
    assert describe_later(None) is None
    assert describe_later(later(batches=[], drift=pd.DataFrame())) is None
    assert "Later deliveries" not in text_of(None)


def test_a_batch_whose_drift_is_not_known_yet_is_listed() -> None:
    assert "monday 2026-11-02 03:00 1,200 7 – – –" in text_of(later(drift=pd.DataFrame()))


def test_of_many_batches_the_latest_are_in_the_table() -> None:
    names = [f"batch-{i:03}" for i in range(MAX_BATCHES + 5)]
    text = text_of(
        later(batches=[facts(name) for name in names], drift=pd.concat([drift(name) for name in names]))
    )
    assert f"The latest {MAX_BATCHES} are shown" in text
    assert "batch-024" in text
    assert "batch-004" not in text


def test_hostile_names_stay_text() -> None:
    name = "<script>alert(1)</script>"
    html = render_report(dataclasses.replace(make(), later=later(batches=[facts(name)], drift=drift(name))))
    assert name not in html
    assert name in parse(html).text


def test_drift_over_time_is_drawn_however_many_batches_there_are() -> None:
    few, many = (
        plots.drift_over_time(pd.concat([drift(f"b${i}") for i in range(n)]), LIMITS) for n in (1, 200)
    )
    sizes = [Image.open(io.BytesIO(picture)).size for picture in (few, many)]
    assert sizes[0] == sizes[1]
