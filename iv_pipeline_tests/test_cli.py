import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from iv_pipeline import cli, execution, processes
from iv_pipeline.assets.stage import NOTICES, Result, stage
from iv_pipeline.progress import console


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    cli.ensure_home()
    with dg.DagsterInstance.get() as instance:
        yield instance


STARTED = dg.DagsterRunStatus.STARTED


def started_run(
    instance: dg.DagsterInstance, process: str, of: str | None = None, status: dg.DagsterRunStatus = STARTED
) -> dg.DagsterRun:
    @dg.job
    def nothing() -> None:
        pass

    run = instance.create_run_for_job(nothing, status=status)
    instance.add_run_tags(run.run_id, {processes.PROCESS_TAG: f"{of or run.run_id} {process}"})
    return run


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_run_whose_process_was_killed_is_marked_as_failed(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = processes.identify(psutil.Process(process.pid))
        statuses = (STARTED, dg.DagsterRunStatus.NOT_STARTED)  # interrupted before its first step
        runs = [started_run(instance, identity, status=before) for before in statuses]
        processes.end_stale_runs(instance)
        assert tuple(status(instance, run) for run in runs) == statuses
        process.kill()
    processes.end_stale_runs(instance)
    assert {status(instance, run) for run in runs} == {dg.DagsterRunStatus.FAILURE}


def test_a_clock_that_is_set_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    before = processes.identify(psutil.Process())
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 7.0)
    assert processes.identify(psutil.Process()) == before


def test_a_run_beside_another_is_refused(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IV_CONFIG", str(Path(__file__).parent.parent / "pipeline.yaml"))
    monkeypatch.setattr(cli, "_draw_demo", lambda: None)
    monkeypatch.setattr(processes, "MOMENT", 0.1)
    with processes.only_fit(instance):
        assert cli.main(["run"]) == 1
        assert "another run, refit or rollback is under way" in capsys.readouterr().err
        assert cli.main(["rollback", "1"]) == 1
        assert "another run, refit or rollback is under way" in capsys.readouterr().err


def test_a_run_that_is_run_again_is_not_taken_for_the_one_that_died(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = processes.identify(psutil.Process(process.pid))
        process.kill()
    run = started_run(instance, identity, of="the-run-before")  # whose tags it took along
    processes.end_stale_runs(instance)
    assert status(instance, run) == dg.DagsterRunStatus.STARTED


def test_a_run_of_another_machine_or_this_process_is_left_alone(instance: dg.DagsterInstance) -> None:
    runs = [
        started_run(instance, identity)
        for identity in ("elsewhere:1:2.00", processes.identify(psutil.Process()))
    ]
    processes.end_stale_runs(instance)
    assert {status(instance, run) for run in runs} == {dg.DagsterRunStatus.STARTED}


def test_the_home_lies_under_the_data_root_unless_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IV_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    assert cli.ensure_home() == tmp_path / "root" / "dagster_home"
    assert (tmp_path / "root" / "dagster_home" / "dagster.yaml").exists()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "given"))
    assert cli.ensure_home() == tmp_path / "given"
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / "given")


def test_an_own_dagster_yaml_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    cli.ensure_home()
    assert (tmp_path / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_wrong_settings_end_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IV_CONFIG", str(tmp_path / "none.yaml"))
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err.startswith("iv-pipeline: there is no configuration at")


def test_a_delivery_that_was_named_is_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IV_CONFIG", str(Path(__file__).parent.parent / "pipeline.yaml"))
    monkeypatch.setenv("IV_DELIVERY", str(tmp_path / "nowhere"))
    assert cli.main(["demo"]) == 1
    assert "IV_DELIVERY names" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "Final/a.csv"),
            "Final/a.csv: the disk is full; make room",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "data"),
            "data: not allowed (Permission denied); change",
        ),
        (sqlite3.OperationalError("database or disk is full"), "home: the disk is full; make room"),
        (
            sqlite3.OperationalError("unable to open database file"),
            "home: Dagster's history cannot be used (unable",
        ),
    ],
)
def test_what_the_machine_refuses_gets_one_sentence(
    error: Exception,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", "home")

    def refuse() -> None:
        raise RuntimeError("something went wrong") from error  # as Dagster and SQLAlchemy do

    monkeypatch.setattr(cli, "_list_versions", refuse)
    assert cli.main(["versions"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"iv-pipeline: {says}")
    assert said.count("\n") == 1


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_list_versions", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["versions"])


@dg.asset(check_specs=[dg.AssetCheckSpec("is_whole", asset="clusters", blocking=True)])
def clusters() -> Iterator[Any]:
    yield dg.Output(1, metadata={NOTICES: dg.MetadataValue.md("- a.csv: is odd\n- b.csv: is odd")})
    yield dg.AssetCheckResult(check_name="is_whole", passed=False)


@stage(group="results", partitioned=False)
def final(context: dg.AssetExecutionContext) -> Result:
    del context
    raise OSError(errno.ENOSPC, "No space left on device", "Final/a.csv")


@pytest.mark.parametrize(
    ("asset", "says"),
    [
        (
            clusters,
            "clusters failed: clusters: the result does not pass the check is_whole; look at what it measured",
        ),
        (final, "final failed: Final/a.csv: the disk is full; make room"),
    ],
)
def test_a_step_that_fails_says_why_in_one_sentence_and_its_notices_are_kept(
    instance: dg.DagsterInstance, asset: Any, says: str
) -> None:
    asset = (
        asset if isinstance(asset, dg.AssetsDefinition) else asset.to_asset(dg.StaticPartitionsDefinition([]))
    )
    definitions = dg.Definitions([asset], jobs=[dg.define_asset_job("all")], loggers={"console": console})
    outcome = execution.execute(definitions, instance, "all")
    assert not outcome.succeeded
    (said,) = outcome.failures
    assert said.startswith(says)
    assert "\n" not in said
    assert outcome.notices == (("a.csv: is odd", "b.csv: is odd") if "is_whole" in says else ())


def test_the_end_of_a_run_repeats_the_notices(capsys: pytest.CaptureFixture[str]) -> None:
    cli._repeat([])
    assert capsys.readouterr().out == ""
    cli._repeat({"a.csv: is odd": None, "b.csv: is odd": None})
    assert capsys.readouterr().out == "\nAbout this delivery (2):\n  - a.csv: is odd\n  - b.csv: is odd\n"
