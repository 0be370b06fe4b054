"""The folder of one benchmark, and the processes that are measured in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.delivery import NETWORKS, delivery_bytes, write_delivery
from benchmarks.watch import Usage, watch
from iv_pipeline.automation import FULL_PIPELINE, PREPARE, SUMMARISE
from iv_pipeline.config import SCALERS, PipelineConfig, load_config
from iv_pipeline.errors import InputError
from iv_pipeline.storage.layout import file_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

REPOSITORY = Path(__file__).parent.parent
CONFIG = REPOSITORY / "pipeline.yaml"
MIB = 2**20
_ERROR = re.compile(r"\s*[\w.]+(?:Error|Exception|Failure)\b")

PASSING = ("init", "scaled", "scaled_pca", "neighbors", "hierarchy")
"""Stages whose large files nobody reads once the descriptor's chain is through."""
REDUCED_BYTES = 4_500
"""Of a row in all files of a descriptor behind `scaled`, at 200 components: an upper estimate."""
REMAINING_BYTES = 1_500
"""Of a row in those of its files that remain when its chain is through."""


@dataclass(frozen=True)
class Site:
    """Where a benchmark works: a folder with the delivery, the data root, Dagster's home and logs.

    Attributes
    ----------
    folder
        Of the benchmark alone.
    config_file
        The pipeline's configuration.
    """

    folder: Path
    config_file: Path

    @cached_property
    def config(self) -> PipelineConfig:
        """The pipeline's configuration."""
        return load_config(self.config_file)

    @property
    def delivery(self) -> Path:
        """The delivery's folder."""
        return self.folder / "Intellivision_case"

    @property
    def root(self) -> Path:
        """The data root."""
        return self.folder / "data"

    @property
    def home(self) -> Path:
        """Dagster's home."""
        return self.folder / "dagster_home"

    @property
    def environment(self) -> dict[str, str]:
        """Of every stage."""
        return os.environ | {
            "IV_DATA_ROOT": str(self.root),
            "IV_DELIVERY": str(self.delivery),
            "IV_CONFIG": str(self.config_file),
            "DAGSTER_HOME": str(self.home),
            "PYTHONPATH": str(REPOSITORY),
        }

    def require_room(self, needed: int) -> None:
        """Make the folder; refuse to begin where something lies already, or where the disk is too small.

        Raises
        ------
        InputError
            In either case.
        """
        if self.folder.exists() and any(self.folder.iterdir()):
            raise InputError(
                f"{self.folder} is not empty: name another folder with --work, or remove this one"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise InputError(
                f"{self.folder} has {free / 1e9:.0f} GB free and about {needed / 1e9:.0f} GB are needed: "
                "free some, ask for fewer rows or descriptors, or name another disk with --work"
            )

    def prepare(self, n_rows: int, seed: int, images: bool) -> None:
        """Write the delivery and Dagster's empty history, and have them on disk before anything is measured."""
        import dagster as dg

        self.home.mkdir(parents=True)
        template = REPOSITORY / "iv_pipeline" / "dagster.yaml"
        shutil.copy(template, self.home / "dagster.yaml")
        dg.DagsterInstance.from_config(str(self.home)).dispose()
        write_delivery(self.delivery, n_rows, seed, images, tuple(self.config.descriptors))
        os.sync()

    def materialize(
        self, stage: str, descriptor: str | None, data_limit: int | None = None
    ) -> dict[str, Any]:
        """Run one stage in a process of its own; what it took, and whether it succeeded."""
        command = [sys.executable, "-m", "dagster", "asset", "materialize"]
        command += ["-m", "iv_pipeline.definitions", "--select", stage]
        command += ["--partition", descriptor] if descriptor else []
        log = self.folder / f"{stage}.log"
        usage = watch(command, self.environment, log, data_limit=data_limit)
        succeeded = usage.returncode == 0
        return {
            "stage": stage,
            "descriptor": descriptor,
            "succeeded": succeeded,
            "reason": "" if succeeded else last_error(log, usage),
            "stage_seconds": self._reported(stage, descriptor)["seconds"] if succeeded else None,
            **usage.to_dict(),
        }

    def _reported(self, stage: str, descriptor: str | None) -> dict[str, float]:
        """What a stage said of itself when it was last made: numbers among its metadata."""
        import dagster as dg

        asked = dg.AssetRecordsFilter(
            dg.AssetKey(stage), asset_partitions=[descriptor] if descriptor else None
        )
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            latest = instance.fetch_materializations(asked, limit=1).records[0].asset_materialization
        if latest is None:
            raise ValueError(f"Dagster has no materialization of {stage}")
        values = {key: entry.value for key, entry in latest.metadata.items()}
        return {key: value for key, value in values.items() if isinstance(value, int | float)}

    def usual(
        self, descriptor: str, scalers: Sequence[str], time_limit: float, data_limit: int
    ) -> dict[str, Any]:
        """Run the usual way in a process of its own; what it took, step by step, and how it ended."""
        files = [
            self.delivery / self.config.descriptors[name].file for name in self.config.blocks(descriptor)
        ]
        log, steps = self.folder / "usual.log", self.folder / "usual.jsonl"
        steps.write_text("", encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.usual", *map(str, files), "--steps", str(steps)]
        usage = watch([*command, "--scalers", *scalers], self.environment, log, time_limit, data_limit)
        done = [json.loads(line) for line in steps.read_text(encoding="utf-8").splitlines()]
        reason = ""
        if usage.over_time:
            reason = f"over the limit of {time_limit:,.0f} s"
        elif usage.returncode:
            reason = f"{last_error(log, usage)} (limit {data_limit / MIB:,.0f} MiB)"
        return {
            "descriptor": descriptor,
            "scalers": list(scalers),
            "succeeded": not reason,
            "reason": reason,
            "steps": done,
            **usage.to_dict(),
        }

    def whole(self, descriptors: Sequence[str]) -> dict[str, Any]:
        """Run every stage of some descriptors in one process, as ``make run`` does; what it took."""
        log = self.folder / "whole.log"
        command = [sys.executable, "-m", "iv_pipeline.cli", "run", *descriptors]
        usage = watch(command, self.environment, log)
        succeeded = usage.returncode == 0
        return {
            "descriptors": list(descriptors),
            "succeeded": succeeded,
            "reason": "" if succeeded else last_error(log, usage),
            "stages": list(self._stages_of(descriptors)) if succeeded else [],
            **usage.to_dict(),
        }

    def _stages_of(self, descriptors: Sequence[str]) -> Iterator[dict[str, Any]]:
        """What every stage of the last whole run said that it took."""
        chains: list[tuple[Sequence[str], str | None]] = [(PREPARE, None)]
        chains += [(FULL_PIPELINE, name) for name in descriptors]
        for stages, descriptor in [*chains, (SUMMARISE, None)]:
            for stage in stages:
                said = self._reported(stage, descriptor)
                yield {
                    "stage": stage,
                    "descriptor": descriptor,
                    "succeeded": True,
                    "stage_seconds": said["seconds"],
                    "anonymous_bytes": said["peak_memory_mb"] * MIB,
                }

    def label(self, descriptor: str, fitted: int, rows: int, seed: int) -> dict[str, Any]:
        """Label new rows by every algorithm of a finished descriptor in a process of its own; what that took."""
        log, steps = self.folder / "labelling.log", self.folder / "labelling.jsonl"
        steps.write_text("", encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.labelling", str(self.root), descriptor]
        command += [
            "--config",
            str(self.config_file),
            "--fitted",
            str(fitted),
            "--rows",
            str(rows),
            "--seed",
            str(seed),
        ]
        command += ["--algorithms", *self.config.trials.algorithms, "--steps", str(steps)]
        usage = watch(command, self.environment, log)
        succeeded = usage.returncode == 0
        return {
            "descriptor": descriptor,
            "rows": rows,
            "fitted": fitted,
            "succeeded": succeeded,
            "reason": "" if succeeded else last_error(log, usage),
            "algorithms": [json.loads(line) for line in steps.read_text(encoding="utf-8").splitlines()],
            **usage.to_dict(),
        }

    def discard(self, descriptor: str) -> None:
        """Remove the large files of a descriptor that no further stage reads."""
        for stage in PASSING:
            (self.root / file_of(stage, descriptor)).unlink(missing_ok=True)


def last_error(log: Path, usage: Usage) -> str:
    """The last line of a log that names an error, or the signal or status that the process ended with."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if _ERROR.match(line)]
    if errors:
        return errors[-1]
    return signal.Signals(-usage.returncode).name if usage.returncode < 0 else f"status {usage.returncode}"


def needed_bytes(n_rows: int, config: PipelineConfig, descriptors: Iterable[str], keep: bool) -> int:
    """About how much disk a benchmark takes at its fullest."""

    def row(partition: str) -> int:
        width = sum(NETWORKS[name].n_features for name in config.blocks(partition))
        return 4 * width * (1 + len(SCALERS)) + REDUCED_BYTES

    tables = [row(name) for name in descriptors]
    most = sum(tables) if keep else max(tables) + len(tables) * REMAINING_BYTES
    return int(1.1 * (delivery_bytes(n_rows) + n_rows * most)) + 100 * MIB
