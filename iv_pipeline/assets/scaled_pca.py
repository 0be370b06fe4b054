"""Stage `scaled_pca`: the reduced vectors behind each scaler, in one pass over Init."""

import dagster as dg
import numpy as np

from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import map_rows
from iv_pipeline.learn.pca import Projection, unpack_maps
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import VectorTable, as_matrix, read_table


@stage(
    group="representation",
    kinds=("arrow", "numpy"),
    heavy=True,
    checks={"finite_values": "Is every vector finite whose raw vector is?"},
    code_version="2",
)
def scaled_pca(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    init: VectorTable,
    pca: dict[str, np.ndarray],
    statistics: dict[str, np.ndarray],
) -> Result:
    """Each image's vector under each scaler, reduced to its principal components."""
    maps = unpack_maps(pca)
    projection = Projection(list(maps.values()))
    table = init.derive(
        {kind: m.n_components for kind, m in maps.items()},
        lambda batch: projection(as_matrix(batch.column("descriptor"))),
    )
    n_usable = init.n_rows - len(statistics["unusable"])
    path = settings.data_root / file_of("scaled_pca", context.partition_key)
    return Result(
        table,
        lambda: {f"variance_kept_{k}": float(m.explained_variance_ratio.sum()) for k, m in maps.items()},
        lambda: [_all_finite(read_table(path), n_usable)],
    )


def _all_finite(stored: VectorTable, n_usable: int) -> Check:
    finite = [
        np.concatenate(list(map_rows(finite_rows, stored.vectors(kind)))) for kind in stored.vector_columns
    ]
    n_finite = int(np.logical_and.reduce(finite).sum())
    return Check("finite_values", n_finite == n_usable, {"finite": n_finite, "usable": n_usable})
