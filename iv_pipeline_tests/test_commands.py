"""The commands that people type, in processes of their own."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemotePartitionSetOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.remote_representation.external_data import partition_set_snap_name_for_job_name
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from iv_pipeline.automation.summaries import (
    BACKFILL_TAG,
    PARTITION_TAG,
    needs_summary,
    summarise_after_backfill,
)
from iv_pipeline_tests.conftest import BIN, PARTITIONS, QUICK, REPOSITORY, Pipeline, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODULE = ("-m", "iv_pipeline.definitions")


# ── one command at a time ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def fresh(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """A pipeline with an empty data root and a home for Dagster."""
    pipeline = make_pipeline(**QUICK)
    made = pipeline.command("iv-pipeline", "env")
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"export DAGSTER_HOME={pipeline.root / 'dagster_home'}\n"
    return pipeline


def test_the_workspace_loads(fresh: Pipeline) -> None:
    validated = fresh.command("dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert validated.returncode == 0, validated.stderr
    assert "All code locations passed validation" in validated.stdout + validated.stderr


def test_wrong_settings_are_told_in_one_sentence(fresh: Pipeline) -> None:
    given = fresh.environment | {"IV_CONFIG": "/nowhere/pipeline.yaml"}
    ran = subprocess.run(
        [BIN / "iv-pipeline", "run"], cwd=REPOSITORY, env=given, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert ran.stderr == (
        "iv-pipeline: there is no configuration at /nowhere/pipeline.yaml; "
        "set IV_CONFIG to the file, or run from its folder\n"
    )


def test_assets_are_materialized_one_command_after_another(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline(**QUICK)
    (pipeline.root / "dagster_home").mkdir(parents=True)
    select = ("dagster", "asset", "materialize", *MODULE, "--select")
    first = pipeline.command(*select, "image_index")
    assert first.returncode == 0, first.stderr
    then = pipeline.command(*select, "init,statistics", "--partition", "vdc_color")
    assert then.returncode == 0, then.stderr
    assert pipeline.read("init", "vdc_color").n_rows == len(pipeline.read("image_index"))
    assert pipeline.path("statistics", "vdc_color").is_file()


def test_backfilling_all_means_every_descriptor_and_combination(fresh: Pipeline) -> None:
    asked = subprocess.run(
        [BIN / "dagster", "job", "backfill", "-w", "workspace.yaml", "-j", "full_pipeline", "--all", "all"],
        cwd=REPOSITORY,
        env=fresh.environment,
        input="n\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"({len(PARTITIONS)} partitions)" in asked.stdout, asked.stderr
    assert "Aborted!" in asked.stdout
    for partition in PARTITIONS:
        assert partition in asked.stdout


# ── a run that is killed ─────────────────────────────────────────────────────────────────────────────────────

N_LARGE = 60_000
LARGE = {"descriptors": {"large": "descriptors/large.pickle"}, "combinations": {}}


def test_a_run_killed_while_it_writes_leaves_the_file_before_it_whole(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    pipeline = make_pipeline(**LARGE)
    (pipeline.delivery / "labels.csv").unlink()
    paths = "".join(f"1\\{i:06d}.jpg\n" for i in range(N_LARGE))
    (pipeline.delivery / "images_paths.csv").write_text(f"paths\n{paths}", encoding="utf-8")
    matrix = np.arange(N_LARGE, dtype=np.float32)[:, None] * np.ones(512, np.float32)
    pipeline.pickle_of("large").write_bytes(pickle.dumps(matrix, protocol=4))
    assert pipeline.materialize("image_index").success
    (pipeline.root / "dagster_home").mkdir()
    before = b"what an earlier run left here"
    pipeline.path("init", "large").write_bytes(before)

    arguments = ("asset", "materialize", *MODULE, "--select", "init", "--partition", "large")
    run = subprocess.Popen(
        [BIN / "dagster", *arguments],
        cwd=REPOSITORY,
        env=pipeline.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while run.poll() is None and not unfinished_files(pipeline):
        time.sleep(0.001)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    assert len(unfinished_files(pipeline)) == 1
    assert pipeline.path("init", "large").read_bytes() == before

    assert pipeline.materialize("init", partition="large").success
    assert pipeline.read("init", "large").n_rows == N_LARGE
    assert not unfinished_files(pipeline)


def unfinished_files(pipeline: Pipeline) -> list[Any]:
    return list(pipeline.path("init", "large").parent.glob(".*.tmp"))


# ── the daemon ───────────────────────────────────────────────────────────────────────────────────────────────

BACKFILLED = ("vdc_color", "vdc_type+vdc_color")


@dataclass(frozen=True)
class Run:
    job: str
    tags: dict[str, str]
    status: dg.DagsterRunStatus
    began: float
    ended: float


@pytest.fixture(scope="module")
def backfilled(fresh: Pipeline) -> tuple[Pipeline, list[Run]]:
    """`prepare` and a backfill of two descriptors, as typed, until the sensor's summary is through."""
    pipeline = fresh
    job = ("-w", "workspace.yaml", "-j", "full_pipeline", "--partitions", ",".join(BACKFILLED), "--noprompt")
    with (
        pipeline.background("dagster-daemon", "run", "-w", "workspace.yaml"),
        pipeline.instance() as instance,
    ):
        prepared = pipeline.command("dagster", "job", "execute", *MODULE, "-j", "prepare")
        assert prepared.returncode == 0, prepared.stderr
        launched = pipeline.command("dagster", "job", "backfill", *job)
        assert launched.returncode == 0, launched.stderr
        wait_for("the summary", lambda: any(r.job == "summarise" and r.ended for r in runs_of(instance)))
        return pipeline, runs_of(instance)


