"""What Dagster loads: assets with their checks, the IO manager, jobs and sensors."""

import dagster as dg

from iv_pipeline.assets import STAGES
from iv_pipeline.automation import build_jobs, summarise_after_backfill
from iv_pipeline.config import Settings
from iv_pipeline.engine import use_cluster
from iv_pipeline.progress import console
from iv_pipeline.storage.io_managers import StageStore

AFTER = {"init": ("views",)}
"""What a stage waits for and does not read.

"Materialize all" makes as much of a descriptor in one run as can start at once: all of it, if its first stage
waits for what its later ones read, and a run a stage otherwise.
"""


def build_definitions(settings: Settings) -> dg.Definitions:
    """The pipeline for one data root, delivery and configuration."""
    use_cluster(settings.config.engine.scheduler)
    partitions = dg.StaticPartitionsDefinition(settings.config.partitions)
    return dg.Definitions(
        assets=[stage.to_asset(partitions, AFTER.get(stage.name, ())) for stage in STAGES],
        resources={
            "settings": dg.ResourceDefinition.hardcoded_resource(settings),
            "io_manager": StageStore(data_root=str(settings.data_root)),
        },
        jobs=build_jobs(),
        sensors=[summarise_after_backfill],
        loggers={"console": console},
        # a process a run, not a step: imports and compiled code are paid for once a partition
        executor=dg.in_process_executor,
    )


defs = build_definitions(Settings.from_environment())
