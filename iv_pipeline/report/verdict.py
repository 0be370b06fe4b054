"""Which descriptor agrees best with the others, in which configuration, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from iv_pipeline.learn.selection import described
from iv_pipeline.report.sections import number, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

ALGORITHM_NAMES = {
    "kmeans": "k-means",
    "minibatchkmeans": "mini-batch k-means",
    "gaussianmixture": "a Gaussian mixture",
    "agglomerative": "agglomerative clustering",
    "leiden": "Leiden communities",
    "hdbscan": "HDBSCAN",
    "dbscan": "DBSCAN",
}


@dataclass(frozen=True)
class Verdict:
    """What agrees best, in plain words."""

    descriptor: str
    configuration: str
    why: str
    truth: str
    reason: str


@dataclass(frozen=True)
class Column:
    """A column of the summary.

    Attributes
    ----------
    name
        In the frame.
    title
        On the page.
    style
        How numbers are written: a filter of the templates.
    better
        Which end of the scale is marked as the best.
    meaning
        In one sentence; empty where the title says it.
    """

    name: str
    title: str
    style: Literal["score", "count", "percent", "ratio"] = "score"
    better: Literal["max", "min", ""] = ""
    meaning: str = ""


@dataclass(frozen=True)
class Cell:
    """A number of the summary, and whether it is the best of its column."""

    column: Column
    value: float
    best: bool


COLUMNS = (
    Column("n_clusters", "Clusters", "count"),
    Column(
        "strength",
        "Strength",
        better="max",
        meaning="Predictability whichever descriptors judged: no descriptor judges itself, so each is judged by "
        "another panel, and what the panel gives to all is taken out. This score ranks the descriptors.",
    ),
    Column(
        "combining_gain",
        "Combining",
        style="ratio",
        meaning="Of combinations: how many times better other descriptors predict the clusters than those of the "
        "best descriptor that takes part, judge by judge. Above 1 combining helped.",
    ),
    Column(
        "predictability",
        "Predictability",
        better="max",
        meaning="How well the descriptors of other networks predict the clusters: adjusted mutual information "
        "of predicted and given clusters, 1 at most, about 0 by chance. It leads among the clusterings of one "
        "descriptor.",
    ),
    Column(
        "stability",
        "Stability",
        better="max",
        meaning="How far two clusterings fitted on disjoint thirds of the sample agree on the last third: "
        "adjusted Rand index, 1 at most, about 0 by chance.",
    ),
    Column(
        "identity",
        "Identity",
        better="max",
        meaning="How much likelier two photos of one vehicle share a cluster than two photos at random: "
        "1 if they always do, 0 by chance.",
    ),
    Column(
        "label_accuracy",
        "Label accuracy",
        "percent",
        "max",
        "Share of images labelled rightly when each cluster is named after the majority of its known images; "
        "measured on other images than those that gave the names. It takes no part in the rank.",
    ),
    Column(
        "adjusted_rand",
        "Adjusted Rand",
        better="max",
        meaning="Agreement of clusters and true labels, 1 at most, about 0 by chance. More clusters than labels "
        "keep it low, even if every cluster is pure.",
    ),
    Column(
        "silhouette",
        "Silhouette",
        better="max",
        meaning="How much nearer an image is to its own cluster than to the next, from −1 to 1.",
    ),
    Column(
        "calinski_harabasz",
        "Calinski–Harabasz",
        "count",
        meaning="Spread between clusters over spread within. It prefers few clusters and few components, so it "
        "is not compared across descriptors.",
    ),
    Column(
        "davies_bouldin",
        "Davies–Bouldin",
        meaning="Mean likeness of a cluster to the one most like it; lower is better. Not compared across "
        "descriptors.",
    ),
    Column("noise_share", "Noise", "percent", meaning="Share of images that no cluster takes."),
)


VECTORS = {
    "whitened": "whitened components",
    "normalized": "components of unit length",
    "umap": "a UMAP embedding",
    "whitened_umap": "a UMAP embedding of whitened components",
    "normalized_umap": "a UMAP embedding of components of unit length",
    "fusion": "a UMAP embedding of the descriptors' fused neighbor graphs",
    "whitened_fusion": "a UMAP embedding of the fused neighbor graphs of whitened descriptors",
    "normalized_fusion": "a UMAP embedding of the fused neighbor graphs of descriptors of unit length",
}
"""Representations in words; scaled components as they are go by their scaler."""


def judge(summary: pd.DataFrame) -> Verdict | None:
    """The verdict on the first row of the summary; None if there is none."""
    if summary.empty:
        return None
    best = summary.iloc[0].to_dict()
    second = summary.iloc[1].to_dict() if len(summary) > 1 else None
    algorithm = text(best["algorithm"])
    return Verdict(
        descriptor=text(best["descriptor"]),
        configuration=f"{ALGORITHM_NAMES.get(algorithm, algorithm)} on {_vectors_of(best)}",
        why=_lead(best, second),
        truth=_truth(summary),
        reason=text(best["reason"]),
    )


def _vectors_of(row: Mapping[Any, Any]) -> str:
    return VECTORS.get(text(row["representation"]), f"{text(row['scaler'])}-scaled vectors")


def _lead(best: Mapping[Any, Any], second: Mapping[Any, Any] | None) -> str:
    """Why it leads, by the criterion that could be measured."""
    criterion = text(best["criterion"])
    lead = "strength" if criterion == "predictability" else criterion
    score = number(best.get(lead))
    if not np.isfinite(score):
        return "None of its clusterings could be scored, so take this with caution."
    if criterion != "predictability":
        return (
            "No descriptor of another network was there to judge it, so it was judged by itself: "
            f"{criterion} {score:.3f}, where 1 is perfect and 0 is chance."
        )
    sentence = (
        "A cluster that shows something real can be predicted from a descriptor that took no part in it. "
        f"These clusters can be predicted best: strength {score:.3f}, where 1 is perfect and 0 is chance"
    )
    if second is None or text(second["criterion"]) != criterion:
        return f"{sentence}."
    return f"{sentence}; next is {text(second['descriptor'])} with {_written(number(second.get(lead)))}."


def _truth(summary: pd.DataFrame) -> str:
    """How right it is where that is known, also where another descriptor would have been righter."""
    if "label_accuracy" not in summary:
        return ""
    accuracies = summary["label_accuracy"].map(number)
    if not np.isfinite(accuracies.iloc[0]):
        return ""
    sentence = (
        f"Where the true label is known, {100 * accuracies.iloc[0]:.0f}\u00a0% of the images get it when every "
        "cluster is named after its majority"
    )
    first = int(accuracies.argmax())
    if first == 0:
        return f"{sentence}."
    rival = text(summary["descriptor"].iloc[first])
    return (
        f"{sentence}; {rival} would get {100 * accuracies.iloc[first]:.0f}\u00a0%, which the choice, made "
        "without labels, could not know."
    )


def _written(score: float) -> str:
    return f"{score:.3f}" if np.isfinite(score) else "no score"


def summary_table(summary: pd.DataFrame) -> tuple[list[Column], list[tuple[dict[Any, Any], list[Cell]]]]:
    """Columns of which anything is known, and for each descriptor its row and its cells."""
    known = {c: summary[c.name].map(number) for c in COLUMNS if c.name in summary}
    known = {column: values for column, values in known.items() if values.notna().any()}
    best = {c: getattr(v, c.better)() if c.better and len(v) > 1 else np.nan for c, v in known.items()}
    rows = [
        (
            {
                "descriptor": text(row["descriptor"]),
                "algorithm": text(row["algorithm"]),
                "vectors": described(text(row["scaler"]), text(row["representation"])),
            },
            [Cell(c, float(values.iloc[i]), bool(values.iloc[i] == best[c])) for c, values in known.items()],
        )
        for i, row in enumerate(summary.to_dict("records"))
    ]
    return list(known), rows
