"""Stage `views`: one sample of rows in every descriptor, for the trials to predict clusters from."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import SCALERS, PipelineConfig, Settings
from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.pca import PCA, Projection, fit_pca
from iv_pipeline.learn.pictures import picture_views, why_not_judge
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics
from iv_pipeline.learn.validity import fit_validity, without_unusable
from iv_pipeline.storage.fit_set import FitSet
from iv_pipeline.storage.tables import IMAGE_PATH, as_strings, table_from_arrays

BLOCK = "block"
"""Standardized components as many as `embedding.variance` asks for: what is whitened and embedded."""

PICTURES = "pictures"
"""What stands for a descriptor in the names of their columns."""


@stage(group="delivery", kinds=("arrow", "numpy"), partitioned=False, heavy=True, code_version="5")
def views(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], image_index: pd.DataFrame
) -> Result:
    """One sample of images in every descriptor, scaled and reduced.

    Read from the delivery, so that no descriptor waits for another. Beside a descriptor that is alone, the
    pictures themselves, if they are there: somebody else has to judge its clusters.
    """
    config = settings.config
    delivery = open_delivery(settings)
    n_rows = len(image_index)
    rng = np.random.default_rng(config.seed)
    rows = np.sort(rng.permutation(n_rows)[: config.trials.sample_size])
    columns: dict[str, object] = {
        IMAGE_PATH: as_strings(image_index[IMAGE_PATH].iloc[rows]),
        "row": rows.astype(np.int64),
    }
    kept: dict[str, PCA] = {}
    for name in config.descriptors:
        delivered = delivery.vectors(name)
        rule = fit_validity(delivered, f"descriptor {name}")
        raw = delivered.take(rows)
        sample = ArrayBatches(without_unusable(raw, rule.codes(raw)))
        statistics = compute_statistics(sample)
        most = config.pca.max_components
        maps = {
            str(kind): fit_pca(statistics, fit_scaler(kind, statistics), config.pca.variance, most)
            for kind in SCALERS
        }
        standard = fit_scaler("standard", statistics)
        maps[BLOCK] = fit_pca(statistics, standard, config.embedding.variance, most)
        project = Projection(list(maps.values()))
        parts = [project(sample.batch(i)) for i in range(sample.n_batches)]
        for kind, vectors in zip(maps, zip(*parts, strict=True), strict=True):
            columns[view_of(name, kind)] = np.concatenate(vectors)
        kept[name] = maps["standard"]
        context.log.info("views · %s · %d components", name, kept[name].n_components)
    if len(config.descriptors) == 1:
        columns |= _pictures(context, delivery, image_index[IMAGE_PATH].iloc[rows].to_list(), config)
    shares = [
        {"descriptor": n, "components": c.n_components, "variance kept": c.explained_variance_ratio.sum()}
        for n, c in kept.items()
    ]
    return Result(
        table_from_arrays(columns),
        lambda: {
            "sampled_share": len(rows) / n_rows,
            "views": dg.MetadataValue.md(pd.DataFrame(shares).round(3).to_markdown(index=False)),
        },
    )


def _pictures(
    context: dg.AssetExecutionContext, delivery: FitSet, paths: list[str], config: PipelineConfig
) -> dict[str, np.ndarray]:
    """Shapes and colors of the pictures, reduced; nothing where they tell too few images apart."""
    archive = delivery.archive()
    if archive is None:
        return {}
    columns, reasons = {}, set()
    for name, vectors in picture_views(paths, archive.read).items():
        reason = why_not_judge(vectors)
        if reason:
            reasons.add(reason)
            continue
        statistics = compute_statistics(ArrayBatches(vectors))
        standard = fit_scaler("standard", statistics)
        fitted = fit_pca(statistics, standard, config.pca.variance, config.pca.max_components)
        columns[view_of(PICTURES, name)] = fitted.transform(vectors)
        context.log.info("views · %s of the pictures · %d components", name, fitted.n_components)
    for reason in sorted(reasons):
        context.log.warning("pictures cannot judge clusters: %s", reason)
    return columns


def view_of(descriptor: str, kind: str = "standard") -> str:
    """The column of a descriptor under a scaler, or as the block that other representations are made of."""
    return f"{descriptor}/{kind}"
