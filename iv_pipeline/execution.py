"""Runs of jobs from the command line: in this process, or those of several descriptors side by side.

Most stages use one core: a process for each core keeps all of them busy. Dagster executes every run, and its
history shows them like any others.
"""

from __future__ import annotations

import errno
import functools
import multiprocessing
import os
import shutil
import sqlite3
import uuid
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from iv_pipeline.errors import InputError, reason_of, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.process import BaseProcess

    import dagster as dg
    from dagster._core.execution.plan.objects import StepFailureData

END_SECONDS = 10
"""What a process is given to tell Dagster that its run ends, before it is killed."""
BYTES_OF_A_PROCESS = 1_000_000_000
BYTES_OF_A_ROW = 12_000
"""Anonymous memory of the largest stage, pictures included: at most 5 GB were measured at 416,314 images."""
SIDE_BY_SIDE_ROWS = 100_000
"""Images beyond which stages keep all cores busy by themselves: of 416,314, trials left out, a descriptor took 145
to 230 s alone on two cores, two beside each other took 298 to 512 s and twice the memory."""
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files of control groups, versions 2 and 1, with a number of bytes or "max"."""
_LITTLE = 1 << 20
"""Free bytes below which a history that cannot be written has met a full disk, whatever SQLite calls it."""
_HISTORY = "look at its disk and permissions, or name another folder in DAGSTER_HOME"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    succeeded
        Whether every stage did.
    failures
        Why stages failed, a sentence or a traceback each.
    notices
        Sentences that its stages had to say about their input, in their order.
    """

    succeeded: bool
    failures: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def execute(
    definitions: dg.Definitions, instance: dg.DagsterInstance, job: str, partition: str | None = None
) -> Outcome:
    """Run a job in this process, so that imports and compiled code are paid for once.

    Parameters
    ----------
    definitions
        That have the job.
    instance
        Whose history it enters.
    job
        Its name.
    partition
        Descriptor or combination, if the job is partitioned.

    Raises
    ------
    KeyboardInterrupt
        If the run was interrupted; its history has ended by then.
    """
    from iv_pipeline.assets.stage import noticed
    from iv_pipeline.processes import process_tags

    run_id = str(uuid.uuid4())
    tags = process_tags(run_id)  # from the start: a run may be interrupted before its first step
    result = definitions.resolve_job_def(job).execute_in_process(
        run_config={"loggers": {"console": {}}},
        instance=instance,
        partition_key=partition,
        raise_on_error=False,
        run_id=run_id,
        tags=tags,
    )
    if any(_is_interruption(event) for event in result.all_events):
        raise KeyboardInterrupt
    of = f" of {partition}" if partition else ""
    failures = [
        f"{event.step_key}{of} failed: {_reason(event.step_failure_data)}"
        for event in result.all_events
        if event.is_step_failure
    ]
    notices = dict.fromkeys(notice for event in result.all_events for notice in noticed(event))
    return Outcome(bool(result.success), tuple(failures), tuple(notices))


def choose_processes(n_rows: int, n_runs: int) -> int:
    """How many runs to execute at once: one a core, as many as there is memory for; one of a large delivery.

    Parameters
    ----------
    n_rows
        Images of the delivery.
    n_runs
        Runs there are.
    """
    from iv_pipeline.engine import n_workers

    if n_rows > SIDE_BY_SIDE_ROWS:
        return 1
    fitting = _available_bytes() // (BYTES_OF_A_PROCESS + n_rows * BYTES_OF_A_ROW)
    return max(1, min(n_runs, n_workers(), fitting))


def _available_bytes() -> int:
    """Memory that is free, and no more than the container that this runs in may have."""
    free = int(psutil.virtual_memory().available)
    limits = [path.read_text().strip() for path in _CONTAINER_LIMITS if path.exists()]
    return min([free, *(int(limit) for limit in limits if limit.isdecimal())])


