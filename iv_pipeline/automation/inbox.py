"""What notices batches in the inbox, and starts one run for each."""

from collections.abc import Sequence

import dagster as dg

from iv_pipeline.assets.labelled_batch import CONTENT_TAG
from iv_pipeline.assets.stage import BATCHES
from iv_pipeline.config import OWN_FILE, InboxConfig, Settings
from iv_pipeline.errors import InputError
from iv_pipeline.processes import end_stale_runs
from iv_pipeline.storage.batches import labelled_facts
from iv_pipeline.storage.inbox import Batch, Rules, Watch, look
from iv_pipeline.storage.layout import WATCH
from iv_pipeline.storage.versions import accepted

BATCH_TAG = "iv_pipeline/batch"
MAX_ATTEMPTS = 3
"""Of a run whose process dies; one that fails by itself is not started again before the batch has changed."""
_INTERRUPTED = ("DagsterExecutionInterruptedError", "RunCancelledError", "KeyboardInterrupt")


def build_inbox_sensor(config: InboxConfig) -> dg.SensorDefinition:
    """What looks into the inbox every few seconds."""

    @dg.sensor(
        name="inbox",
        job_name="label_batch",
        minimum_interval_seconds=config.look_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notices complete batches in the inbox, registers each as a partition, has it labelled once.",
    )
    def inbox(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
        end_stale_runs(context.instance)
        return notice_batches(context.instance, settings)

    return inbox


def notice_batches(instance: dg.DagsterInstance, settings: Settings) -> dg.SensorResult:
    """Start `label_batch` for every batch that is complete and whose content was not labelled before.

    What was labelled is known from the labels themselves, and what is being labelled from the runs, so that
    neither a lost cursor nor a new instance has a batch labelled twice.
    """
    if not settings.inbox.is_dir():
        return dg.SensorResult(
            skip_reason=f"there is no inbox at {settings.inbox}: make the folder to use it"
        )
    try:
        models = accepted(settings.data_root)
        batches = _look(settings)
    except InputError as error:
        return dg.SensorResult(skip_reason=str(error))
    if models is None and batches:
        return dg.SensorResult(
            skip_reason=f"{len(batches)} batches wait for models: run the pipeline, summarise included, first"
        )
    labelled = {facts["batch"]: facts["fingerprint"] for facts in labelled_facts(settings.data_root)}
    requests, waiting = [], []
    for batch in batches:
        if batch.state != "complete":
            waiting.append(f"{batch.name}: {batch.why}")
        elif labelled.get(batch.name) != batch.fingerprint:
            attempt = _next_attempt(instance, batch)
            if isinstance(attempt, int):
                requests.append(_request(batch, attempt))
            else:
                waiting.append(f"{batch.name}: {attempt}")
    if not requests:
        return dg.SensorResult(skip_reason="; ".join(waiting) or "nothing new in the inbox")
    names = [str(request.partition_key) for request in requests]
    return dg.SensorResult(
        run_requests=requests, dynamic_partitions_requests=[BATCHES.build_add_request(names)]
    )


def _look(settings: Settings) -> list[Batch]:
    config = settings.config
    path = settings.data_root / WATCH
    watch = Watch.load(path)
    rules = Rules(
        config.inbox.marker, config.inbox.settle_seconds, frozenset({config.delivery.paths, OWN_FILE})
    )
    batches = look(settings.inbox, watch, rules)
    watch.save(path)
    return batches


def _request(batch: Batch, attempt: int) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{batch.name}:{batch.fingerprint}" + (f":{attempt}" if attempt > 1 else ""),
        partition_key=batch.name,
        tags={BATCH_TAG: batch.name, CONTENT_TAG: batch.fingerprint},
    )


def _next_attempt(instance: dg.DagsterInstance, batch: Batch) -> int | str:
    """Number of the run to start for this content, or why none is."""
    tags = {BATCH_TAG: batch.name, CONTENT_TAG: batch.fingerprint}
    records = instance.get_run_records(dg.RunsFilter(tags=tags))
    if not records:
        return 1
    last = records[0].dagster_run
    if not last.is_finished:
        return "is being labelled"
    if last.status == dg.DagsterRunStatus.SUCCESS:
        return len(records) + 1  # its labels are gone, or of another content that was there in between
    if last.status == dg.DagsterRunStatus.CANCELED or _failed_by_itself(instance, last.run_id):
        return (
            f"run {last.run_id[:8]} ended without labels: mend the batch, or start that run again in the UI"
        )
    if len(records) >= MAX_ATTEMPTS:
        return f"its run died {len(records)} times: look at run {last.run_id[:8]}"
    return len(records) + 1


def _failed_by_itself(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a step failed for a reason of its own, and not since its process was ended."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return any(not _was_interrupted(events, i) for i in range(len(events)))


def _was_interrupted(events: Sequence[dg.EventLogEntry], index: int) -> bool:
    event = events[index].dagster_event
    error = event.step_failure_data.error if event is not None else None
    while error is not None:
        if error.cls_name in _INTERRUPTED:
            return True
        error = error.cause
    return False
