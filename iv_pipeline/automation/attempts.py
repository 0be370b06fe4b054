"""Whether a run whose process died is started again."""

from collections.abc import Mapping

import dagster as dg

from iv_pipeline.errors import ChangedBatchError

MAX_ATTEMPTS = 3
"""Of a run whose process dies; one that fails by itself is not started again."""
_NOT_ITS_FAULT = (
    *("DagsterExecutionInterruptedError", "RunCancelledError", "KeyboardInterrupt"),
    ChangedBatchError.__name__,
)
"""Errors of a run that was ended, or whose batch was changed under it."""


def next_attempt(
    instance: dg.DagsterInstance, tags: Mapping[str, str], *, after_success: bool = False
) -> int | str:
    """Number of the run to start for what `tags` say, or why none is.

    Parameters
    ----------
    instance
        That knows the runs.
    tags
        Of all runs for the same purpose.
    after_success
        Whether one is started again that succeeded.
    """
    records = instance.get_run_records(dg.RunsFilter(tags=dict(tags)))
    if not records:
        return 1
    last = records[0].dagster_run
    if not last.is_finished:
        return f"run {last.run_id[:8]} is under way"
    if last.status == dg.DagsterRunStatus.SUCCESS:
        return len(records) + 1 if after_success else f"run {last.run_id[:8]} has done it"
    if last.status == dg.DagsterRunStatus.CANCELED or _failed_by_itself(instance, last.run_id):
        return f"run {last.run_id[:8]} ended without a result; correct what it names, or start it again in the UI"
    if len(records) >= MAX_ATTEMPTS:
        return f"its run died {len(records)} times; look at run {last.run_id[:8]}"
    return len(records) + 1


def run_key(purpose: str, attempt: int) -> str:
    """What Dagster knows a run by that it is asked for: the same again is not started twice."""
    return purpose if attempt == 1 else f"{purpose}:{attempt}"


def _failed_by_itself(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a step failed for a reason of its own, and not since its process was ended."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return not all(_was_interrupted(entry.get_dagster_event()) for entry in events)


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name in _NOT_ITS_FAULT:
            return True
        error = error.cause
    return False
