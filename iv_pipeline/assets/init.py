"""Stage `init`: a descriptor, or several side by side, as a memory-mapped table."""

import json
from collections.abc import Mapping

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import BatchedMatrix, SideBySide
from iv_pipeline.errors import DeliveryError
from iv_pipeline.storage.fit_set import FitVectors
from iv_pipeline.storage.matrix import ChunkedRows
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, as_strings, as_vectors, vector_type

BLOCKS_KEY = b"iv_pipeline.blocks"


@stage(
    group="delivery",
    kinds=("arrow",),
    heavy=True,
    # "Materialize all" makes all of a descriptor in one run if its first stage waits for what later ones read
    deps=["views"],
    checks={"rows_match_index": "Has every image of the index one vector?"},
    code_version="2",  # columns that count rows are left out
)
def init(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], image_index: pd.DataFrame
) -> Result:
    """The raw descriptor of every image; a combination holds its descriptors side by side."""
    delivery = open_delivery(settings)
    blocks = {name: delivery.vectors(name) for name in settings.config.blocks(context.partition_key)}
    for name, vectors in blocks.items():
        if vectors.shape[0] != len(image_index):
            raise DeliveryError(
                f"descriptor {name} has {vectors.shape[0]:,} rows and the image index {len(image_index):,}: the "
                "delivery changed since the index was made; materialise 'image_index' again"
            )
    table = init_table(image_index, blocks)
    return Result(
        table,
        lambda: {"blocks": dg.MetadataValue.md(_describe(blocks))},
        lambda: [Check("rows_match_index", table.n_rows == len(image_index), {"rows": table.n_rows})],
    )


def _describe(blocks: dict[str, FitVectors]) -> str:
    facts = [
        {
            "descriptor": name,
            "features": vectors.shape[1],
            "stored as": str(getattr(vectors.stored, "dtype", "")),
            "mapped from the file": isinstance(vectors.stored, np.memmap | ChunkedRows),
        }
        for name, vectors in blocks.items()
    ]
    return str(pd.DataFrame(facts).to_markdown(index=False))


def init_table(image_index: pd.DataFrame, blocks: Mapping[str, BatchedMatrix]) -> VectorTable:
    """Image paths and the blocks' vectors side by side, computed batch by batch."""
    paths = as_strings(image_index[IMAGE_PATH])
    widths = {name: block.shape[1] for name, block in blocks.items()}
    schema = pa.schema(
        [(IMAGE_PATH, pa.string()), ("descriptor", vector_type(sum(widths.values())))],
        {BLOCKS_KEY: json.dumps(widths).encode()},
    )
    rows, matrix = VectorTable.batch_rows, SideBySide(list(blocks.values()))

    def read(index: int) -> pa.RecordBatch:
        columns = [paths.slice(index * rows, rows), as_vectors(matrix.batch(index))]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    return VectorTable(schema, len(paths), read, rows)


def block_widths(table: VectorTable) -> list[int]:
    """Widths of the descriptors that stand side by side in a table of this stage."""
    return list(json.loads(table.schema.metadata[BLOCKS_KEY]).values())
