"""Stages `comparison`, `crossings`, `disagreements` and `ranking`: how descriptors and algorithms agree."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.stage import PARTIAL, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.errors import InputError
from iv_pipeline.learn.comparison import (
    agreement,
    disagreement,
    rank_configurations,
    square,
)
from iv_pipeline.learn.comparison import (
    crossings as cross,
)
from iv_pipeline.report import plots
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

MAX_ROWS = 20_000
"""Agreement is measured on at most so many rows: its standard error is far below what is shown."""


@stage(
    group="results",
    kinds=("scikitlearn", "parquet"),
    partitioned=False,
    ins={"clusters": PARTIAL},
    code_version="2",
)
def comparison(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    clusters: dict[str, VectorTable],
) -> Result:
    """Adjusted Rand index and mutual information between descriptors, and between algorithms."""
    n_rows = min(table.n_rows for table in clusters.values())
    rows = np.sort(np.random.default_rng(settings.config.seed).permutation(n_rows)[:MAX_ROWS])
    between = agreement(
        {name: table.column("cluster").to_numpy()[rows] for name, table in clusters.items()}, "descriptor"
    )
    parts = [between.assign(descriptor="")]
    for name, table in clusters.items():
        labels = {
            column.removeprefix("label_"): table.column(column).to_numpy()[rows]
            for column in table.schema.names
            if column.startswith("label_")
        }
        parts.append(agreement(labels, "algorithm").assign(descriptor=name))
        context.log.info("comparison · %s · %d algorithms", name, len(labels))
    frame = pd.concat(parts, ignore_index=True)
    return Result(
        frame,
        lambda: {
            "descriptors": len(clusters),
            "mean_agreement": float(between["adjusted_rand"].mean()) if len(between) else np.nan,
            "agreement": dg.MetadataValue.md(
                plots.inline(plots.heat_map(square(between, "adjusted_mutual_information")))
                if len(between)
                else "one descriptor: nothing to compare"
            ),
        },
    )


@stage(group="results", kinds=("pandas", "parquet"), partitioned=False, ins={"clusters": PARTIAL})
def crossings(context: dg.AssetExecutionContext, clusters: dict[str, VectorTable]) -> Result:
    """How clusters of one descriptor cross with those of another, so that type, color and view read together."""
    frame = cross(_cluster_of(clusters))
    context.log.info("crossings · %d pairs of clusters", len(frame))
    strongest = (
        frame[frame["images"] >= frame["images"].median()].nlargest(15, "lift") if len(frame) else frame
    )
    return Result(
        frame,
        lambda: {
            "descriptors": len(clusters),
            "strongest": dg.MetadataValue.md(strongest.round(3).to_markdown(index=False)),
        },
    )


@stage(group="results", kinds=("pandas", "csv"), partitioned=False, ins={"clusters": PARTIAL})
def disagreements(context: dg.AssetExecutionContext, clusters: dict[str, VectorTable]) -> Result:
    """All images, those first about which the descriptors disagree most, with the cluster in each."""
    labelings = _cluster_of(clusters)
    paths = next(iter(clusters.values())).column(IMAGE_PATH).to_pandas()
    frame = pd.DataFrame({IMAGE_PATH: paths, "disagreement": disagreement(labelings), **labelings})
    frame = frame.sort_values("disagreement", ascending=False, kind="stable", ignore_index=True)
    context.log.info("disagreements · %d descriptors", len(labelings))
    return Result(
        frame,
        lambda: {
            "descriptors": len(labelings),
            "most_disputed": dg.MetadataValue.md(frame.head(12).round(2).to_markdown(index=False)),
        },
    )


@stage(group="results", kinds=("pandas", "csv"), partitioned=False, ins={"clustering_trials": PARTIAL})
def ranking(context: dg.AssetExecutionContext, clustering_trials: dict[str, pd.DataFrame]) -> Result:
    """Every configuration tried, and its rank in its descriptor by each criterion."""
    frame = rank_configurations(clustering_trials)
    context.log.info("ranking · %d configurations", len(frame))
    return Result(
        frame,
        lambda: {
            "configurations": len(frame),
            "chosen": dg.MetadataValue.md(frame[frame["won"]].round(3).to_markdown(index=False)),
        },
    )


def _cluster_of(clusters: dict[str, VectorTable]) -> dict[str, np.ndarray]:
    """The cluster of every image by descriptor.

    Raises
    ------
    InputError
        If descriptors were clustered for different deliveries.
    """
    sizes = {name: table.n_rows for name, table in clusters.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise InputError(
            f"descriptors were clustered for different deliveries ({text} rows)", fix="run the others again"
        )
    return {name: table.column("cluster").to_numpy() for name, table in clusters.items()}
