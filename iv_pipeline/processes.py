"""Which process executes a run: one that died is told from one that works on, and its run holds nobody up."""

import socket
import time

import dagster as dg
import psutil

PROCESS_TAG = "iv_pipeline/process"
"""Of a run: host, number and start of the process that executes it."""
START_SECONDS = 120
"""A run that has not come to its first step by then never will; should it all the same, Dagster stops it there."""

_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def mark_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Say that this process executes `run`."""
    identity = _identify(psutil.Process())
    if run.tags.get(PROCESS_TAG) != identity:
        instance.add_run_tags(run.run_id, {PROCESS_TAG: identity})


def end_stale_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs whose process is gone as failed: left alone, they would hold the heavy pool for ever."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY)):
        if is_stale(record):
            instance.report_run_failed(record.dagster_run, "The process that ran it is gone.")


def is_stale(record: dg.RunRecord) -> bool:
    """Whether a run is under way by its status alone."""
    run = record.dagster_run
    process = run.tags.get(PROCESS_TAG)
    if process is not None:
        return run.status in _UNDER_WAY and not _is_alive(process)
    return run.status in _UNDER_WAY and time.time() - record.update_timestamp.timestamp() > START_SECONDS


def _identify(process: psutil.Process) -> str:
    """Host, number and start of a process: numbers are used again."""
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def _is_alive(identity: str) -> bool:
    host, pid, _ = identity.rsplit(":", 2)
    if host != socket.gethostname():
        return True  # nothing is known of processes elsewhere
    try:
        process = psutil.Process(int(pid))
        return _identify(process) == identity and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
