"""Stage `scaled`: the descriptor under each scaler."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.init import block_widths
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import SCALERS, Settings
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import Statistics
from iv_pipeline.scaler import Scaler
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.scaled import parameters_table, scaled_table
from iv_pipeline.storage.tables import VectorTable


@stage(
    group="representation",
    kinds=("arrow", "numpy"),
    heavy=True,
    checks={"rows_match_init": "Has every row of Init its scaled vectors?"},
)
def scaled(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    init: VectorTable,
    statistics: dict[str, np.ndarray],
) -> Result:
    """Each image's vector under the standard, min–max and robust scaler."""
    fitted = Statistics.from_arrays(statistics)
    scalers = {str(kind): fit_scaler(kind, fitted, block_widths(init)) for kind in SCALERS}
    table = scaled_table(init, "descriptor", scalers)
    if settings.config.scaled.store == "parameters":
        source = f"../{file_of('init', context.partition_key)}"
        table = parameters_table(table, source, "descriptor", scalers)
    return Result(
        table,
        lambda: {
            "stored": settings.config.scaled.store,
            "ranges": dg.MetadataValue.md(_describe(fitted, scalers)),
        },
        lambda: [Check("rows_match_init", table.n_rows == init.n_rows, {"rows": table.n_rows})],
    )


def _describe(statistics: Statistics, scalers: dict[str, Scaler]) -> str:
    """The range of all features under each scaler."""
    rows = [
        {
            "scaler": kind,
            "lowest": ((statistics.minimum - s.center) / s.scale).min(),
            "highest": ((statistics.maximum - s.center) / s.scale).max(),
            "mean standard deviation": (statistics.standard_deviation / s.scale).mean(),
        }
        for kind, s in scalers.items()
    ]
    return str(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".4g"))
