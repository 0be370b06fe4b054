"""Which process executes a run: one that died is told from one that works on, and its run holds nobody up."""

import socket
import time

import dagster as dg
import psutil
from dagster._core.storage.dagster_run import FINISHED_STATUSES

PROCESS_TAG = "iv_pipeline/process"
"""Of a run: its id, and host, number and start of the process that executes it; a run that is run again takes the
tags of the one before along, and must not be taken for it."""
START_SECONDS = 300
"""A run that has not come to its first step by then never will; should it all the same, Dagster stops it there."""

JOBS_OF_A_FIT = {"prepare", "full_pipeline", "recluster", "summarise", "refit"}
"""None of them may run beside a refit: they make what it begins with."""

UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def mark_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Say that this process executes `run`."""
    tag = f"{run.run_id} {identify(psutil.Process())}"
    if run.tags.get(PROCESS_TAG) != tag:
        instance.add_run_tags(run.run_id, {PROCESS_TAG: tag})


def end_stale_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs whose process is gone as failed: left alone, they would hold the heavy pool for ever."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY)):
        if is_stale(record):
            instance.report_run_failed(record.dagster_run, "The process that ran it is gone.")


def is_stale(record: dg.RunRecord) -> bool:
    """Whether a run is under way by its status alone."""
    run = record.dagster_run
    of_run, _, process = run.tags.get(PROCESS_TAG, "").partition(" ")
    if of_run == run.run_id:
        return run.status in _UNDER_WAY and not _is_alive(process)
    return run.status in _UNDER_WAY and time.time() - record.update_timestamp.timestamp() > START_SECONDS


def jobs_under_way(instance: dg.DagsterInstance, but: str = "", *, waiting: bool = True) -> set[str]:
    """Names of jobs of which a run has not ended.

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
    return {run.job_name for run in runs if run.run_id != but}


def identify(process: psutil.Process) -> str:
    """Host, number and start of a process: numbers are used again."""
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def _is_alive(identity: str) -> bool:
    host, pid, _ = identity.rsplit(":", 2)
    if host != socket.gethostname():
        return True  # nothing is known of processes elsewhere
    try:
        process = psutil.Process(int(pid))
        return identify(process) == identity and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
