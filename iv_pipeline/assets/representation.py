"""Stage `representation`: what the clusters of all images are looked for in."""

import io

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.init import block_widths
from iv_pipeline.assets.neighbors import winner_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import PipelineConfig, Settings
from iv_pipeline.learn.pca import PCA, unpack_maps
from iv_pipeline.learn.representation import (
    RECIPES,
    Affine,
    Embedder,
    Placement,
    fit_block_maps,
    leading_columns,
    pack_fit,
    unpack_fit,
)
from iv_pipeline.learn.statistics import Statistics, finite_rows
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
        affine, parts = unpack_maps(pca)[scaler], []
        table = scaled_pca.derive(
            {"vectors": affine.n_components}, lambda batch: [as_matrix(batch.column(scaler))]
        )
    else:
        affine, widths = fit_block_maps(
            fitted, block_widths(init), recipe, config.embedding.variance, config.pca.max_components
        )
        parts = (widths if recipe.fuse else [sum(widths)]) if recipe.embed else []
        table = (
            _embedded(settings, init, affine, widths, parts)
            if recipe.embed
            else init.derive(
                {"vectors": affine.n_components},
                lambda batch: [affine.transform(as_matrix(batch.column("descriptor")))],
            )
        )
    table = table.with_metadata({FIT_KEY: _packed(pack_fit(affine, parts))})
    path = settings.data_root / file_of("representation", context.partition_key)
    return Result(
        table,
        lambda: {"representation": name, "scaler": scaler},
        lambda: [_all_finite(read_table(path), fitted.n_usable)],
    )


def _embedded(
    settings: Settings, init: VectorTable, affine: PCA, widths: list[int], parts: list[int]
) -> VectorTable:
    """UMAP's embedding of all usable rows: landmarks are laid out, other rows placed between them.

    The column `source` has what neighbours of the landmarks are looked for in, NaN for all other rows.
    """
    config = settings.config
    embedder = embedder_of(config)
    source = Affine(affine).transform(init.vectors("descriptor"))
    usable = np.flatnonzero(finite_rows(source))
    chosen = np.random.default_rng(config.seed).permutation(usable)[: config.embedding.landmarks]
    landmarks = np.sort(chosen)
    others = np.setdiff1d(usable, landmarks, assume_unique=True)
    known = source[landmarks]
    vectors = np.full((len(source), embedder.n_components), np.nan, np.float32)
    vectors[landmarks] = embedder(
        [np.ascontiguousarray(part) for part in np.split(known, np.cumsum(parts)[:-1], axis=1)],
        known[:, leading_columns(widths, embedder.n_components)],
    )
    if len(others):
        placement = Placement(affine, parts, known, vectors[landmarks], seed=config.seed)
        vectors[others] = placement.place(source[others])
        source[others] = np.nan
    return table_from_arrays({IMAGE_PATH: init.column(IMAGE_PATH), "vectors": vectors, "source": source})


def _all_finite(stored: VectorTable, n_usable: int) -> Check:
    n_finite = int(finite_rows(stored.vectors("vectors").to_array()).sum())
    return Check("finite_values", n_finite == n_usable, {"finite": n_finite, "usable": n_usable})


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def embedder_of(config: PipelineConfig) -> Embedder:
    """How the configuration wants rows to be embedded."""
    return Embedder(**config.embedding.model_dump(exclude={"variance", "landmarks"}), seed=config.seed)


def fit_of(table: VectorTable) -> tuple[PCA, list[int]]:
    """What turns raw vectors into those of the table, as this stage stored it."""
    with np.load(io.BytesIO(table.schema.metadata[FIT_KEY]), allow_pickle=False) as stored:
        return unpack_fit(dict(stored))