def runs_of(instance: dg.DagsterInstance) -> list[Run]:
    return [
        Run(
            record.dagster_run.job_name,
            dict(record.dagster_run.tags),
            record.dagster_run.status,
            record.start_time or 0,
            record.end_time or 0,
        )
        for record in instance.get_run_records()
    ]


@pytest.mark.daemon
def test_a_backfill_from_the_command_line_makes_its_descriptors(
    backfilled: tuple[Pipeline, list[Run]],
) -> None:
    pipeline, runs = backfilled
    descriptors = [run for run in runs if run.job == "full_pipeline"]
    assert sorted(run.tags[PARTITION_TAG] for run in descriptors) == sorted(BACKFILLED)
    assert {run.status for run in descriptors} == {dg.DagsterRunStatus.SUCCESS}
    for partition in BACKFILLED:
        assert pipeline.path("final", partition).is_file()


@pytest.mark.daemon
def test_heavy_runs_wait_for_each_other(backfilled: tuple[Pipeline, list[Run]]) -> None:
    first, second = sorted(
        (run for run in backfilled[1] if run.job == "full_pipeline"), key=lambda run: run.began
    )
    assert second.began >= first.ended


@pytest.mark.daemon
def test_one_summary_follows_a_backfill_on_its_own(backfilled: tuple[Pipeline, list[Run]]) -> None:
    pipeline, runs = backfilled
    (summary,) = [run for run in runs if run.job == "summarise"]
    assert summary.status == dg.DagsterRunStatus.SUCCESS
    descriptors = [run for run in runs if run.job == "full_pipeline"]
    assert summary.began >= max(run.ended for run in descriptors)
    assert summary.tags["iv/after_backfill"] == descriptors[0].tags[BACKFILL_TAG]
    assert sorted(pipeline.read("summary")["descriptor"]) == sorted(BACKFILLED)


@pytest.mark.daemon
def test_no_second_summary_follows_however_often_the_sensor_looks(
    backfilled: tuple[Pipeline, list[Run]],
) -> None:
    with backfilled[0].instance() as instance:
        states = {state.name: state for state in instance.all_instigator_state()}
        state = states["summarise_after_backfill"]
        cursor = state.instigator_data.cursor
        for _ in range(3):
            asked, cursor = History(instance).look(cursor)
            assert asked == []
        # the daemon starts nothing for a run key that it has seen, were the cursor lost
        (summary,) = [run for run in backfilled[1] if run.job == "summarise"]
        assert History(instance).look()[0] == [summary.tags["dagster/run_key"]]


# ── the sensor alone ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class History:
    """An instance with runs and backfills as the daemon would write them."""

    instance: dg.DagsterInstance

    def backfill(self, name: str, status: BulkActionStatus, assets: tuple[str, ...] | None = None) -> None:
        stored = a_backfill(name, status, assets)
        if self.instance.get_backfill(name) is None:
            self.instance.add_backfill(stored)
        else:
            self.instance.update_backfill(stored)

    def run(self, backfill: str | None, status: dg.DagsterRunStatus, partition: str | None = "a") -> str:
        tags = {BACKFILL_TAG: backfill, PARTITION_TAG: partition}
        run = dg.DagsterRun(
            job_name="full_pipeline",
            status=status,
            tags={key: value for key, value in tags.items() if value is not None},
        )
        return self.instance.add_run(run).run_id

    def look(self, cursor: str | None = None) -> tuple[list[str], str | None]:
        """Backfills that the sensor starts a summary for, and its cursor afterwards."""
        context = dg.build_sensor_context(instance=self.instance, cursor=cursor)
        result = summarise_after_backfill(context)
        assert isinstance(result, dg.SensorResult)
        return [str(request.run_key) for request in result.run_requests or []], result.cursor