def execute_side_by_side(
    job: str, partitions: Sequence[str], n_processes: int
) -> Iterator[tuple[str, Outcome]]:
    """Run a job for several partitions in processes of their own; yields each as it ends.

    Results do not depend on the number of processes.

    Parameters
    ----------
    job
        Its name in the definitions that the environment describes.
    partitions
        Descriptors and combinations, in the order in which they are started.
    n_processes
        Runs at once; each may use its share of the cores.
    """
    from iv_pipeline.engine import n_workers

    pool = ProcessPoolExecutor(
        n_processes,
        multiprocessing.get_context("spawn"),  # threads of this process would not survive a fork
        initializer=_start_worker,
        initargs=(max(1, n_workers() // n_processes),),
    )
    try:
        names = {pool.submit(_execute_one, job, name): name for name in partitions}
        for future in as_completed(names):
            try:
                yield names[future], future.result()
            except BrokenProcessPool:
                _end(multiprocessing.active_children(), 0)
                yield names[future], Outcome(succeeded=False, failures=(_killed(names[future]),))
    except BaseException:  # an interrupt: what waits is not begun, what runs has a moment to end its history
        pool.shutdown(wait=False, cancel_futures=True)
        _end(multiprocessing.active_children(), END_SECONDS)
        raise
    finally:
        pool.shutdown()


def _end(workers: Sequence[BaseProcess], seconds: float) -> None:
    """End processes: of SIGTERM Dagster makes the end of their runs, which may not be the end of them."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(seconds)
        worker.kill()
        worker.join()


def _killed(partition: str) -> str:
    return sentence(
        "its process, or one beside it, was killed, most often for want of memory",
        partition,
        "run fewer descriptors at once: iv-pipeline run --processes 1",
    )


def _start_worker(n_threads: int) -> None:
    """Share the cores, before NumPy is loaded, whose BLAS looks at it then; and end with the parent."""
    os.environ["IV_THREADS"] = str(n_threads)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, str(n_threads))
    from iv_pipeline.engine import end_with_parent

    end_with_parent()


def _execute_one(job: str, partition: str) -> Outcome:
    import dagster as dg

    try:
        with dg.DagsterInstance.get() as instance:
            return execute(_definitions(), instance, job, partition)
    except KeyboardInterrupt:
        os._exit(1)  # Dagster knows; the pool would begin what it has queued already
    except Exception as error:  # on its way to the parent it would lose what caused it
        said = one_sentence(error)
        if said is None:
            raise
        return Outcome(succeeded=False, failures=(f"{partition}: {said}",))


def _is_interruption(event: dg.DagsterEvent) -> bool:
    reason = getattr(event.event_specific_data, "failure_reason", None)
    return getattr(reason, "name", "") == "UNEXPECTED_TERMINATION"


def one_sentence(error: BaseException | None) -> str | None:
    """What is wrong with the input or the machine, of an error or what caused it; None if it is neither."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        if isinstance(error, OSError):
            return reason_of(error)
        if isinstance(error, sqlite3.Error):
            home = os.environ.get("DAGSTER_HOME", "")
            if "full" in str(error) or (home and shutil.disk_usage(home).free < _LITTLE):
                return reason_of(OSError(errno.ENOSPC, str(error)), home)
            return sentence(f"Dagster's history cannot be used ({error})", home, _HISTORY)
        error = error.__cause__ or error.__context__
    return None


@functools.cache
def _definitions() -> dg.Definitions:
    from iv_pipeline.config import Settings
    from iv_pipeline.definitions import build_definitions

    return build_definitions(Settings.from_environment())


def _reason(failure: StepFailureData) -> str:
    """The one sentence of wrong input or of a failed check, or the error with its traceback."""
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    error = failure.error
    if error is not None and error.cls_name == "DagsterAssetCheckFailedError":
        asset, _, checks = error.message.strip().splitlines()[-1].partition(": ")
        return sentence(
            f"the result does not pass the check {checks.replace(',', ', ')}",
            asset,
            "look at what it measured in Dagster's UI: make ui",
        )
    return str(failure.error_display_string)
