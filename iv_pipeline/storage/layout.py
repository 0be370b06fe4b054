"""Which file each stage writes, under the data root: the data contract in one place."""

from __future__ import annotations

FILES: dict[str, str] = {
    "image_index": "Init/image_index.parquet",
    "joint_features": "Scaled_PCA_Cluster/joint_features.arrow",
    "groups": "Scaled_PCA_Cluster/groups.arrow",
    "init": "Init/{descriptor}.arrow",
    "statistics": "Init/{descriptor}_statistics.npz",
    "scaled": "Scaled/{descriptor}.arrow",
    "pca": "Scaled_PCA/{descriptor}_pca.npz",
    "scaled_pca": "Scaled_PCA/{descriptor}.arrow",
    "views": "Scaled_PCA_Cluster/views.arrow",
    "clustering_trials": "Scaled_PCA_Cluster/{descriptor}_trials.parquet",
    "representation": "Scaled_PCA_Cluster/{descriptor}_representation.arrow",
    "neighbors": "Scaled_PCA_Cluster/{descriptor}_neighbors.arrow",
    "hierarchy": "Scaled_PCA_Cluster/{descriptor}_hierarchy.npz",
    "clusters": "Scaled_PCA_Cluster/{descriptor}.arrow",
    "clustered": "Clustered/{descriptor}.arrow",
    "outliers": "Outliers/{descriptor}.parquet",
    "image_quality": "Outliers/image_quality.parquet",
    "projection": "Projection/{descriptor}.parquet",
    "cluster_profiles": "Profiles/{descriptor}.parquet",
    "model": "Models/{descriptor}/model.json",
    "final": "Final/{descriptor}.csv",
    "changes": "Changes/{descriptor}.parquet",
    "ranked_outliers": "Final/outliers.csv",
    "attributes": "Final/attributes.csv",
    "review": "Final/review.csv",
    "evaluation": "Final/evaluation.csv",
    "descriptor_accuracy": "Final/descriptor_accuracy.csv",
    "comparison": "Final/comparison.parquet",
    "crossings": "Profiles/crossings.parquet",
    "disagreements": "Final/disagreements.csv",
    "ranking": "Final/ranking.csv",
    "summary": "Final/summary.csv",
    "accepted_models": "Models/accepted.json",
    "labelled_batch": "Final/batches/{batch}/batch.json",
    "drift": "Drift/{batch}.parquet",
    "refits": "Final/refits.csv",
    "report": "Report/index.html",
}
"""Path of each asset's file; ``{descriptor}`` or ``{batch}`` is the partition."""

NAMES = "Names/{descriptor}.csv"
"""Where people name clusters and say which attributes they determine; `groups` and `images` are such names too."""

BATCH_LABELS = "Final/batches/{batch}/{descriptor}.csv"
"""Labels of a batch by one descriptor, or `attributes`; `labelled_batch` says which there are."""

BATCH = "Init/batches/{batch}/{version}"
"""Folder of what a version of a batch holds: its index, its vectors and its pictures."""

MODEL = "Models/{descriptor}/model-{version}.json"
"""A model by its version; the arrays lie beside it."""

MODEL_SET = "Models/versions/{version}"
"""Folder of a set of models that was accepted, and of the results of that fit."""

CANDIDATE = "Models/candidate"
"""Data root of a refit until it is decided on."""

WATCH = "Init/inbox.json"
"""What the sensor has seen of the inbox."""

ATLAS = "Atlas/{descriptor}.parquet"
"""What `iv-pipeline explore` hands to Embedding Atlas."""


def file_of(asset: str, partition: str | None = None) -> str:
    """Path of the file of `asset` under the data root, for a partitioned asset that of a descriptor or batch.

    Raises
    ------
    KeyError
        If there is no such asset.
    """
    return FILES[asset].format(descriptor=partition, batch=partition)
