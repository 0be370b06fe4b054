"""The sensor that has the report made anew when batches or refits have changed what it tells."""

import dagster as dg
from upath import UPath

from iv_pipeline.automation.attempts import next_attempt, run_key
from iv_pipeline.config import Settings
from iv_pipeline.processes import jobs_under_way
from iv_pipeline.storage.layout import file_of

MAKERS = {"label_batch", "refit", "full_pipeline", "recluster", "summarise", "refresh_report"}
"""While one of them runs, what there is to tell still changes."""
NEWS_TAG = "iv_pipeline/news"
"""When what a report is made for was written, seconds."""


@dg.sensor(
    job_name="refresh_report",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes the report anew once batches have been labelled or another version is in force.",
)
def report_after_batches(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    """Start `refresh_report` when it is needed."""
    return refresh_report(context.instance, settings)


def refresh_report(instance: dg.DagsterInstance, settings: Settings) -> dg.SensorResult:
    """Start `refresh_report` when the report is older than what it tells, and nothing is being made."""
    report = settings.data_root / file_of("report")
    if not report.exists():
        return dg.SensorResult(skip_reason="there is no report yet: 'summarise' makes the first")
    newest = max((path.stat().st_mtime for path in _told_by(settings.data_root)), default=0.0)
    if report.stat().st_mtime >= newest:
        return dg.SensorResult(skip_reason="the report tells all there is")
    busy = jobs_under_way(instance) & MAKERS
    if busy:
        return dg.SensorResult(skip_reason=f"{', '.join(sorted(busy))} is under way")
    news = f"{newest:.3f}"
    attempt = next_attempt(instance, {NEWS_TAG: news})
    if isinstance(attempt, str):
        return dg.SensorResult(skip_reason=attempt)
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key(news, attempt), tags={NEWS_TAG: news})])


def _told_by(data_root: UPath) -> list[UPath]:
    """Files whose news the report tells."""
    drift = (data_root / file_of("drift", "*")).parent
    files = [data_root / file_of("accepted_models"), data_root / file_of("refits")]
    return [path for path in (*files, *(drift.glob("*.parquet") if drift.is_dir() else ())) if path.exists()]
