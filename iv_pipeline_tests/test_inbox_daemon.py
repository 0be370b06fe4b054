"""Batches as they come, with Dagster's daemon as it is: what a week of an inbox looks like, in two minutes."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
import pytest
import yaml

from iv_pipeline.automation.inbox import BATCH_TAG
from iv_pipeline.processes import PROCESS_TAG
from iv_pipeline_tests.conftest import N_IMAGES, PARTITIONS, wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from iv_pipeline_tests.conftest import Finished, Pipeline

pytestmark = [pytest.mark.daemon]

DAEMON = ("dagster-daemon", "run", "-w", "workspace.yaml")
INBOX = {"settle_seconds": 5, "look_seconds": 2}
EVERY_MINUTE = "* * * * *"


@dataclass(frozen=True)
class Week:
    """A pipeline after all of it, its runs, and what was seen on the way."""

    pipeline: Pipeline
    runs: list[dg.DagsterRun]
    started_early: list[str]
    killed: str
    warned: bool
    broken: str

    def of(self, batch: str) -> list[dg.DagsterRun]:
        return [run for run in self.runs if run.tags.get(BATCH_TAG) == batch]


class Inbox:
    """Watches what the daemon makes of the inbox."""

    def __init__(self, pipeline: Pipeline, instance: dg.DagsterInstance) -> None:
        self.pipeline, self.instance = pipeline, instance

    def runs(self, batch: str) -> list[dg.DagsterRun]:
        return self.instance.get_runs(dg.RunsFilter(tags={BATCH_TAG: batch}))

    def wait_for_end(self, batch: str) -> dg.DagsterRun:
        ended = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
        wait_for(f"the end of {batch}", lambda: any(r.status in ended for r in self.runs(batch)))
        return next(run for run in self.runs(batch) if run.status in ended)

    def copy_slowly(self, whole: Path) -> list[str]:
        """Copy a batch in pieces, pausing for less than the daemon waits; the runs that it started meanwhile."""
        target = self.pipeline.root / "Inbox" / whole.name
        (target / "descriptors").mkdir(parents=True)
        for file in sorted(path for path in whole.rglob("*") if path.is_file()):
            content = file.read_bytes()
            with (target / file.relative_to(whole)).open("wb") as copy:
                for part in (content[: len(content) // 2], content[len(content) // 2 :]):
                    copy.write(part)
                    copy.flush()
                    time.sleep(2.5)
        return [run.run_id for run in self.runs(whole.name)]

    def kill_in_the_middle_of(self, batch: str, daemon: subprocess.Popen[bytes]) -> str:
        """Kill the daemon and all that it started while it labels a batch; the run that died."""
        wait_for(
            f"a run of {batch}", lambda: any(PROCESS_TAG in r.tags for r in self.runs(batch)), every=0.05
        )
        os.killpg(daemon.pid, signal.SIGKILL)
        (run,) = self.runs(batch)
        assert run.status == dg.DagsterRunStatus.STARTED
        return run.run_id


@pytest.fixture(scope="module")
def lived_through(
    finished: Finished, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Week:
    pipeline = make_pipeline(inbox=INBOX, combinations={}, projection={"n_epochs": 1})
    shutil.copytree(finished.pipeline.root, pipeline.root, copy_function=os.link)
    assert pipeline.command("iv-pipeline", "env").returncode == 0
    with pipeline.instance() as instance:
        inbox = Inbox(pipeline, instance)
        with pipeline.background(*DAEMON) as daemon:
            whole = pipeline.send("monday", range(50), inbox=tmp_path_factory.mktemp("sender"))
            started_early = inbox.copy_slowly(whole)
            inbox.wait_for_end("monday")
            (pipeline.send("tuesday", [*range(N_IMAGES), *range(40)]) / "_SUCCESS").touch()
            killed = inbox.kill_in_the_middle_of("tuesday", daemon)
        config = yaml.safe_load(pipeline.config.read_text()) | {"refit": {"schedule": EVERY_MINUTE}}
        pipeline.config.write_text(yaml.safe_dump(config, sort_keys=False))
        with pipeline.background(*DAEMON):
            wait_for("tuesday", lambda: len(inbox.runs("tuesday")) > 1)
            shutil.rmtree(pipeline.root / "Inbox" / "monday")
            shutil.copytree(whole, pipeline.root / "Inbox" / "monday")
            broken = pipeline.send("broken", range(20))
            pickled = broken / "descriptors" / "vdc_type.pickle"
            pickled.write_bytes(pickled.read_bytes()[:1000])
            # without all descriptors it is labelled, and takes no part in the refit
            night = pipeline.send("night", range(40), descriptors=PARTITIONS[:1], shift=4.0)
            (night / "_SUCCESS").touch()
            reason = why(instance, inbox.wait_for_end("broken"))
            labelled_night = inbox.wait_for_end("night")
            wait_for("a refit", (pipeline.root / "Final" / "refits.csv").exists)
        warned = any(
            event.dagster_event.asset_check_evaluation_data.passed is False
            for event in instance.all_logs(
                labelled_night.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            )
            if event.dagster_event is not None
        )
        return Week(pipeline, instance.get_runs(), started_early, killed, warned, reason)


def why(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What the first step that failed said."""
    (failure, *_) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert failure.dagster_event is not None
    said = failure.dagster_event.step_failure_data.user_failure_data
    assert said is not None
    return str(said.description)


def test_a_batch_is_not_labelled_before_it_is_whole(lived_through: Week) -> None:
    assert lived_through.started_early == []
    (run,) = lived_through.of("monday")  # nor again when the same was sent once more
    assert run.status == dg.DagsterRunStatus.SUCCESS
    labels = pd.read_csv(lived_through.pipeline.root / "Final" / "batches" / "monday" / "vdc_type.csv")
    assert len(labels) == 50


def test_a_batch_whose_run_died_with_the_daemon_is_labelled_once(lived_through: Week) -> None:
    died, labelled = sorted(lived_through.of("tuesday"), key=lambda run: run.run_id != lived_through.killed)
    assert died.status == dg.DagsterRunStatus.FAILURE
    assert labelled.status == dg.DagsterRunStatus.SUCCESS
    for partition in PARTITIONS[:2]:
        path = lived_through.pipeline.root / "Final" / "batches" / "tuesday" / f"{partition}.csv"
        assert len(pd.read_csv(path)) == N_IMAGES + 40


def test_a_damaged_batch_fails_by_name_and_holds_nobody_up(lived_through: Week) -> None:
    (run,) = lived_through.of("broken")
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert "Inbox/broken/descriptors/vdc_type.pickle" in lived_through.broken
    (later,) = lived_through.of("night")
    assert later.status == dg.DagsterRunStatus.SUCCESS


def test_a_batch_from_elsewhere_is_warned_of(lived_through: Week) -> None:
    assert lived_through.warned


def test_names_survive_the_refit_on_schedule(lived_through: Week) -> None:
    refits = [run for run in lived_through.runs if run.job_name == "refit"]
    assert refits
    assert all(run.tags["dagster/schedule_name"] == "scheduled_refit" for run in refits)
    history = lived_through.pipeline.read("refits")
    first = history[history["refit"] == history["refit"].iloc[0]]
    assert "monday" in first["batches"].iloc[0]
    assert first["accepted"].all(), first.T
    final = lived_through.pipeline.read("final", "vdc_type")
    assert set(final[final["cluster"] == 0]["name"]) == {"white saloons"}
