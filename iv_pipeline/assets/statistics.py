"""Stage `statistics`: everything linear that later stages need, from one pass over the descriptor."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.init import block_widths, count_unusable
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.errors import Notice
from iv_pipeline.learn.statistics import Statistics, compute_statistics
from iv_pipeline.storage.tables import VectorTable


@stage(group="representation", kinds=("numpy",), heavy=True, code_version="2")
def statistics(context: dg.AssetExecutionContext, init: VectorTable) -> Result:
    """Count, mean, extremes, quartiles and covariance of the usable rows; which rows are not usable."""
    computed = compute_statistics(init.vectors("descriptor"))
    n_constant = int(computed.constant.sum())
    if n_constant:
        first = ", ".join(str(i) for i in np.flatnonzero(computed.constant)[:5])
        context.log.warning("%d features are constant and scaled by 1 (first: %s)", n_constant, first)
    return Result(
        computed.to_arrays(),
        lambda: {
            "rows": computed.n_rows,
            "unusable_rows": len(computed.unusable),
            "features": computed.n_features,
            "constant_features": n_constant,
            "total_variance": float(np.trace(computed.covariance)),
            "features_at_a_glance": dg.MetadataValue.md(_describe(computed)),
        },
        notices=_of_unusable(init, context.partition_key),
    )


def _of_unusable(init: VectorTable, descriptor: str) -> list[Notice]:
    """A notice for each reason why vectors are unusable; a combination repeats none of its descriptors."""
    if len(block_widths(init)) > 1:
        return []
    return [
        Notice(
            f"{n:,} of {init.n_rows:,} vectors are unusable ({reason}): they take no part and get no cluster",
            where=f"descriptor {descriptor}",
        )
        for reason, n in count_unusable(init).items()
    ]


def _describe(computed: Statistics) -> str:
    """How the features' statistics are spread: one row a statistic."""
    by_feature = pd.DataFrame(
        {
            "mean": computed.mean,
            "standard deviation": computed.standard_deviation,
            "minimum": computed.minimum,
            "median": computed.quartiles[1],
            "maximum": computed.maximum,
        }
    )
    spread = by_feature.describe().T[["min", "25%", "50%", "75%", "max"]]
    return str(spread.rename_axis("of all features").to_markdown(floatfmt=".4g"))
