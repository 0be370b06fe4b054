import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from iv_pipeline import cli, processes


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    cli.ensure_home()
    with dg.DagsterInstance.get() as instance:
        yield instance


def started_run(instance: dg.DagsterInstance, process: str, of: str | None = None) -> dg.DagsterRun:
    @dg.job
    def nothing() -> None:
        pass

    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    instance.add_run_tags(run.run_id, {processes.PROCESS_TAG: f"{of or run.run_id} {process}"})
    return run


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_run_whose_process_was_killed_is_marked_as_failed(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = processes.identify(psutil.Process(process.pid))
        run = started_run(instance, identity)
        processes.end_stale_runs(instance)
        assert status(instance, run) == dg.DagsterRunStatus.STARTED
        process.kill()
    processes.end_stale_runs(instance)
    assert status(instance, run) == dg.DagsterRunStatus.FAILURE


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
