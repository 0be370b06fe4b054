"""What Dagster loads: assets with their checks, the IO manager, jobs, sensors and the schedule."""

import dagster as dg

from iv_pipeline.assets import STAGES
from iv_pipeline.automation import (
    build_inbox_sensor,
    build_jobs,
    build_refit_schedule,
    report_after_batches,
    summarise_after_backfill,
)
from iv_pipeline.config import Settings
from iv_pipeline.engine import use_cluster
from iv_pipeline.progress import console
from iv_pipeline.storage.io_managers import StageStore


def build_definitions(settings: Settings) -> dg.Definitions:
    """The pipeline for one data root, delivery and configuration."""
    use_cluster(settings.config.engine.scheduler)
    partitions = dg.StaticPartitionsDefinition(settings.config.partitions)
    return dg.Definitions(
        assets=[stage.to_asset(partitions) for stage in STAGES],
        resources={
            "settings": dg.ResourceDefinition.hardcoded_resource(settings),
            "io_manager": StageStore(data_root=str(settings.data_root)),
        },
        jobs=build_jobs(),
        sensors=[summarise_after_backfill, build_inbox_sensor(settings.config.inbox), report_after_batches],
        schedules=[build_refit_schedule(settings.config.refit)],
        loggers={"console": console},
        # a process a run, not a step: imports and compiled code are paid for once a partition
        executor=dg.in_process_executor,
    )


defs = build_definitions(Settings.from_environment())