def a_backfill(
    name: str,
    status: BulkActionStatus,
    assets: tuple[str, ...] | None = None,
    job: str = "full_pipeline",
) -> PartitionBackfill:
    """Of some assets, or of a job."""
    place = ManagedGrpcPythonEnvCodeLocationOrigin(
        loadable_target_origin=LoadableTargetOrigin(module_name="iv_pipeline")
    )
    repository = RemoteRepositoryOrigin(code_location_origin=place, repository_name="__repository__")
    partitions = partition_set_snap_name_for_job_name(job)
    return PartitionBackfill(
        partition_set_origin=RemotePartitionSetOrigin(
            repository_origin=repository, partition_set_name=partitions
        ),
        backfill_id=name,
        status=status,
        from_failure=False,
        tags={},
        backfill_timestamp=datetime.now(UTC).timestamp(),
        asset_selection=None if assets is None else [dg.AssetKey(asset) for asset in assets],
    )


@pytest.fixture
def history() -> Iterator[History]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield History(instance)


DONE, STARTED, FAILED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE


def test_a_backfill_gets_its_summary_once(history: History) -> None:
    history.run("one", DONE)
    history.backfill("one", BulkActionStatus.COMPLETED_SUCCESS)
    asked, cursor = history.look()
    assert asked == ["one"]
    assert history.look(cursor) == ([], cursor)


def test_a_backfill_whose_runs_go_on_is_not_through_though_it_says_so(history: History) -> None:
    history.backfill("typed", BulkActionStatus.COMPLETED)  # what `dagster job backfill` writes at once
    history.run("typed", DONE)
    history.run("typed", STARTED, "b")
    assert history.look() == ([], None)


def test_a_backfill_that_is_still_submitting_runs_is_waited_for(history: History) -> None:
    history.run("typed", DONE)
    assert history.look() == ([], None)
    history.backfill("typed", BulkActionStatus.REQUESTED)
    assert history.look() == ([], None)


def test_descriptors_that_were_made_are_summarised_though_others_failed(history: History) -> None:
    history.run("half", DONE)
    history.run("half", FAILED, "b")
    history.backfill("half", BulkActionStatus.COMPLETED_FAILED)
    assert history.look()[0] == ["half"]


def test_a_backfill_that_made_nothing_gets_no_summary(history: History) -> None:
    history.run("none", FAILED)
    history.backfill("none", BulkActionStatus.COMPLETED_FAILED)
    assert history.look() == ([], None)


def test_runs_outside_of_backfills_get_no_summary(history: History) -> None:
    history.run(None, DONE)
    assert history.look() == ([], None)


def test_a_backfill_that_runs_on_does_not_hide_from_later_looks(history: History) -> None:
    history.run("long", DONE)
    history.backfill("long", BulkActionStatus.REQUESTED)
    history.run("short", DONE)
    history.backfill("short", BulkActionStatus.COMPLETED_SUCCESS)
    asked, cursor = history.look()
    assert asked == ["short"]
    history.run("long", DONE, "b")
    history.backfill("long", BulkActionStatus.COMPLETED_SUCCESS)
    assert history.look(cursor)[0] == ["long"]


def test_several_backfills_that_ended_share_one_summary(history: History) -> None:
    for name in ("one", "two"):
        history.run(name, DONE)
        history.backfill(name, BulkActionStatus.COMPLETED_SUCCESS)
    asked, cursor = history.look()
    assert len(asked) == 1
    assert history.look(cursor)[0] == []


@pytest.mark.parametrize(
    ("job", "needed"), [("full_pipeline", True), ("recluster", True), ("label_batch", False)]
)
def test_a_backfill_of_a_job_needs_a_summary_if_it_makes_final(job: str, needed: bool) -> None:
    assert needs_summary(a_backfill("x", BulkActionStatus.COMPLETED_SUCCESS, job=job)) is needed


@pytest.mark.parametrize(
    ("assets", "needed"),
    [(None, True), (("init", "final"), True), (("final", "summary"), False), (("init",), False)],
)
def test_a_backfill_of_assets_needs_a_summary_if_it_makes_final_alone(
    assets: tuple[str, ...] | None, needed: bool
) -> None:
    assert needs_summary(a_backfill("x", BulkActionStatus.COMPLETED_SUCCESS, assets)) is needed


def test_loading_the_definitions_imports_no_library_that_takes_long() -> None:
    """Every run and every look of the UI is a process that pays for what is imported."""
    slow = ("sklearn", "umap", "hdbscan", "faiss", "matplotlib", "scipy.stats")
    code = f"import sys, iv_pipeline.definitions; print([m for m in {slow!r} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
