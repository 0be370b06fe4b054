"""Jobs.

Assets with and without partitions do not share a job: in one job the latter would run again with every partition,
and a fan-in before its partitions exist. So there is a job before, one for each descriptor, and one after.
"""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

PREPARE = ("image_index", "views", "image_quality")
RECLUSTER = (
    "pca",
    "scaled_pca",
    "clustering_trials",
    "representation",
    "neighbors",
    "hierarchy",
    "clusters",
    "outliers",
    "projection",
    "cluster_profiles",
    "model",
    "evaluation",
    "final",
    "changes",
)
FULL_PIPELINE = ("init", "statistics", "scaled", *RECLUSTER)
SUMMARISE = (
    "comparison",
    "crossings",
    "disagreements",
    "ranking",
    "ranked_outliers",
    "summary",
    "accepted_models",
    "report",
)
LABEL_BATCH = ("labelled_batch", "drift")


def build_jobs() -> list[UnresolvedAssetJobDefinition]:
    """All jobs."""
    return [
        dg.define_asset_job(
            "prepare",
            dg.AssetSelection.assets(*PREPARE),
            description="What is not partitioned and comes first: image index, views, quality of the pictures.",
        ),
        dg.define_asset_job(
            "full_pipeline",
            dg.AssetSelection.assets(*FULL_PIPELINE),
            description="One descriptor from Init to Final. Backfill it over all descriptors.",
        ),
        dg.define_asset_job(
            "recluster",
            dg.AssetSelection.assets(*RECLUSTER),
            description="One descriptor from its statistics to Final: reduction, clustering and what follows.",
        ),
        dg.define_asset_job(
            "summarise",
            dg.AssetSelection.assets(*SUMMARISE),
            description="What looks at all descriptors: comparison, outliers, summary, accepted models, report.",
        ),
        dg.define_asset_job(
            "label_batch",
            dg.AssetSelection.assets(*LABEL_BATCH),
            description="A batch of the inbox: its labels by the accepted models, and whether these still fit it.",
        ),
        dg.define_asset_job(
            "refit",
            dg.AssetSelection.assets("refits"),
            description="Takes what has come since into the fit, and accepts the new one if it is not worse.",
        ),
        dg.define_asset_job(
            "refresh_report",
            dg.AssetSelection.assets("report"),
            description="The report alone, from what is there.",
        ),
    ]
