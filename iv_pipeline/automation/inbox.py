"""What notices batches in the inbox, and starts one run for each."""

from collections.abc import Collection

import dagster as dg

from iv_pipeline.assets.arrival import CONTENT_TAG
from iv_pipeline.assets.stage import BATCHES
from iv_pipeline.automation.attempts import next_attempt, run_key
from iv_pipeline.config import OWN_FILE, InboxConfig, Settings
from iv_pipeline.errors import InputError, reason_of
from iv_pipeline.processes import only_fit
from iv_pipeline.storage.batches import labelled_facts
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.inbox import Batch, Rules, Watch, look
from iv_pipeline.storage.layout import WATCH, file_of
from iv_pipeline.storage.versions import accepted, settle

BATCH_TAG = "iv_pipeline/batch"


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
        try:
            _finish(context, settings)
            return notice_batches(context.instance, settings)
        except OSError as error:  # a disk that is full, away or closed to us is told, and tried again
            return _skip(reason_of(error, settings.data_root))

    return inbox


def _finish(context: dg.SensorEvaluationContext, settings: Settings) -> None:
    """Finish what a process did not live to finish, unless somebody makes a fit: it would be theirs."""
    with only_fit(context.instance, beside={"refit"}, wait=0) as busy:
        if busy:
            return
        if done := settle(settings.data_root):
            context.log.warning("%s had not been finished: its files are in place now", done)
            models = accepted(settings.data_root)
            context.instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    "accepted_models",
                    metadata={"version": models.version if models else 0},
                    description=f"{done}, finished by the sensor",
                )
            )


def notice_batches(instance: dg.DagsterInstance, settings: Settings) -> dg.SensorResult:
    """Start `label_batch` for every batch that is complete and whose content was not labelled before.

    What was labelled is known from the labels themselves, and what is being labelled from the runs, so that
    neither a lost cursor nor a new instance has a batch labelled twice.
    """
    if not settings.inbox.is_dir():
        return _skip(f"there is no inbox at {settings.inbox}; make the folder to use it")
    try:
        models = accepted(settings.data_root)
        batches = _look(settings)
        labelled = _done(settings, {batch.name for batch in batches})
    except InputError as error:
        return _skip(str(error))
    if models is None and batches:
        return _skip(f"{len(batches)} batches wait for models; run the pipeline, summarise included, first")
    requests, waiting = [], []
    for batch in batches:
        if batch.state != "complete":
            waiting.append(f"{batch.name}: {batch.why}")
        elif labelled.get(batch.name) != batch.fingerprint:
            # one that succeeded left labels that are gone, or of content that was there in between
            attempt = next_attempt(instance, tags_of(batch), after_success=True)
            if isinstance(attempt, int):
                requests.append(_request(batch, attempt))
            else:
                waiting.append(f"{batch.name}: {attempt}")
    if not requests:
        return _skip("; ".join(waiting) or "nothing new in the inbox")
    names = [str(request.partition_key) for request in requests]
    return dg.SensorResult(
        run_requests=requests, dynamic_partitions_requests=[BATCHES.build_add_request(names)]
    )


def _skip(reason: str) -> dg.SensorResult:
    """No run, and why; names of files that are in no encoding are spelled out, for they could not be stored."""
    return dg.SensorResult(skip_reason=reason.encode(errors="backslashreplace").decode())


def _done(settings: Settings, names: Collection[str]) -> dict[str, str]:
    """Content of each of some batches that has been labelled, and whose drift is of those labels."""
    done = {}
    for facts in labelled_facts(settings.data_root):
        drift = settings.data_root / file_of("drift", facts["batch"])
        if facts["batch"] in names and drift.exists():
            measured = read_parquet(drift)["labelled_at"]  # times of files change where they are copied
            if (measured == facts["labelled_at"]).all():
                done[facts["batch"]] = facts["fingerprint"]
    return done


def _look(settings: Settings) -> list[Batch]:
    config = settings.config
    path = settings.data_root / WATCH
    watch = Watch.load(path)
    rules = Rules(
        config.inbox.marker, config.inbox.settle_seconds, frozenset({config.delivery.paths, OWN_FILE})
    )
    try:
        return look(settings.inbox, watch, rules)
    finally:
        watch.save(path)  # also what was read of a large file before something went wrong


def tags_of(batch: Batch) -> dict[str, str]:
    """Of every run that labels this content."""
    return {BATCH_TAG: batch.name, CONTENT_TAG: batch.fingerprint}


def _request(batch: Batch, attempt: int) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run_key(f"{batch.name}:{batch.fingerprint}", attempt),
        partition_key=batch.name,
        tags=tags_of(batch),
    )
