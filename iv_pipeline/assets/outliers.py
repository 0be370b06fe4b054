"""Stage `outliers`: which images a descriptor finds strange."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import gallery, open_delivery
from iv_pipeline.assets.hierarchy import hierarchy_of
from iv_pipeline.assets.init import STATUS
from iv_pipeline.assets.neighbors import graph_of, winner_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.outliers import flag, score_outliers
from iv_pipeline.learn.statistics import FiniteRows, finite_rows
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

SHOWN_IMAGES = 32
"""Most suspicious images that Dagster shows."""


@stage(
    group="outliers",
    kinds=("scikitlearn", "hdbscan", "parquet"),
    heavy=True,
    checks={"scores_in_range": "Does every score lie in [0, 1]?"},
    code_version="2",
)
def outliers(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    init: VectorTable,
    scaled_pca: VectorTable,
    clustering_trials: pd.DataFrame,
    neighbors: VectorTable,
    hierarchy: dict[str, np.ndarray],
) -> Result:
    """A score in [0, 1] for each image by each method, their mean, and the verdict.

    Unusable rows score 1: what cannot be read should not be trained on.
    """
    config = settings.config
    vectors = scaled_pca.vectors(winner_of(clustering_trials)["scaler"])
    X = vectors.to_array()
    usable = finite_rows(X)
    scores = score_outliers(
        X[usable],
        graph_of(neighbors, usable),
        hierarchy_of(hierarchy),
        config.seed,
        FiniteRows(vectors, int(usable.sum())),
    )
    frame = pd.DataFrame({IMAGE_PATH: scaled_pca.column(IMAGE_PATH).to_pandas()})
    for name, values in scores.items():
        column = np.ones(len(frame), np.float32)
        column[usable] = values
        frame[name] = column
    flagged = ~usable
    flagged[usable] = flag(scores["score"], config.outliers.contamination)
    frame["is_outlier"] = flagged
    frame["reason"] = np.where(flagged, f"far from every cluster of {context.partition_key}", "")
    unusable = init.column(STATUS).to_numpy(zero_copy_only=False)
    frame.loc[~usable, "reason"] = f"no usable vector of {context.partition_key}: " + unusable[~usable]
    ranked = frame.sort_values("score", ascending=False, kind="stable")
    return Result(
        frame,
        lambda: {
            "outliers": int(flagged.sum()),
            "outlier_share": float(flagged.mean()),
            **gallery(open_delivery(settings).archive(), ranked[IMAGE_PATH].head(SHOWN_IMAGES)),
            "highest_scores": dg.MetadataValue.md(ranked.head(10).round(3).to_markdown(index=False)),
        },
        lambda: [Check("scores_in_range", bool(frame["score"].between(0, 1).all()))],
    )
