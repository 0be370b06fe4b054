"""Stage `evaluation`: how well automatic labelling does on images that took no part in the fit."""

import json
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.init import block_widths
from iv_pipeline.assets.neighbors import winner_of
from iv_pipeline.assets.representation import embedder_of
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import PipelineConfig, Settings
from iv_pipeline.learn.evaluation import NAMED_SHARE, effort_curve, evaluate, named_accuracy
from iv_pipeline.learn.labelling import Labelled, fit_labeller
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.report import plots
from iv_pipeline.storage.tables import VectorTable

EVALUATED_ROWS = 20_000
"""Labelled images that take part, so that it costs no more than the trials."""
COLUMNS = ("strategy", "clusters_named", "exemplars", "images", "accuracy")
SCORES = ("adjusted_rand", "homogeneity", "completeness", "v_measure")


@stage(group="results", kinds=("scikitlearn", "parquet"), heavy=True)
def evaluation(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    init: VectorTable,
    clustering_trials: pd.DataFrame,
) -> Result:
    """Accuracy on unseen images by what a person looked at, against labelling as many at random.

    The chosen configuration is fitted again on 70 % of the labelled images and labels the others. Empty where
    the delivery has no labels.
    """
    truth = (
        image_index["label"] if "label" in image_index else pd.Series(index=image_index.index, dtype=object)
    )
    rows = np.flatnonzero(truth.notna())
    rows = np.sort(np.random.default_rng(settings.config.seed).permutation(rows)[:EVALUATED_ROWS])
    X = init.vectors("descriptor").take(rows)
    usable = finite_rows(X)
    rows, X = rows[usable], X[usable]
    winner = winner_of(clustering_trials)
    n_clusters = int(winner["n_clusters"])
    if len(rows) < 10 * n_clusters:
        context.log.info(
            "%d usable images have a label: too few to evaluate %d clusters", len(rows), n_clusters
        )
        return Result(pd.DataFrame(columns=[*COLUMNS, *SCORES]), lambda: {"evaluated": 0})
    frame = _evaluate(
        settings.config, X, truth.iloc[rows].astype(str).to_numpy(np.str_), block_widths(init), winner
    )
    best = frame.query("strategy == 'every label'").iloc[0]
    return Result(
        frame,
        lambda: {
            "evaluated": len(rows),
            **{name: float(best[name]) for name in ("accuracy", *SCORES)},
            "effort": dg.MetadataValue.md(plots.inline(plots.effort_curve(frame))),
            "curve": dg.MetadataValue.md(frame[list(COLUMNS)].round(3).to_markdown(index=False)),
        },
    )


def _evaluate(
    config: PipelineConfig, X: np.ndarray, truth: np.ndarray, widths: list[int], winner: "pd.Series[Any]"
) -> pd.DataFrame:
    fits = np.random.default_rng(config.seed).random(len(X)) < NAMED_SHARE
    labelled: Labelled = fit_labeller(
        X[fits],
        widths,
        scaler=winner["scaler"],
        representation=winner["representation"],
        algorithm=winner["algorithm"],
        parameters=json.loads(winner["tried"]),
        variance=(config.pca.variance, config.embedding.variance),
        max_components=config.pca.max_components,
        embedder=embedder_of(config),
        n_neighbors=config.neighbors.n_neighbors,
        min_samples=config.neighbors.min_samples,
    )
    fitted = (labelled.clustering.labels, labelled.clustering.confidence, labelled.vectors)
    cluster, _ = labelled.labeller.predict(X[~fits])
    vectors = labelled.labeller.vectors(X[~fits])
    curve = effort_curve(fitted, (cluster, vectors), (truth[fits], truth[~fits]), seed=config.seed)
    every = {
        "strategy": "every label",
        "clusters_named": labelled.clustering.n_clusters,
        "exemplars": 0,
        "images": int(fits.sum()),
        "accuracy": named_accuracy(fitted[0], truth[fits], cluster, truth[~fits]),
        **{k: v for k, v in evaluate(cluster, pd.Series(truth[~fits])).items() if k in SCORES},
    }
    return pd.concat([curve, pd.DataFrame([every])], ignore_index=True)
