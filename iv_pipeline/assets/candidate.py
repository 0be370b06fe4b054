"""A refit's candidate: the pipeline run in a data root of its own, whose fit set has grown.

It begins with what a fit goes on from (clusters, layouts, what won, names): it is the same fit on more images.
Nothing outside its folder changes until its files take the places of the old ones.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from upath import UPath

from iv_pipeline.assets.attributes import attributes, review
from iv_pipeline.assets.changes import changes
from iv_pipeline.assets.cluster_profiles import cluster_profiles
from iv_pipeline.assets.clustering_trials import clustering_trials
from iv_pipeline.assets.clusters import clusters
from iv_pipeline.assets.comparison import comparison, crossings, disagreements, ranking
from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.evaluation import descriptor_accuracy, evaluation
from iv_pipeline.assets.final import final, ranked_outliers, summary
from iv_pipeline.assets.hierarchy import hierarchy
from iv_pipeline.assets.image_index import image_index
from iv_pipeline.assets.image_quality import image_quality
from iv_pipeline.assets.init import STATUS, init
from iv_pipeline.assets.joint_features import groups, joint_features
from iv_pipeline.assets.model import model
from iv_pipeline.assets.neighbors import neighbors, winner_of
from iv_pipeline.assets.outliers import outliers
from iv_pipeline.assets.pca import pca
from iv_pipeline.assets.projection import projection
from iv_pipeline.assets.representation import representation
from iv_pipeline.assets.scaled import scaled
from iv_pipeline.assets.scaled_pca import scaled_pca
from iv_pipeline.assets.stage import Stage, with_notices
from iv_pipeline.assets.statistics import statistics
from iv_pipeline.assets.views import views
from iv_pipeline.config import GROUPS, IMAGES, Choice, PipelineConfig, Settings
from iv_pipeline.learn.statistics import Statistics, compute_statistics
from iv_pipeline.metering import Meter, release_memory
from iv_pipeline.storage.fit_set import FitSet, rows_of
from iv_pipeline.storage.formats import format_of, read_arrays, read_parquet, write_json
from iv_pipeline.storage.io_managers import Written, facts_of
from iv_pipeline.storage.layout import BATCH, CANDIDATE, NAMES, file_of
from iv_pipeline.storage.tables import read_table, remove
from iv_pipeline.storage.versions import ModelSet, files_below, link

BEFORE = (image_index, views, image_quality, joint_features, groups, ranked_outliers)
BY_DESCRIPTOR = (
    *(init, statistics, scaled, pca, scaled_pca, clustering_trials, representation, neighbors, hierarchy),
    *(clusters, outliers, projection, cluster_profiles, model, final, changes),
)
AFTER = (
    *(comparison, crossings, disagreements, ranking),
    *(attributes, review, evaluation, descriptor_accuracy, summary),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in (*BEFORE, *BY_DESCRIPTOR, *AFTER)}

GOES_ON_FROM = (
    *("clusters", "clustering_trials", "representation", "changes"),
    *("image_quality", "groups", "summary"),
)
"""Stages that a fit goes on from, or tells what changed since."""
COMPARED_ROWS = 1_000
"""By which a delivery that was replaced is told from the one that was fitted."""
LEAST_ROWS = 2
"""Usable rows that have statistics."""


class CheckFailedError(Exception):
    """A blocking check of a stage failed: the candidate cannot be accepted.

    Attributes
    ----------
    descriptor
        Of the stage; empty if it is of all.
    """

    def __init__(self, descriptor: str, what: str) -> None:
        super().__init__(what)
        self.descriptor = descriptor


@dataclass(frozen=True)
class Made:
    """A stage's file of the candidate, and what to tell of it."""

    stage: str
    partition: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class _Context:
    """What stages want of Dagster's context."""

    log: Any
    partition_key: str = ""


