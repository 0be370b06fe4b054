"""Clustering algorithms, a module each, behind one small protocol."""

from iv_pipeline.learn.clustering.agglomerative import Agglomerative
from iv_pipeline.learn.clustering.base import (
    NOISE,
    Algorithm,
    Attachment,
    Clustering,
    Model,
    PrototypeModel,
    Space,
    fit_clusters,
)
from iv_pipeline.learn.clustering.density import DBSCAN, HDBSCAN, NeighborModel
from iv_pipeline.learn.clustering.kmeans import KMeans, MiniBatchKMeans
from iv_pipeline.learn.clustering.leiden import Leiden
from iv_pipeline.learn.clustering.mixture import GaussianMixture, MixtureModel

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        KMeans(),
        MiniBatchKMeans(),
        GaussianMixture(),
        Agglomerative(),
        Leiden(),
        HDBSCAN(),
        DBSCAN(),
    )
}
"""Every algorithm by its name, in the order in which they are tried."""

__all__ = [
    "ALGORITHMS",
    "NOISE",
    "Algorithm",
    "Attachment",
    "Clustering",
    "MixtureModel",
    "Model",
    "NeighborModel",
    "PrototypeModel",
    "Space",
    "fit_clusters",
]
