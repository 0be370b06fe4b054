"""Stages `final`, `ranked_outliers` and `summary`: the CSVs that are handed on."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.errors import InputError
from iv_pipeline.learn.clustering import NOISE
from iv_pipeline.learn.comparison import rank_descriptors
from iv_pipeline.learn.evaluation import evaluate
from iv_pipeline.learn.outliers import combine_outliers
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.formats import read_csv
from iv_pipeline.storage.layout import NAMES
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

PARTIAL = dg.AssetIn(metadata={"allow_missing_partitions": True})
"""A fan-in of the partitions that exist; the others are named in the log."""


@stage(
    group="results",
    kinds=("csv",),
    checks={"every_image_once": "Is every image of the delivery here once, in its order?"},
)
def final(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    clusters: VectorTable,
    outliers: pd.DataFrame,
    cluster_profiles: pd.DataFrame,
) -> Result:
    """The labelled delivery: cluster, confidence, outlier verdict, status and name of every image."""
    cluster = clusters.column("cluster").to_numpy()
    column = clusters.vectors(clusters.vector_columns[0])
    usable = np.concatenate([finite_rows(column.batch(i)) for i in range(column.n_batches)])
    status = np.where(usable, np.where(cluster == NOISE, "noise", "ok"), "unusable: NaN or infinite values")
    names = cluster_names(settings, context.partition_key, cluster_profiles)
    frame = pd.DataFrame(
        {
            IMAGE_PATH: clusters.column(IMAGE_PATH).to_pandas(),
            "cluster": cluster,
            "confidence": clusters.column("confidence").to_numpy(),
            "is_outlier": outliers["is_outlier"],
            "outlier_score": outliers["score"],
            "status": status,
            "name": pd.Series(cluster).map(names).fillna(""),
        }
    )
    complete = frame[IMAGE_PATH].tolist() == image_index[IMAGE_PATH].tolist()
    return Result(
        frame,
        lambda: {
            "outliers": int(frame["is_outlier"].sum()),
            "noise_share": float((frame["status"] == "noise").mean()),
            "unusable_rows": int((~usable).sum()),
            "first_rows": dg.MetadataValue.md(frame.head(8).to_markdown(index=False)),
        },
        lambda: [Check("every_image_once", complete, {"rows": len(frame)})],
    )


def cluster_names(settings: Settings, descriptor: str, profiles: pd.DataFrame) -> dict[int, str]:
    """Names that people gave in `Names/<descriptor>.csv`, and proposed ones for the other clusters.

    Raises
    ------
    InputError
        If the file has no columns `cluster` and `name`, or a cluster that is no number.
    """
    proposed = dict(zip(profiles["cluster"].astype(int), profiles["proposed_name"], strict=True))
    path = settings.data_root / NAMES.format(descriptor=descriptor)
    if not path.exists():
        return proposed
    given = read_csv(path)
    if not {"cluster", "name"} <= set(given.columns):
        raise InputError(f"{path} needs the columns 'cluster' and 'name', it has {', '.join(given.columns)}")
    numbers = pd.to_numeric(given["cluster"], errors="coerce")
    if numbers.isna().any():
        line = int(numbers.isna().to_numpy().argmax()) + 2
        raise InputError(f"{path}, line {line}: {given['cluster'].iloc[line - 2]!r} is no cluster number")
    named = given["name"].notna()
    return proposed | dict(zip(numbers[named].astype(int), given["name"][named].astype(str), strict=True))


@stage(group="results", kinds=("csv",), partitioned=False, ins={"outliers": PARTIAL})
def ranked_outliers(
    context: dg.AssetExecutionContext,
    image_index: pd.DataFrame,
    outliers: dict[str, pd.DataFrame],
    image_quality: pd.DataFrame,
) -> Result:
    """All images over all descriptors, most suspicious first, with reasons in words."""
    quality = image_quality if image_quality["score"].notna().any() else None
    frame = combine_outliers(outliers, quality, image_index[IMAGE_PATH].to_list())
    shown = frame.head(12).round(3)
    return Result(
        frame,
        lambda: {
            "descriptors": len(outliers),
            "with_reasons": int((frame["reasons"] != "").sum()),
            "most_suspicious": dg.MetadataValue.md(shown.to_markdown(index=False)),
        },
    )


@stage(
    group="results",
    kinds=("csv",),
    partitioned=False,
    ins={"clustering_trials": PARTIAL, "final": PARTIAL},
)
def summary(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    clustering_trials: dict[str, pd.DataFrame],
    final: dict[str, pd.DataFrame],
) -> Result:
    """One row a descriptor, best first: what was chosen, its scores and why.

    Where true labels exist, how well its clusters label is shown beside; it takes no part in the rank.
    """
    winners = {name: trials[trials["won"]].iloc[0] for name, trials in clustering_trials.items()}
    frame = rank_descriptors(winners, {name: settings.config.blocks(name) for name in winners})
    shares = {name: table["is_outlier"].mean() for name, table in final.items()}
    frame["outlier_share"] = frame["descriptor"].map(shares)
    if "label" in image_index:
        truth = {name: evaluate(t["cluster"].to_numpy(), image_index["label"]) for name, t in final.items()}
        frame = frame.merge(pd.DataFrame(truth).T, left_on="descriptor", right_index=True, how="left")
    best = frame.iloc[0]
    context.log.info("best: %s, %s", best["descriptor"], best["reason"])
    return Result(
        frame,
        lambda: {
            "best": f"{best['descriptor']}: {best['reason']}",
            "summary": dg.MetadataValue.md(
                frame.drop(columns=["reason", "parameters"]).round(3).to_markdown(index=False)
            ),
        },
    )
