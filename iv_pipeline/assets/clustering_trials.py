"""Stage `clustering_trials`: which scaler, algorithm and parameters label best, without labels."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.clustering import Space
from iv_pipeline.learn.selection import Judge, fit_predictor, run_trials
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.report import plots
from iv_pipeline.storage.tables import VectorTable

SHOWN = ["scaler", "algorithm", "n_clusters", "noise_share", "predictability", "stability", "silhouette"]


@stage(
    group="clustering",
    kinds=("scikitlearn", "parquet"),
    heavy=True,
    checks={"one_winner": "Did exactly one trial win?"},
)
def clustering_trials(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scaled_pca: VectorTable,
    views: VectorTable,
    image_index: pd.DataFrame,
) -> Result:
    """Every scaler × algorithm × parameters tried on one sample, with its scores; which won, and why."""
    config = settings.config
    rows = views.column("row").to_numpy()
    sample = {kind: scaled_pca.vectors(kind).take(rows) for kind in config.trials.scalers}
    usable = np.logical_and.reduce([finite_rows(X) for X in sample.values()])
    rows = rows[usable]
    blocks = config.blocks(context.partition_key)
    predictors = {
        name: fit_predictor(views.vectors(name).to_array()[usable], config.seed)
        for name in config.descriptors
        if name not in blocks
    }
    selection = run_trials(
        {
            kind: Space(X[usable], config.seed, config.neighbors.n_neighbors, config.neighbors.min_samples)
            for kind, X in sample.items()
        },
        Judge(predictors, _identities(image_index, rows), config.seed),
        n_clusters=config.trials.n_clusters,
        naming_budget=config.trials.naming_budget,
        algorithms=config.trials.algorithms,
        fixed=config.choice(context.partition_key).model_dump(),
        progress=context.log.info,
    )
    frame = selection.to_frame()
    best = frame.sort_values(selection.criterion, ascending=False).head(10)[SHOWN].round(3)
    winner = selection.winner
    context.log.info("%s", selection.reason)
    return Result(
        frame,
        lambda: {
            "winner": selection.reason,
            "n_clusters": winner.n_clusters,
            **{f"winner_{name}": score for name, score in winner.scores.items() if np.isfinite(score)},
            "noise_share": winner.clustering.noise_share,
            "sampled_rows": len(rows),
            "best_trials": dg.MetadataValue.md(best.to_markdown(index=False)),
            "selection": dg.MetadataValue.md(plots.inline(plots.selection_curve(frame))),
        },
        lambda: [Check("one_winner", int(frame["won"].sum()) == 1)],
    )


def _identities(image_index: pd.DataFrame, rows: np.ndarray) -> np.ndarray | None:
    """Codes of the vehicles of the rows, −1 where unknown; None where the paths carry no identity."""
    if "vehicle_id" not in image_index:
        return None
    codes, _ = pd.factorize(image_index["vehicle_id"].iloc[rows])
    return codes.astype(np.int64)
