"""Jobs, and what starts them on its own.

Assets with and without partitions do not share a job: in one job the latter would run again with every partition,
and a fan-in before its partitions exist. So there is a job before, one for each descriptor, and one after.
"""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

PREPARE = ("image_index", "views", "image_quality")
RECLUSTER = (
    "pca",
    "scaled_pca",
    "clustering_trials",
    "neighbors",
    "hierarchy",
    "clusters",
    "outliers",
    "projection",
    "cluster_profiles",
    "final",
)
FULL_PIPELINE = ("init", "statistics", "scaled", *RECLUSTER)
SUMMARISE = ("comparison", "ranked_outliers", "summary", "report")

FINISHED = (BulkActionStatus.COMPLETED_SUCCESS, BulkActionStatus.COMPLETED_FAILED)


def build_jobs(partitions: dg.PartitionsDefinition[str]) -> list[UnresolvedAssetJobDefinition]:
    """The four jobs."""
    return [
        dg.define_asset_job(
            "prepare",
            dg.AssetSelection.assets(*PREPARE),
            description="What is not partitioned and comes first: image index, views, quality of the pictures.",
        ),
        dg.define_asset_job(
            "full_pipeline",
            dg.AssetSelection.assets(*FULL_PIPELINE),
            partitions_def=partitions,
            description="One descriptor from Init to Final. Backfill it over all descriptors.",
        ),
        dg.define_asset_job(
            "recluster",
            dg.AssetSelection.assets(*RECLUSTER),
            partitions_def=partitions,
            description="One descriptor from its statistics to Final: reduction, clustering and what follows.",
        ),
        dg.define_asset_job(
            "summarise",
            dg.AssetSelection.assets(*SUMMARISE),
            description="What looks at all descriptors: comparison, ranked outliers, summary, report.",
        ),
    ]


@dg.sensor(
    job_name="summarise",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts `summarise` once after every backfill of `full_pipeline` or `recluster`.",
)
def summarise_after_backfill(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Start `summarise` for backfills that ended since the last look; the run key makes it once for each."""
    began = float(context.cursor) if context.cursor else 0.0
    backfills = [b for b in context.instance.get_backfills() if b.backfill_timestamp > began]
    ended = [b for b in backfills if b.status in FINISHED and _needs_summary(b)]
    if not ended:
        return dg.SkipReason("no backfill of full_pipeline or recluster has ended since the last look")
    running = [b.backfill_timestamp for b in backfills if b.status not in FINISHED]
    # a backfill that is still running may end after younger ones: the cursor stays before it
    through = [
        b.backfill_timestamp for b in ended if b.backfill_timestamp < min(running, default=float("inf"))
    ]
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=b.backfill_id, tags={"iv/after_backfill": b.backfill_id}) for b in ended
        ],
        cursor=str(max(through)) if through else context.cursor,
    )


def _needs_summary(backfill: PartitionBackfill) -> bool:
    """Whether it is a backfill of a job of ours; one of assets runs the summary itself if it selects it."""
    return backfill.partition_set_name in {
        "full_pipeline_partition_set",
        "recluster_partition_set",
    }