@dataclass
class Candidate:
    """A fit that may take the place of the one in force.

    Attributes
    ----------
    current
        The settings of the data root.
    models
        The set in force.
    joining
        Name and version of each batch that joins.
    log
        Told of what is made.
    made
        What has been made so far.
    """

    current: Settings
    models: ModelSet
    joining: tuple[tuple[str, str], ...]
    log: Any = field(default_factory=lambda: logging.getLogger(__name__))
    made: list[Made] = field(default_factory=list)

    @property
    def root(self) -> UPath:
        """Its data root."""
        return self.current.data_root / CANDIDATE

    @property
    def settings(self) -> Settings:
        """The same in its own data root."""
        return replace(self.current, data_root=self.root)

    @property
    def descriptors(self) -> list[str]:
        """Descriptors and combinations that have a model in force."""
        return [name for name in self.current.config.partitions if name in self.models.models]

    @property
    def fit_set(self) -> FitSet:
        """The delivery and all batches, those that join included."""
        return open_delivery(self.settings)

    def run(self) -> None:
        """Make every stage.

        Raises
        ------
        InputError
            If a stage cannot be made.
        CheckFailedError
            If a blocking check of one fails.
        """
        remove(self.root)
        self.root.mkdir(parents=True)
        for relative in self._goes_on_from():
            if (self.current.data_root / relative).exists():
                link(self.current.data_root / relative, self.root / relative)
        grown = replace(self.models, batches=(*self.models.batches, *self.joining))
        write_json(grown.to_facts(), self.root / file_of("accepted_models"))
        for stage in BEFORE:
            self._make(stage, self.settings)
        for name in self.descriptors:
            settings = replace(self.settings, config=self._as_chosen(name))
            for stage in BY_DESCRIPTOR:
                self._make(stage, settings, name)
        for stage in AFTER:
            self._make(stage, self.settings)

    def _goes_on_from(self) -> Iterator[str]:
        for name in self.descriptors:
            yield from (file_of(stage, name) for stage in GOES_ON_FROM)
            yield NAMES.format(descriptor=name)
        yield from (NAMES.format(descriptor=name) for name in (GROUPS, IMAGES))
        for batch, version in (*self.models.batches, *self.joining):
            folder = BATCH.format(batch=batch, version=version)
            yield from (f"{folder}/{file}" for file in files_below(self.current.data_root / folder))

    def _as_chosen(self, name: str) -> PipelineConfig:
        """The configuration, and what won for a descriptor as if a person had chosen it: a refit does not."""
        config = self.current.config
        trials = read_parquet(self.current.data_root / file_of("clustering_trials", name))
        winner = winner_of(trials)
        chosen = Choice(
            scaler=winner["scaler"],
            representation=winner["representation"],
            algorithm=winner["algorithm"],
            n_clusters=config.choice(name).n_clusters,
        )
        only = {"scalers": (winner["scaler"],), "representations": (winner["representation"],)}
        kind = "descriptors" if name in config.descriptors else "combinations"
        entries = dict(getattr(config, kind))
        entries[name] = entries[name].model_copy(update={"choose": chosen})
        return config.model_copy(update={kind: entries, "trials": config.trials.model_copy(update=only)})

    def _make(self, stage: Stage, settings: Settings, name: str | None = None) -> None:
        """Run a stage as Dagster would, and store what it made."""
        release_memory()
        path = settings.data_root / file_of(stage.name, name)
        with Meter() as meter:
            if stage is statistics and (added := self._statistics(name)) is not None:
                written, checks = Written(added.to_arrays(), meter=meter), []
                format_of(path).write(written.value, path)
            else:
                context = _Context(self.log, name or "")
                result = stage.function(context, **self._inputs(stage, settings, name))
                written = Written(result.value, result.metadata, meter)
                format_of(path).write(with_notices(result), path)
                checks = list(result.checks())
            failed = [check.name for check in checks if not check.passed and check.name in stage.checks]
            if failed:
                raise CheckFailedError(name or "", f"{stage.name} fails its check {failed[0]}")
            self.made.append(Made(stage.name, name, facts_of(written, path, stage.name)))
        self.log.info("refit · %s%s · %.1f s", stage.name, f" · {name}" if name else "", meter.seconds)

    def _inputs(self, stage: Stage, settings: Settings, name: str | None) -> dict[str, Any]:
        """What a stage reads, by the names of its parameters."""
        wanted = list(inspect.signature(stage.function).parameters)[1:]
        return {
            parameter: settings if parameter == "settings" else self._read(stage, parameter, name)
            for parameter in wanted
        }

    def _read(self, stage: Stage, wanted: str, name: str | None) -> Any:
        if STAGES[wanted].partitioned and not stage.partitioned:
            paths = {d: self.root / file_of(wanted, d) for d in self.descriptors}
            return {d: format_of(path).read(path) for d, path in paths.items()}
        path = self.root / file_of(wanted, name)
        return format_of(path).read(path)

    def _statistics(self, name: str | None) -> Statistics | None:
        """Those of the fit in force and of the rows behind it, added up; None if they cannot be."""
        stored = self.current.data_root / file_of("statistics", str(name))
        if not stored.exists():
            return None
        before = Statistics.from_arrays(read_arrays(stored))
        if not self._are_same_rows(str(name), before.n_rows):
            return None
        table = read_table(self.root / file_of("init", str(name)))
        unusable = np.flatnonzero(table.column(STATUS).to_numpy(zero_copy_only=False) != "")
        if not np.array_equal(unusable[unusable < before.n_rows], before.unusable):
            return None
        is_later = np.arange(table.n_rows) >= before.n_rows
        # what joins may say nothing of its own
        if is_later.sum() - np.count_nonzero(unusable >= before.n_rows) < LEAST_ROWS:
            return None
        return before.followed_by(compute_statistics(rows_of(table.vectors("descriptor"), is_later)))

    def _are_same_rows(self, name: str, n_rows: int) -> bool:
        """Whether the candidate begins with the rows of the fit in force; a delivery may have been replaced."""
        paths = [root / file_of("init", name) for root in (self.current.data_root, self.root)]
        if not paths[0].exists():
            return False
        tables = [read_table(path).vectors("descriptor") for path in paths]
        if any(table.shape[0] < n_rows for table in tables) or tables[0].shape[1] != tables[1].shape[1]:
            return False
        rows = np.sort(np.random.default_rng(0).permutation(n_rows)[:COMPARED_ROWS])
        return bool(np.array_equal(tables[0].take(rows), tables[1].take(rows), equal_nan=True))

    def discard(self) -> None:
        """Remove all of it."""
        remove(self.root)
