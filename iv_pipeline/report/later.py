"""What the page says of later deliveries: batches, their drift, and refits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from iv_pipeline.report import plots
from iv_pipeline.report.sections import Plot, plot_of, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iv_pipeline.learn.drift import Limits

MAX_BATCHES = 20
"""Latest batches in the table; the plot goes further back."""
MAX_REFITS = 10


@dataclass(frozen=True)
class Later:
    """What has come since the first fit.

    Attributes
    ----------
    version
        Of the models in force.
    joined
        Names of the batches that have joined the fit set.
    batches
        Facts of every labelled batch, as its record has them, in the order in which they were labelled.
    drift
        Frames of the stage `drift`, one behind the other, in that order; empty if no batch has come.
    refits
        Frame of the stage `refits`; empty if there was none.
    limits
        From where on a batch counts as drifted.
    """

    version: int
    joined: Sequence[str]
    batches: Sequence[Mapping[str, Any]]
    drift: pd.DataFrame
    refits: pd.DataFrame
    limits: Limits


@dataclass(frozen=True)
class BatchRow:
    """One batch; of each measure the largest over its descriptors, NaN where nothing is known."""

    name: str
    labelled_at: str
    version: int
    images: int
    known_before: int
    joined: bool
    refused: float
    psi_clusters: float
    psi_distances: float
    drifted: bool
    reasons: list[str]


@dataclass(frozen=True)
class RefitRow:
    """One refit; the share of images kept is the least over its descriptors."""

    at: str
    accepted: bool
    version: int
    batches: str
    images_joined: float
    kept_share: float
    why: str


@dataclass(frozen=True)
class LaterSection:
    """All of it, the latest first."""

    version: int
    n_batches: int
    n_joined: int
    n_drifted: int
    rows: list[BatchRow]
    refits: list[RefitRow]
    plot: Plot | None


def describe_later(later: Later | None) -> LaterSection | None:
    """What the section shows; None if nothing has come and there was no refit."""
    if later is None or not (later.batches or len(later.refits)):
        return None
    of_batch = dict(tuple(later.drift.groupby("batch", sort=False))) if len(later.drift) else {}
    rows = [_row(facts, of_batch.get(facts["batch"]), later.joined) for facts in later.batches]
    return LaterSection(
        later.version,
        len(rows),
        sum(row.joined for row in rows),
        sum(row.drifted for row in rows),
        rows[::-1][:MAX_BATCHES],
        _refits(later.refits)[::-1][:MAX_REFITS],
        plot_of(partial(plots.drift_over_time, limits=later.limits), later.drift),
    )


def _row(facts: Mapping[str, Any], drift: pd.DataFrame | None, joined: Sequence[str]) -> BatchRow:
    measured = pd.DataFrame(columns=_MEASURES) if drift is None else drift
    most = {name: float(measured[name].max()) if len(measured) else float("nan") for name in _MEASURES[:3]}
    drifted = measured[measured["drifted"].astype(bool)]
    return BatchRow(
        text(facts["batch"]),
        _when(facts["labelled_at"]),
        int(facts["model_version"]),
        int(facts["images"]),
        int(facts["known_before"]),
        facts["batch"] in joined,
        **most,
        drifted=len(drifted) > 0,
        reasons=[f"{text(row['descriptor'])}: {text(row['reasons'])}" for row in drifted.to_dict("records")],
    )


_MEASURES = ("refused", "psi_clusters", "psi_distances", "drifted", "descriptor", "reasons")


def _refits(refits: pd.DataFrame) -> list[RefitRow]:
    rows = []
    for at, frame in refits.groupby("refit", sort=False) if len(refits) else ():
        told = [(text(row["descriptor"]), text(row["reason"])) for row in frame.to_dict("records")]
        why = [f"{descriptor}: {reason}" for descriptor, reason in told if reason]
        rows.append(
            RefitRow(
                _when(str(at)),
                bool(frame["accepted"].iloc[0]),
                int(frame["version"].iloc[0]),
                text(frame["batches"].iloc[0]),
                float(frame["images_joined"].max()),
                float(frame["kept_share"].min()),
                "; ".join(why),
            )
        )
    return rows


def _when(at: str) -> str:
    """A time as people read it."""
    return at.replace("T", " ")[:16]
