"""Stage `changes`: what became of every image since the run before."""

import dagster as dg
import pandas as pd

from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.changes import count_changes, since
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.layout import file_of


@stage(group="results", kinds=("parquet",))
def changes(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], final: pd.DataFrame
) -> Result:
    """Each image's cluster, name and outlier verdict beside those of the run before, and which changed."""
    path = settings.data_root / file_of("changes", context.partition_key)
    frame = since(final, read_parquet(path) if path.exists() else None)
    return Result(frame, lambda: count_changes(frame))
