"""Stage `representation`: what the clusters of all images are looked for in."""

import json

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.init import block_widths
from iv_pipeline.assets.neighbors import winner_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import PipelineConfig, Settings
from iv_pipeline.learn.duplicates import first_equal
from iv_pipeline.learn.pca import unpack_maps
from iv_pipeline.learn.representation import (
    RECIPES,
    Embedder,
    Interpolation,
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
MADE_KEY = b"iv_pipeline.made"
"""Under which it says how it was made."""
KNOWN_SHARE = 0.5
"""Of the landmarks wanted, those that a fit must know to go on from the layout before."""


@stage(
    group="clustering",
    kinds=("umap", "arrow"),
    heavy=True,
    checks={"finite_values": "Is every vector finite whose raw vector is?"},
    code_version="4",
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
    parts: list[slice] = []
    if name == "pca":
        reduction = Reduction(unpack_maps(pca)[scaler])
        table = scaled_pca.derive(
            {"vectors": reduction.n_components}, lambda batch: [as_matrix(batch.column(scaler))]
        )
    elif recipe.embed:
        reduction, parts, table = _embedded(settings, context.partition_key, init, fitted, name)
    else:
        reduction, _ = fit_block_maps(
            fitted, block_widths(init), recipe, config.embedding.variance, config.pca.max_components
        )
        table = init.derive(
            {"vectors": reduction.n_components},
            lambda batch: [reduction(as_matrix(batch.column("descriptor")))],
        )
    made = _made(config, name, init)
    table = table.with_metadata(
        {FIT_KEY: arrays_to_bytes(pack_fit(reduction, parts)), MADE_KEY: made.encode()}
    )
    path = settings.data_root / file_of("representation", context.partition_key)
    return Result(
        table,
        lambda: {"representation": name, "scaler": scaler},
        lambda: [_all_finite(read_table(path), fitted.n_usable)],
    )


def _embedded(
    settings: Settings, partition: str, init: VectorTable, statistics: Statistics, name: str
) -> tuple[Reduction, list[slice], VectorTable]:
    """What reduces rows, the parts that neighbors are looked for in, and all rows embedded.

    A fit keeps the landmarks that it knows, if they are enough, so that clusters and their names last: a layout
    made anew would put every image elsewhere. Of the same images it makes the same again.
    """
    config, recipe = settings.config, RECIPES[name]
    before = _before(settings, partition, init, _made(config, name, init))
    if before is not None:
        reduction, parts = fit_of(before)
        source, vectors = _landmarks_before(before, reduction, init)
        wanted = min(statistics.n_usable, config.embedding.landmarks)
        if finite_rows(vectors).sum() >= KNOWN_SHARE * wanted:
            return reduction, parts, _placed(init, parts, source, vectors, config.seed)
    reduction, widths = fit_block_maps(
        statistics, block_widths(init), recipe, config.embedding.variance, config.pca.max_components
    )
    parts = recipe.parts(widths)
    source = _reduced(reduction, init)
    vectors = _laid_out(settings, source, widths, parts)
    return reduction, parts, _placed(init, parts, source, vectors, config.seed)


def _reduced(reduction: Reduction, init: VectorTable) -> np.ndarray:
    """All rows, reduced; rows of equal raw vectors are equal, which float32 products alone do not ensure."""
    matrix = init.vectors("descriptor")
    source = reduction.reduce(matrix)
    first = first_equal(matrix)
    again = np.flatnonzero(first != np.arange(len(first)))
    source[again] = source[first[again]]
    return source


def _made(config: PipelineConfig, name: str, init: VectorTable) -> str:
    """How the representation is made: of two fits that say the same, one can go on from the other."""
    facts = {
        "representation": name,
        "blocks": block_widths(init),
        "max_components": config.pca.max_components,
        "seed": config.seed,
        **config.embedding.model_dump(),
    }
    return json.dumps(facts, sort_keys=True)


def _laid_out(settings: Settings, source: np.ndarray, widths: list[int], parts: list[slice]) -> np.ndarray:
    """UMAP's embedding of the landmarks, NaN for all other rows; all usable rows are landmarks if they are few."""
    config = settings.config
    embedder = embedder_of(config)
    usable = np.flatnonzero(finite_rows(source))
    landmarks = np.sort(np.random.default_rng(config.seed).permutation(usable)[: config.embedding.landmarks])
    vectors = np.full((len(source), embedder.n_components), np.nan, np.float32)
    vectors[landmarks] = embed_parts(source[landmarks], widths, parts, embedder)
    return vectors


def _placed(
    init: VectorTable,
    parts: list[slice],
    source: np.ndarray,
    vectors: np.ndarray,
    seed: int,
) -> VectorTable:
    """All usable rows, those that are no landmarks placed between them.

    The column `source` has what neighbors of the landmarks are looked for in, NaN for all other rows.
    """
    is_landmark = finite_rows(vectors)
    others = np.flatnonzero(finite_rows(source) & ~is_landmark)
    if len(others):
        place = Interpolation(parts, source[is_landmark], vectors[is_landmark], seed=seed)
        vectors[others] = place(source[others])
    source[~is_landmark] = np.nan
    return table_from_arrays({IMAGE_PATH: init.column(IMAGE_PATH), "vectors": vectors, "source": source})


def _before(settings: Settings, partition: str, init: VectorTable, made: str) -> VectorTable | None:
    """The representation of the last fit, if that was made alike: a fit goes on from there."""
    path = settings.data_root / file_of("representation", partition)
    if not path.exists():
        return None
    table = read_table(path)
    return table if (table.schema.metadata or {}).get(MADE_KEY) == made.encode() else None


def _landmarks_before(
    before: VectorTable, reduction: Reduction, init: VectorTable
) -> tuple[np.ndarray, np.ndarray]:
    """Reduced rows of all images, and the places of those that were landmarks before and are unchanged."""
    source = _reduced(reduction, init)
    row = pd.Index(before.column(IMAGE_PATH).to_pandas()).get_indexer(init.column(IMAGE_PATH).to_pandas())
    then = before.vectors("source").to_array()[row]
    then[row < 0] = np.nan
    same = np.isclose(then, source, rtol=0, atol=1e-3 * np.nanstd(source)).all(axis=1)
    vectors = before.vectors("vectors").to_array()[row]
    vectors[~same] = np.nan
    return source, vectors


def _all_finite(stored: VectorTable, n_usable: int) -> Check:
    n_finite = int(finite_rows(stored.vectors("vectors").to_array()).sum())
    return Check("finite_values", n_finite == n_usable, {"finite": n_finite, "usable": n_usable})


def embedder_of(config: PipelineConfig) -> Embedder:
    """How the configuration wants rows to be embedded."""
    return Embedder(**config.embedding.model_dump(exclude={"variance", "landmarks"}), seed=config.seed)


def fit_of(table: VectorTable) -> tuple[Reduction, list[slice]]:
    """What turns raw vectors into those of the table, as this stage stored it."""
    return unpack_fit(arrays_from_bytes(table.schema.metadata[FIT_KEY]))
