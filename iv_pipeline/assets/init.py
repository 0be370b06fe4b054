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
from iv_pipeline.learn.validity import REASONS, ValidityRule, fit_validity, without_unusable
from iv_pipeline.storage.fit_set import FitVectors
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.matrix import ChunkedRows
from iv_pipeline.storage.tables import (
    IMAGE_PATH,
    VectorTable,
    as_strings,
    as_vectors,
    read_table,
    vector_type,
)

BLOCKS_KEY = b"iv_pipeline.blocks"
VALIDITY_KEY = b"iv_pipeline.validity"
STATUS = "status"
"""Column with the reason why a vector is unusable, empty for usable ones."""


@stage(
    group="delivery",
    kinds=("arrow",),
    heavy=True,
    # "Materialize all" makes all of a descriptor in one run if its first stage waits for what later ones read
    deps=["views", "groups", "ranked_outliers"],
    checks={"rows_match_index": "Has every image of the index one vector?"},
    code_version="2",
)
def init(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], image_index: pd.DataFrame
) -> Result:
    """Raw vector of every image, NaN where it is unusable; a combination has those of its descriptors."""
    delivery = open_delivery(settings)
    blocks = {name: delivery.vectors(name) for name in settings.config.blocks(context.partition_key)}
    for name, vectors in blocks.items():
        if vectors.shape[0] != len(image_index):
            raise DeliveryError(
                f"it has {vectors.shape[0]:,} rows and the image index {len(image_index):,}, for the delivery has "
                "changed since the index was made",
                where=f"descriptor {name}",
                fix="materialize 'image_index' again",
            )
    rules = {name: fit_validity(vectors, f"descriptor {name}") for name, vectors in blocks.items()}
    table = init_table(image_index, blocks, ValidityRule.join(list(rules.values())))
    path = settings.data_root / file_of("init", context.partition_key)
    return Result(
        table,
        lambda: {
            "blocks": dg.MetadataValue.md(_describe(blocks, rules)),
            **{f"unusable: {reason}": n for reason, n in count_unusable(read_table(path)).items()},
        },
        lambda: [Check("rows_match_index", table.n_rows == len(image_index), {"rows": table.n_rows})],
    )


def count_unusable(init: VectorTable) -> dict[str, int]:
    """Number of unusable vectors by reason; empty where all are usable."""
    status = init.column(STATUS).to_pandas()
    return {str(reason): int(n) for reason, n in status[status != ""].value_counts().items()}


def _describe(blocks: dict[str, FitVectors], rules: Mapping[str, ValidityRule]) -> str:
    facts = [
        {
            "descriptor": name,
            "features": vectors.shape[1],
            "stored as": str(getattr(vectors.stored, "dtype", "")),
            "mapped from the file": isinstance(vectors.stored, np.memmap | ChunkedRows),
            "greatest length": f"{rules[name].max_norms[0]:.4g}",
        }
        for name, vectors in blocks.items()
    ]
    return str(pd.DataFrame(facts).to_markdown(index=False))


def init_table(
    image_index: pd.DataFrame, blocks: Mapping[str, BatchedMatrix], rule: ValidityRule
) -> VectorTable:
    """Image paths, the blocks' vectors side by side, and why a vector is unusable, computed batch by batch."""
    paths = as_strings(image_index[IMAGE_PATH])
    widths = {name: block.shape[1] for name, block in blocks.items()}
    schema = pa.schema(
        [
            (IMAGE_PATH, pa.string()),
            ("descriptor", vector_type(sum(widths.values()))),
            (STATUS, pa.string()),
        ],
        {
            BLOCKS_KEY: json.dumps(widths).encode(),
            VALIDITY_KEY: json.dumps(rule.max_norms).encode(),
        },
    )
    rows, matrix = VectorTable.batch_rows, SideBySide(list(blocks.values()))

    def read(index: int) -> pa.RecordBatch:
        vectors = matrix.batch(index)
        codes = rule.codes(vectors)
        columns = [
            paths.slice(index * rows, rows),
            as_vectors(without_unusable(vectors, codes)),
            pa.array(REASONS).take(pa.array(codes)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    return VectorTable(schema, len(paths), read, rows)


def validity_of(table: VectorTable) -> ValidityRule:
    """What makes a vector usable, as this stage stored it."""
    max_norms = json.loads(table.schema.metadata[VALIDITY_KEY])
    return ValidityRule(tuple(block_widths(table)), tuple(max_norms))


def block_widths(table: VectorTable) -> list[int]:
    """Widths of the descriptors that stand side by side in a table of this stage."""
    return list(json.loads(table.schema.metadata[BLOCKS_KEY]).values())
