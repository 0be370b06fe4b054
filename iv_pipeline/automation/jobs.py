"""Jobs.

Assets with and without partitions do not share a job: in one job the latter would run again with every partition,
and a fan-in before its partitions exist. So there is a job before, one for each descriptor, and one after.
"""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

PREPARE = ("image_index", "views", "image_quality", "joint_features", "groups", "ranked_outliers")
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
    "final",
    "changes",
)
FULL_PIPELINE = ("init", "statistics", "scaled", *RECLUSTER)
SUMMARISE = (
    "comparison",
    "crossings",
    "disagreements",
    "ranking",
    "attributes",
    "review",
    "evaluation",
    "descriptor_accuracy",
    "summary",
    "accepted_models",
    "report",
)
_JOBS = {
    "prepare": (
        PREPARE,
        "What is not partitioned and comes first: image index, views, pictures, joint features, outliers.",
    ),
    "full_pipeline": (FULL_PIPELINE, "One descriptor from Init to Final. Backfill it over all descriptors."),
    "recluster": (
        RECLUSTER,
        "One descriptor from its statistics to Final: reduction, clustering and what follows.",
    ),
    "summarise": (
        SUMMARISE,
        "What looks at all descriptors: comparison, attributes, evaluation, accepted models, report.",
    ),
    "label_batch": (
        ("labelled_batch", "drift"),
        "A batch of the inbox: its labels by the accepted models, and whether these still fit it.",
    ),
    "refit": (
        ("refits",),
        "Takes what has come since into the fit, and accepts the new one if it is not worse.",
    ),
    "answer": (
        ("attributes", "review", "descriptor_accuracy"),
        "After answers in Names: attributes of every image, what to ask next, which descriptor tells what.",
    ),
    "refresh_report": (("report",), "The report alone, from what is there."),
}
"""Name, assets and description."""


def build_jobs() -> list[UnresolvedAssetJobDefinition]:
    """All jobs."""
    return [
        dg.define_asset_job(name, dg.AssetSelection.assets(*assets), description=description)
        for name, (assets, description) in _JOBS.items()
    ]
