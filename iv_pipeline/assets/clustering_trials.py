"""Stage `clustering_trials`: which scaler, algorithm and parameters label best, without labels."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.image_index import VEHICLE, identities_of
from iv_pipeline.assets.representation import embedder_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.assets.views import BLOCK, PICTURES, view_of
from iv_pipeline.config import SCALERS, PipelineConfig, Settings
from iv_pipeline.learn.representation import RECIPES
from iv_pipeline.learn.sample import Sample
from iv_pipeline.learn.selection import Selection
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.learn.trials import run_trials
from iv_pipeline.report import plots
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, read_table

SHOWN = [
    "scaler",
    "representation",
    "algorithm",
    "n_clusters",
    "round",
    "noise_share",
    "predictability",
    "stability",
    "silhouette",
]


@stage(
    group="clustering",
    kinds=("scikitlearn", "parquet"),
    heavy=True,
    checks={"one_winner": "Did exactly one trial win?"},
    code_version="6",
)
def clustering_trials(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scaled_pca: VectorTable,
    views: VectorTable,
    image_index: pd.DataFrame,
) -> Result:
    """A race of representations × algorithms × parameters on one sample, with scores; which won, and why.

    Scores that decide nothing are measured for those that are kept or tied with the best.
    """
    config, partition = settings.config, context.partition_key
    before = _before(settings, partition, image_index)
    sample, rows = sample_of(config, partition, scaled_pca, views, image_index)
    selection = race(
        config, sample, partition, before, lambda line: context.log.info("trials · %s · %s", partition, line)
    )
    frame = selection.to_frame()
    best = frame.sort_values(["round", selection.criterion], ascending=False, kind="stable").head(10)
    winner = selection.winner
    context.log.info("trials · %s · %s", partition, selection.reason)
    return Result(
        frame,
        lambda: {
            "winner": selection.reason,
            "n_clusters": winner.n_clusters,
            **{f"winner_{name}": score for name, score in winner.scores.items() if np.isfinite(score)},
            "noise_share": winner.clustering.noise_share,
            "sampled_rows": len(rows),
            "best_trials": dg.MetadataValue.md(best[SHOWN].round(3).to_markdown(index=False)),
            "selection": dg.MetadataValue.md(plots.inline(plots.selection_curve(frame))),
        },
        lambda: [Check("one_winner", int(frame["won"].sum()) == 1)],
    )


def race(
    config: PipelineConfig,
    sample: Sample,
    partition: str,
    before: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    *,
    exhaustive: bool = False,
) -> Selection:
    """The trials of a partition; `before` and `exhaustive` as for `run_trials`."""
    trials, fixed = config.trials, config.choice(partition)
    scalers = _with(trials.scalers, fixed.scaler)
    representations = _with(trials.representations, fixed.representation)
    is_combined = len(config.blocks(partition)) > 1
    keys = [(scaler, "pca") for scaler in scalers if "pca" in representations]
    keys += [
        ("standard", name)
        for name in representations
        if name != "pca" and (is_combined or not RECIPES[name].fuse)
    ]
    return run_trials(
        sample,
        keys,
        naming_budget=trials.naming_budget,
        algorithms=_with(trials.algorithms, fixed.algorithm),
        fixed=fixed.model_dump(),
        before=before,
        fewer=trials.n_clusters,
        exhaustive=exhaustive,
        progress=progress,
    )


def _with(tried: Iterable[str], fixed: str | None) -> list[str]:
    """What is tried, and what a person fixed."""
    return list(dict.fromkeys([*map(str, tried), *([] if fixed is None else [str(fixed)])]))


def sample_of(
    config: PipelineConfig,
    partition: str,
    scaled_pca: VectorTable,
    views: VectorTable,
    image_index: pd.DataFrame,
) -> tuple[Sample, np.ndarray]:
    """What trials of a partition cluster and are judged by, and the rows of the delivery, ascending."""
    rows = views.column("row").to_numpy()
    components = {str(kind): scaled_pca.vectors(kind).take(rows) for kind in SCALERS}
    usable = np.logical_and.reduce([finite_rows(X) for X in components.values()])
    blocks = config.blocks(partition)
    # nobody judges itself: without another descriptor, each block judges what the others make without it
    leave_out = set(blocks) == set(config.descriptors) and len(blocks) > 1
    sample = Sample(
        components={kind: X[usable] for kind, X in components.items()},
        blocks={
            str(kind): {name: views.vectors(view_of(name, kind)).to_array()[usable] for name in blocks}
            for kind in ((*SCALERS, BLOCK) if leave_out else (BLOCK,))
        },
        block=BLOCK,
        judges=judges_of(config, partition, views, usable),
        leave_out=leave_out,
        identities=identities_of(image_index)[rows[usable]] if VEHICLE in image_index else None,
        embedder=embedder_of(config),
        n_neighbors=config.neighbors.n_neighbors,
        min_samples=config.neighbors.min_samples,
        witnesses="the pictures themselves" if _pictures(config, views) else "other descriptors",
    )
    return sample, rows[usable]


def judges_of(
    config: PipelineConfig, partition: str, views: VectorTable, usable: np.ndarray
) -> dict[str, np.ndarray]:
    """What clusters are predicted from, of the sampled rows that are usable: descriptors that take no part.

    For a combination of all descriptors these themselves; for a descriptor that is alone the pictures, where there
    are any.
    """
    blocks = config.blocks(partition)
    others = [name for name in config.descriptors if name not in blocks]
    own = blocks if len(blocks) > 1 else ()
    columns = _pictures(config, views) or [view_of(name) for name in others or own]
    return {column.removesuffix(view_of("")): views.vectors(column).to_array()[usable] for column in columns}


def _pictures(config: PipelineConfig, views: VectorTable) -> list[str]:
    """Columns of the pictures, which judge a descriptor that is alone."""
    alone = len(config.descriptors) == 1
    return [c for c in views.vector_columns if c.startswith(view_of(PICTURES, ""))] if alone else []


def _before(settings: Settings, partition: str, image_index: pd.DataFrame) -> dict[str, Any] | None:
    """What won the last fit; if that was one of the same images, what had won the one before it.

    So that a run that is run again chooses the same, also after a refit.
    """
    paths = [settings.data_root / file_of(asset, partition) for asset in ("clusters", "clustering_trials")]
    if not all(path.exists() for path in paths):
        return None
    clustered = read_table(paths[0]).column(IMAGE_PATH).to_pandas()
    trials = read_parquet(paths[1])
    if clustered.equals(image_index[IMAGE_PATH].astype(clustered.dtype)):
        trials = trials[trials["incumbent"]] if "incumbent" in trials else trials[:0]
    else:
        trials = trials[trials["won"]]
    if trials.empty:
        return None
    winner = trials.iloc[0]
    return {
        **{key: winner[key] for key in ("scaler", "representation", "algorithm")},
        "tried": json.loads(winner["tried"]),
    }
