"""The sensor that has the descriptors of a finished backfill summarised."""

from collections.abc import Mapping
from datetime import datetime

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from iv_pipeline.processes import UNFINISHED

MAKE_FINAL = ("full_pipeline", "recluster")
"""Jobs with partitions, of which `final` is one of the assets."""
BACKFILL_TAG = "dagster/backfill"
PARTITION_TAG = "dagster/partition"
_UNDER_WAY = (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING)


@dg.sensor(
    job_name="summarise",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts `summarise` once after every backfill that made `final` anew and no summary.",
)
def summarise_after_backfill(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Start `summarise` when a backfill has no run left; the run key makes it once for each.

    The status of a backfill alone does not tell: `dagster job backfill` calls it completed when its runs are
    queued.
    """
    since = datetime.fromisoformat(context.cursor) if context.cursor else None
    successes = _last_successes(context.instance, since)
    found = {name: context.instance.get_backfill(name) for name in successes}
    running = {name for name, backfill in found.items() if _is_running(context.instance, name, backfill)}
    ended = {
        name: successes[name]
        for name, backfill in found.items()
        if name not in running and backfill is not None and needs_summary(backfill)
    }
    # a backfill that still runs has to be seen again, so the cursor waits for it
    cursor = context.cursor if running or not successes else max(successes.values()).isoformat()
    if not ended:
        waits = f"backfill {', '.join(sorted(running))} still runs"
        return dg.SensorResult(skip_reason=waits if running else "no backfill has ended", cursor=cursor)
    latest = max(ended, key=ended.__getitem__)  # its summary shows what the others made too
    request = dg.RunRequest(run_key=latest, tags={"iv/after_backfill": latest})
    return dg.SensorResult(run_requests=[request], cursor=cursor)


def needs_summary(backfill: PartitionBackfill) -> bool:
    """Whether it makes `final` anew, and not the summary itself."""
    if backfill.asset_selection is None:
        return backfill.job_name in MAKE_FINAL
    selected = {key.to_user_string() for key in backfill.asset_selection}
    return "final" in selected and "summary" not in selected


def _last_successes(instance: dg.DagsterInstance, since: datetime | None) -> Mapping[str, datetime]:
    """Backfills of which a partition has been made after `since`, and when the last one was."""
    succeeded = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], updated_after=since)
    last: dict[str, datetime] = {}
    for record in instance.get_run_records(succeeded, ascending=True):
        tags = record.dagster_run.tags
        if BACKFILL_TAG in tags and PARTITION_TAG in tags:
            name = tags[BACKFILL_TAG]
            last[name] = max(record.update_timestamp, last.get(name, record.update_timestamp))
    return last


def _is_running(instance: dg.DagsterInstance, name: str, backfill: PartitionBackfill | None) -> bool:
    """Whether more partitions may come; a backfill that is not stored yet is still submitting its runs."""
    unfinished = dg.RunsFilter(tags={BACKFILL_TAG: name}, statuses=UNFINISHED)
    return backfill is None or backfill.status in _UNDER_WAY or instance.get_runs_count(unfinished) > 0
