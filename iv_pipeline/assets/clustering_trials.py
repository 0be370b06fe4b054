"""Stage `clustering_trials`: which scaler, algorithm and parameters label best, without labels."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.image_index import VEHICLE, identities_of
from iv_pipeline.assets.representation import embedder_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.assets.views import BLOCK, PICTURES, view_of
from iv_pipeline.config import SCALERS, PipelineConfig, Settings
from iv_pipeline.engine import blas_threads, map_ordered
from iv_pipeline.learn.clustering import Space
from iv_pipeline.learn.criteria import Predictor, fit_predictor
from iv_pipeline.learn.duplicates import distinct_rows
from iv_pipeline.learn.embedding import load_libraries
from iv_pipeline.learn.representation import RECIPES, represent
from iv_pipeline.learn.selection import Candidate, Judge, Selection, run_trials
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.report import plots
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, read_table

SHOWN = [
    "scaler",
    "representation",
    "algorithm",
    "n_clusters",
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
    code_version="4",
)
def clustering_trials(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scaled_pca: VectorTable,
    views: VectorTable,
    image_index: pd.DataFrame,
) -> Result:
    """Every representation × algorithm × parameters tried on one sample, with its scores; which won, and why.

    Scores that decide nothing are measured for those that are kept or tied with the best.
    """
    config, partition = settings.config, context.partition_key
    before = _before(settings, partition, image_index)
    selection, rows = try_all(config, partition, scaled_pca, views, image_index, before, context.log.info)
    frame = selection.to_frame()
    best = frame.sort_values(selection.criterion, ascending=False, kind="stable").head(10)[SHOWN].round(3)
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


def try_all(
    config: PipelineConfig,
    partition: str,
    scaled_pca: VectorTable,
    views: VectorTable,
    image_index: pd.DataFrame,
    before: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    *,
    all_scores: bool = False,
) -> tuple[Selection, np.ndarray]:
    """All trials of a partition, and the rows that they clustered, ascending.

    `before` is what won when other images were clustered; `all_scores` as for `run_trials`.
    """
    rows = views.column("row").to_numpy()
    sample = {kind: scaled_pca.vectors(kind).take(rows) for kind in SCALERS}
    usable = np.logical_and.reduce([finite_rows(X) for X in sample.values()])
    blocks = config.blocks(partition)
    # nobody judges itself: without another descriptor, each block judges what the others make without it
    leave_out = set(blocks) == set(config.descriptors) and len(blocks) > 1
    pictures = _pictures(config, views)
    # no more clusters than distinct vectors, and so no more to name
    n_distinct = len(distinct_rows(sample["standard"][usable])[0])
    fixed = config.choice(partition).model_dump()
    if fixed["n_clusters"] is not None:
        fixed["n_clusters"] = min(fixed["n_clusters"], n_distinct)
    naming_budget = min(config.trials.naming_budget, n_distinct)
    predictors = predictors_of(config, partition, views, usable)
    maker = _Candidates(
        config,
        {kind: X[usable] for kind, X in sample.items()},
        {
            kind: {name: views.vectors(view_of(name, kind)).to_array()[usable] for name in blocks}
            for kind in ((*SCALERS, BLOCK) if leave_out else (BLOCK,))
        },
        tuple(blocks) if leave_out else (),
    )
    with blas_threads(1):  # clusterings are tried side by side
        selection = run_trials(
            maker.make_all(),
            Judge(
                predictors={} if leave_out else predictors,
                own=predictors if leave_out else {},
                witnesses="the pictures themselves" if pictures else "other descriptors",
                identities=identities_of(image_index)[rows[usable]] if VEHICLE in image_index else None,
                naming_budget=naming_budget,
                seed=config.seed,
            ),
            naming_budget=naming_budget,
            algorithms=config.trials.algorithms,
            fixed=fixed,
            before=before,
            fewer=config.trials.n_clusters,
            make_again=maker.make,
            all_scores=all_scores,
            progress=progress,
        )
    return selection, rows[usable]


def predictors_of(
    config: PipelineConfig, partition: str, views: VectorTable, usable: np.ndarray
) -> dict[str, Predictor]:
    """What predicts clusters of the sampled rows that are usable: the descriptors that take no part in them.

    For a combination of all descriptors these themselves; for a descriptor that is alone the pictures, where there
    are any.
    """
    blocks = config.blocks(partition)
    others = [name for name in config.descriptors if name not in blocks]
    own = blocks if len(blocks) > 1 else ()
    judges = _pictures(config, views) or [view_of(name) for name in others or own]
    return {
        column.removesuffix(view_of("")): fit_predictor(views.vectors(column).to_array()[usable], config.seed)
        for column in judges
    }


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


@dataclass(frozen=True)
class _Candidates:
    """Makes the representations of the sample that are tried.

    `sample` holds reduced vectors by scaler, `views` those of each descriptor that takes part, by scaler and as
    the block that other representations are made of; `left_out` names descriptors that are left out in turn.
    """

    config: PipelineConfig
    sample: dict[str, np.ndarray]
    views: dict[str, dict[str, np.ndarray]]
    left_out: tuple[str, ...]

    def make_all(self) -> Iterator[Candidate]:
        """Every candidate, made a few representations ahead of its turn."""
        trials = self.config.trials
        kinds = [(kind, "pca") for kind in trials.scalers if "pca" in trials.representations]
        kinds += [
            ("standard", name)
            for name in trials.representations
            if name != "pca" and (len(self.views[BLOCK]) > 1 or not RECIPES[name].fuse)
        ]
        jobs = [(kind, name, without) for kind, name in kinds for without in (None, *self.left_out)]
        load_libraries()  # representations are made beside the trials, and both would
        spaces = map_ordered(lambda job: self._space(*jobs[job]), len(jobs))
        for kind, name in kinds:
            yield self._candidate(kind, name, spaces)

    def make(self, kind: str, name: str) -> Candidate:
        """The candidate of a scaler and a representation."""
        return self._candidate(kind, name, (self._space(kind, name, w) for w in (None, *self.left_out)))

    def _candidate(self, kind: str, name: str, spaces: Iterator[Space]) -> Candidate:
        return Candidate(
            kind,
            name,
            next(spaces),
            counts=self.config.trials.n_clusters if name == "pca" else (),
            without={block: next(spaces) for block in self.left_out},
            parts=not RECIPES[name].embed,
        )

    def _space(self, kind: str, name: str, without: str | None) -> Space:
        config = self.config
        if name == "pca" and without is None:
            X = self.sample[kind]
        else:
            blocks = self.views[kind if name == "pca" else BLOCK]
            kept = [X for block, X in blocks.items() if block != without]
            X = represent(kept, RECIPES[name], embedder_of(config))
        return Space(X, config.seed, config.neighbors.n_neighbors, config.neighbors.min_samples)
