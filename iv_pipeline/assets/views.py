"""Stage `views`: one sample of rows in every descriptor, for the trials to predict clusters from."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.pca import PCA, fit_pca
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics
from iv_pipeline.storage.tables import IMAGE_PATH, as_strings, table_from_arrays

MAX_COMPONENTS = 100
"""Of a view: neighbours hardly change with more, and predictions are made in every trial."""


@stage(group="delivery", kinds=("arrow", "numpy"), partitioned=False, heavy=True)
def views(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], image_index: pd.DataFrame
) -> Result:
    """One sample of images in every descriptor, standardised and reduced.

    Read from the delivery, so that no descriptor waits for another.
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
        sample = ArrayBatches(delivery.matrix(name)[rows])
        statistics = compute_statistics(sample)
        components = fit_pca(
            statistics, fit_scaler("standard", statistics), config.pca.variance, MAX_COMPONENTS
        )
        columns[name] = np.concatenate(
            [components.transform(sample.batch(i)) for i in range(sample.n_batches)]
        )
        context.log.info("views · %s · %d components", name, components.n_components)
        kept[name] = components
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
