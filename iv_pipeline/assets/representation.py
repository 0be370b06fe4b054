"""Stage `representation`: what the clusters of all images are looked for in."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.init import block_widths
from iv_pipeline.assets.neighbors import winner_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import PipelineConfig, Settings
from iv_pipeline.learn.pca import unpack_maps
from iv_pipeline.learn.representation import (
    RECIPES,
    Embedder,
    Placement,
    Reduction,
    embed_parts,
    fit_block_maps,
    pack_fit,
    unpack_fit,
)
from iv_pipeline.learn.statistics import Statistics, finite_rows
from iv_pipeline.storage.formats import arrays_from_bytes, arrays_to_bytes
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, as_matrix, read_table, table_from_arrays

FIT_KEY = b"iv_pipeline.representation"
"""Under which the table keeps what turns raw vectors into it, as an ``npz`` file."""


@stage(
    group="clustering",
    kinds=("umap", "arrow"),
    heavy=True,
    checks={"finite_values": "Is every vector finite whose raw vector is?"},
)
def representation(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    init: VectorTable,
    statistics: dict[str, np.ndarray],
    pca: dict[str, np.ndarray],
    scaled_pca: VectorTable,
    clustering_trials: pd.DataFrame,
) -> Result:
    """Each image's vector in the representation that won the trials: components as they are, or embedded."""
    config = settings.config
    winner = winner_of(clustering_trials)
    name, scaler = winner["representation"], winner["scaler"]
    recipe = RECIPES[name]
    fitted = Statistics.from_arrays(statistics)
    if name == "pca":
        reduction, parts = Reduction(unpack_maps(pca)[scaler]), []
        table = scaled_pca.derive(
            {"vectors": reduction.n_components}, lambda batch: [as_matrix(batch.column(scaler))]
        )
    else:
        reduction, widths = fit_block_maps(
            fitted, block_widths(init), recipe, config.embedding.variance, config.pca.max_components
        )
        parts = recipe.parts(widths)
        table = (
            _embedded(settings, init, reduction, widths, parts)
            if recipe.embed
            else init.derive(
                {"vectors": reduction.n_components},
                lambda batch: [reduction(as_matrix(batch.column("descriptor")))],
            )
        )
    table = table.with_metadata({FIT_KEY: arrays_to_bytes(pack_fit(reduction, parts))})
    path = settings.data_root / file_of("representation", context.partition_key)
    return Result(
        table,
        lambda: {"representation": name, "scaler": scaler},
        lambda: [_all_finite(read_table(path), fitted.n_usable)],
    )


def _embedded(
    settings: Settings, init: VectorTable, reduction: Reduction, widths: list[int], parts: list[slice]
) -> VectorTable:
    """UMAP's embedding of all usable rows: landmarks are laid out, other rows placed between them.

    The column `source` has what neighbours of the landmarks are looked for in, NaN for all other rows.
    """
    config = settings.config
    embedder = embedder_of(config)
    source = reduction.reduce(init.vectors("descriptor"))
    usable = np.flatnonzero(finite_rows(source))
    chosen = np.random.default_rng(config.seed).permutation(usable)[: config.embedding.landmarks]
    landmarks = np.sort(chosen)
    others = np.setdiff1d(usable, landmarks, assume_unique=True)
    known = source[landmarks]
    vectors = np.full((len(source), embedder.n_components), np.nan, np.float32)
    vectors[landmarks] = embed_parts(known, widths, parts, embedder)
    if len(others):
        placement = Placement(reduction, parts, known, vectors[landmarks], seed=config.seed)
        vectors[others] = placement.place(source[others])
        source[others] = np.nan
    return table_from_arrays({IMAGE_PATH: init.column(IMAGE_PATH), "vectors": vectors, "source": source})


def _all_finite(stored: VectorTable, n_usable: int) -> Check:
    n_finite = int(finite_rows(stored.vectors("vectors").to_array()).sum())
    return Check("finite_values", n_finite == n_usable, {"finite": n_finite, "usable": n_usable})


def embedder_of(config: PipelineConfig) -> Embedder:
    """How the configuration wants rows to be embedded."""
    return Embedder(**config.embedding.model_dump(exclude={"variance", "landmarks"}), seed=config.seed)


def fit_of(table: VectorTable) -> tuple[Reduction, list[slice]]:
    """What turns raw vectors into those of the table, as this stage stored it."""
    return unpack_fit(arrays_from_bytes(table.schema.metadata[FIT_KEY]))
