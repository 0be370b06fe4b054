"""Which process executes a run, and that no two make a fit at once.

A process that died is told from one that works on, so that its run holds nobody up.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import dagster as dg
import filelock
import psutil
from dagster._core.storage.dagster_run import FINISHED_STATUSES

PROCESS_TAG = "iv_pipeline/process"
"""Of a run: its id, and host, number and start of the process that executes it; a run that is run again takes the
tags of the one before along, and must not be taken for it."""
START_SECONDS = 300
"""A run that has not come to its first step by then never will; should it all the same, Dagster stops it there."""

JOBS_OF_A_FIT = frozenset({"prepare", "full_pipeline", "recluster", "summarise", "refit"})
"""None of them may run beside a refit: they make what it begins with."""
MOMENT = 5.0
"""Seconds to wait for the lock of fits: the sensor holds it that long, at most, at every look."""
IMPLICIT_JOB = "__ASSET_JOB"
"""Of assets that were chosen one by one."""
JOB_OF_ASSET = {
    "refits": "refit",
    "labelled_batch": "label_batch",
    "drift": "label_batch",
    "report": "refresh_report",
}
"""What a run of single assets counts as; of all others as `full_pipeline`."""

UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_HELD = [dg.DagsterRunStatus.NOT_STARTED, *_UNDER_WAY]
"""Statuses of a run that only its process can end: one that is queued waits for Dagster's daemon."""


def process_tags(run_id: str) -> dict[str, str]:
    """Tags that say that this process executes a run."""
    return {PROCESS_TAG: f"{run_id} {identify(psutil.Process())}"}


def mark_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Say that this process executes `run`."""
    tags = process_tags(run.run_id)
    if run.tags.get(PROCESS_TAG) != tags[PROCESS_TAG]:
        instance.add_run_tags(run.run_id, tags)


def end_stale_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs whose process is gone as failed: left alone, they would hold the heavy pool for ever."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=_HELD)):
        if is_stale(record):
            instance.report_run_failed(record.dagster_run, "The process that ran it is gone.")


def is_stale(record: dg.RunRecord) -> bool:
    """Whether a run is under way by its status alone."""
    run = record.dagster_run
    of_run, _, process = run.tags.get(PROCESS_TAG, "").partition(" ")
    if of_run == run.run_id:
        return run.status in _HELD and not _is_alive(process)
    return run.status in _UNDER_WAY and time.time() - record.update_timestamp.timestamp() > START_SECONDS


def jobs_under_way(instance: dg.DagsterInstance, but: str = "", *, waiting: bool = True) -> set[str]:
    """Names of jobs of which a run has not ended; assets chosen one by one count as the job that makes them.

    Parameters
    ----------
    instance
        That knows the runs.
    but
        Id of a run that is left out.
    waiting
        Whether runs count that have not been started yet.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED if waiting else _UNDER_WAY))
    return {name for run in runs if run.run_id != but for name in _jobs_of(run)}


def _jobs_of(run: dg.DagsterRun) -> set[str]:
    if run.job_name != IMPLICIT_JOB:
        return {run.job_name}
    chosen = {key.to_user_string() for key in run.asset_selection or ()}
    return {JOB_OF_ASSET.get(name, "full_pipeline") for name in chosen or {"every asset"}}


@contextlib.contextmanager
def only_fit(
    instance: dg.DagsterInstance,
    *,
    beside: AbstractSet[str] = JOBS_OF_A_FIT,
    but: str = "",
    waiting: bool = True,
    wait: float | None = None,
) -> Iterator[str]:
    """Keep others from making or putting back a fit while the block lasts; who does already, empty if nobody.

    Runs alone would not show a command between two of its runs, so a lock is held as well, which goes with its
    process.

    Parameters
    ----------
    instance
        Whose runs and lock these are.
    beside
        Jobs that may not run meanwhile.
    but, waiting
        As of `jobs_under_way`.
    wait
        Seconds to wait for the lock, `MOMENT` if this is None.
    """
    end_stale_runs(instance)
    lock = filelock.FileLock(Path(instance.root_directory) / "fit.lock")
    try:
        lock.acquire(timeout=MOMENT if wait is None else wait)
    except filelock.Timeout:
        yield "another run, refit or rollback"
        return
    try:
        yield ", ".join(sorted(jobs_under_way(instance, but, waiting=waiting) & beside))
    finally:
        lock.release()


def identify(process: psutil.Process) -> str:
    """Host, number and start of a process: numbers are used again."""
    return f"{socket.gethostname()}:{process.pid}:{_started(process)}"


def _started(process: psutil.Process) -> str:
    """When a process was started: since the machine was, where that is known, for clocks are set."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
    except OSError:  # not Linux, or the process is gone
        return f"{process.create_time():.2f}"
    return f"{boot.strip()}/{stat.rpartition(')')[2].split()[19]}"  # field 22, see proc(5)


def _is_alive(identity: str) -> bool:
    host, pid, _ = identity.rsplit(":", 2)
    if host != socket.gethostname():
        return True  # nothing is known of processes elsewhere
    try:
        process = psutil.Process(int(pid))
        return identify(process) == identity and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
