"""Dagster assets, one module per stage; each names its inputs, calls one function and says what to show."""

from iv_pipeline.assets.accepted_models import accepted_models
from iv_pipeline.assets.attributes import attributes, review
from iv_pipeline.assets.changes import changes
from iv_pipeline.assets.cluster_profiles import cluster_profiles
from iv_pipeline.assets.clustered import clustered
from iv_pipeline.assets.clustering_trials import clustering_trials
from iv_pipeline.assets.clusters import clusters
from iv_pipeline.assets.comparison import comparison, crossings, disagreements, ranking
from iv_pipeline.assets.drift import drift
from iv_pipeline.assets.evaluation import descriptor_accuracy, evaluation
from iv_pipeline.assets.final import final, ranked_outliers, summary
from iv_pipeline.assets.hierarchy import hierarchy
from iv_pipeline.assets.image_index import image_index
from iv_pipeline.assets.image_quality import image_quality
from iv_pipeline.assets.init import init
from iv_pipeline.assets.joint_features import groups, joint_features
from iv_pipeline.assets.labelled_batch import labelled_batch
from iv_pipeline.assets.model import model
from iv_pipeline.assets.neighbors import neighbors
from iv_pipeline.assets.outliers import outliers
from iv_pipeline.assets.pca import pca
from iv_pipeline.assets.projection import projection
from iv_pipeline.assets.refits import refits
from iv_pipeline.assets.report import report
from iv_pipeline.assets.representation import representation
from iv_pipeline.assets.scaled import scaled
from iv_pipeline.assets.scaled_pca import scaled_pca
from iv_pipeline.assets.stage import Stage
from iv_pipeline.assets.statistics import statistics
from iv_pipeline.assets.views import views

STAGES: tuple[Stage, ...] = (
    image_index,
    views,
    image_quality,
    joint_features,
    groups,
    init,
    statistics,
    scaled,
    pca,
    scaled_pca,
    clustering_trials,
    representation,
    neighbors,
    hierarchy,
    clusters,
    clustered,
    outliers,
    projection,
    cluster_profiles,
    model,
    final,
    changes,
    comparison,
    crossings,
    disagreements,
    ranking,
    ranked_outliers,
    attributes,
    review,
    evaluation,
    descriptor_accuracy,
    summary,
    accepted_models,
    labelled_batch,
    drift,
    refits,
    report,
)
"""Every stage, in the order of the pipeline."""
