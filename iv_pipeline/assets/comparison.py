"""Stage `comparison`: how descriptors and algorithms agree."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.comparison import agreement, square
from iv_pipeline.report import plots
from iv_pipeline.storage.tables import VectorTable

MAX_ROWS = 100_000
"""Agreement is measured on at most so many rows: its standard error is far below what is shown."""


@stage(
    group="results",
    kinds=("scikitlearn", "parquet"),
    partitioned=False,
    ins={"clusters": dg.AssetIn(metadata={"allow_missing_partitions": True})},
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
