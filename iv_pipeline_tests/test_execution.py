import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
import pytest

from iv_pipeline import execution
from iv_pipeline.processes import PROCESS_TAG, end_stale_runs
from iv_pipeline_tests.conftest import BIN, PARTITIONS, QUICK, REPOSITORY, Pipeline


@pytest.mark.parametrize(
    ("gigabytes", "n_rows", "n_runs", "expected"),
    [(24, 416_314, 6, 1), (24, 2_000, 6, 6), (24, 2_000, 2, 2), (5, 100_000, 6, 2), (1, 2_000, 6, 1)],
)
def test_as_many_runs_as_cores_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch, gigabytes: int, n_rows: int, n_runs: int, expected: int
) -> None:
    available = type("Memory", (), {"available": gigabytes * 10**9})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    monkeypatch.setenv("IV_THREADS", "8")
    assert execution.choose_processes(n_rows, n_runs) == expected


def test_a_container_s_limit_counts_as_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(execution, "_CONTAINER_LIMITS", (tmp_path / "absent", limit))
    limit.write_text("1000000\n")
    assert execution._available_bytes() == 1_000_000
    limit.write_text("max\n")
    assert execution._available_bytes() > 1_000_000


def test_descriptors_run_side_by_side_give_the_files_of_one_after_another(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    files = []
    for processes in ("1", "2"):
        pipeline = make_pipeline(**QUICK)
        ran = pipeline.command("iv-pipeline", "run", "--processes", processes, timeout=300)
        assert ran.returncode == 0, ran.stderr
        with pipeline.instance() as instance:
            runs = instance.get_runs(dg.RunsFilter(job_name="full_pipeline"))
        assert len({run.tags[PROCESS_TAG].split()[-1] for run in runs}) == int(processes)
        files.append(
            [
                pipeline.path(stage, name).read_bytes()
                for stage in ("scaled_pca", "clusters", "final")
                for name in PARTITIONS
            ]
        )
    assert files[0] == files[1]


def test_a_descriptor_that_fails_side_by_side_is_told_and_the_others_are_made(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    pipeline = make_pipeline(**QUICK | {"combinations": {}})
    pipeline.path("hierarchy", "vdc_type").mkdir(parents=True)  # where a file has to be
    ran = pipeline.command("iv-pipeline", "run", "--processes", "2", timeout=300)
    assert ran.returncode == 1
    assert "hierarchy of vdc_type failed: " in ran.stderr
    assert "Failed: vdc_type; the reason stands above" in ran.stderr
    assert pipeline.path("final", "vdc_color").is_file()
    assert not pipeline.path("final", "vdc_type").exists()
    assert pipeline.path("summary").is_file()


def test_a_process_that_is_killed_is_told_in_one_sentence(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline(**QUICK)
    with started(pipeline) as run:
        victim = worker_of(run)
        victim.kill()
        _, said = run.communicate(timeout=300)
    assert run.returncode == 1
    told = "its process, or one beside it, was killed, most often for want of memory; run fewer descriptors"
    assert told in said
    assert "Traceback" not in said


def test_an_interrupt_ends_every_descriptor_and_begins_no_other(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    pipeline = make_pipeline(**QUICK)
    with started(pipeline) as run:
        worker_of(run)
        while not pipeline.path("statistics", PARTITIONS[2]).exists() and run.poll() is None:
            time.sleep(0.05)
        workers = psutil.Process(run.pid).children()
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "iv-pipeline: interrupted; what was finished stays" in said
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    assert not any(pipeline.path("final", name).exists() for name in PARTITIONS)
    with pipeline.instance() as instance:
        end_stale_runs(instance)  # as the next command does
        runs = instance.get_runs(dg.RunsFilter(job_name="full_pipeline"))
        assert len(runs) == 2
        assert {run.status for run in runs} == {dg.DagsterRunStatus.FAILURE}


def test_processes_end_with_the_one_that_started_them(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline(**QUICK)
    with started(pipeline) as run:
        worker_of(run)
        workers = psutil.Process(run.pid).children()
        run.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []


def started(pipeline: Pipeline) -> "subprocess.Popen[str]":
    """A run of two descriptors at once, in a session of its own."""
    return subprocess.Popen(
        [BIN / "iv-pipeline", "run", "--processes", "2"],
        cwd=REPOSITORY,
        env=pipeline.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def worker_of(run: "subprocess.Popen[str]") -> psutil.Process:
    """A process that runs a descriptor, once there is one."""
    while run.poll() is None:
        for child in psutil.Process(run.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # others come and go
                if "spawn_main" in " ".join(child.cmdline()):
                    return child
        time.sleep(0.05)
    pytest.fail(f"no worker was started: {run.communicate()[1]!r}")


@pytest.mark.parametrize("given", ["0", "two"])
def test_a_number_of_processes_that_makes_no_sense_is_refused(given: str) -> None:
    command = [sys.executable, "-m", "iv_pipeline.cli", "run", "--processes", given]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "argument --processes: must be a number of at least 1" in ran.stderr
