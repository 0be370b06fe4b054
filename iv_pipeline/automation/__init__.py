"""Jobs, and what starts them on its own: sensors and a schedule."""

from iv_pipeline.automation.inbox import build_inbox_sensor
from iv_pipeline.automation.jobs import FULL_PIPELINE, PREPARE, SUMMARISE, build_jobs
from iv_pipeline.automation.refits import build_refit_schedule
from iv_pipeline.automation.reports import report_after_batches
from iv_pipeline.automation.summaries import summarise_after_backfill

__all__ = [
    "FULL_PIPELINE",
    "PREPARE",
    "SUMMARISE",
    "build_inbox_sensor",
    "build_jobs",
    "build_refit_schedule",
    "report_after_batches",
    "summarise_after_backfill",
]
