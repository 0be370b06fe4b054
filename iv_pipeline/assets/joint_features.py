"""Stages `joint_features` and `groups`: all images by all descriptors at once."""

from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.answering import FIT_KEY, table_of_tree, tree_of
from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.init import init_table
from iv_pipeline.assets.representation import embedder_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import GROUPS, Settings
from iv_pipeline.learn.groups import GroupTree, fit_groups
from iv_pipeline.learn.joint_features import embed_rows, fit_joint_features
from iv_pipeline.learn.neighbors import neighbor_graph
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.learn.validity import fit_validity
from iv_pipeline.learn.verdict import anomaly_scores
from iv_pipeline.storage.answers import has_answers
from iv_pipeline.storage.formats import arrays_to_bytes
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, as_strings, read_table, table_from_arrays

MAX_COMPONENTS = 100
"""Of each descriptor: joint features stay narrow enough to be held whole."""
N_NEIGHBORS = 15


@stage(group="delivery", kinds=("arrow", "faiss"), partitioned=False, heavy=True, code_version="2")
def joint_features(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], image_index: pd.DataFrame
) -> Result:
    """Every image in all descriptors at once: whitened components, neighbors, an embedding, anomaly scores.

    Read from the delivery, so that no descriptor waits for another.
    """
    config = settings.config
    delivery = open_delivery(settings)
    matrices = {}
    for name in config.descriptors:
        raw = delivery.vectors(name)
        rule = fit_validity(raw, f"descriptor {name}")
        matrices[name] = init_table(image_index, {name: raw}, rule).vectors("descriptor")
    most = min(MAX_COMPONENTS, config.pca.max_components)
    fitted = fit_joint_features(matrices, variance=config.embedding.variance, max_components=most)
    components = {name: fitted.reductions[name].components(matrix) for name, matrix in matrices.items()}
    anomaly = {
        anomaly_of(name): anomaly_scores(block, config.outliers.contamination, config.seed)
        for name, block in components.items()
    }
    X = fitted.join(components)
    usable = np.flatnonzero(finite_rows(X))
    graph = neighbor_graph(X[usable], N_NEIGHBORS, config.seed)
    indices = np.full((len(X), graph.n_neighbors), -1, np.int32)
    distances = np.full((len(X), graph.n_neighbors), np.nan, np.float32)
    indices[usable] = usable[graph.indices]
    distances[usable] = graph.distances
    embedding = embed_rows(X, fitted.widths, embedder_of(config), config.embedding.landmarks)
    table = table_from_arrays(
        {
            IMAGE_PATH: as_strings(image_index[IMAGE_PATH]),
            "features": X,
            "indices": indices,
            "distances": distances,
            "embedding": embedding,
            **anomaly,
        },
        metadata={FIT_KEY: arrays_to_bytes(fitted.to_arrays())},
    )
    widths = pd.DataFrame({"descriptor": list(fitted.reductions), "components": fitted.widths})
    return Result(
        table,
        lambda: {
            "without_features": len(X) - len(usable),
            "recall": graph.recall,
            "components": dg.MetadataValue.md(widths.to_markdown(index=False)),
        },
    )


def anomaly_of(descriptor: str) -> str:
    """The column of a descriptor's anomaly scores."""
    return f"anomaly/{descriptor}"


@stage(
    group="clustering",
    kinds=("arrow",),
    partitioned=False,
    checks={"every_image_in_a_group": "Has every usable image a group?"},
)
def groups(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], joint_features: VectorTable
) -> Result:
    """Groups of images that all descriptors find alike, and a tree of them: what people are asked about.

    Groups that people have answered about stay as they are, however the images come to lie; new images join the
    group that most of their neighbors are in.
    """
    embedding = joint_features.vectors("embedding").to_array()
    paths = joint_features.column(IMAGE_PATH)
    usable = finite_rows(embedding)
    tree = None
    if has_answers(settings.data_root, GROUPS):
        tree = _grown(settings, paths.to_pandas(), joint_features, usable)
    made_anew = tree is None
    if tree is None:
        tree = fit_groups(embedding, settings.config.seed)
    table = table_of_tree(paths, tree)
    grouped = bool((tree.leaf[usable] >= 0).all())
    return Result(
        table,
        lambda: {"leaves": tree.n_leaves, "made_anew": made_anew},
        lambda: [Check("every_image_in_a_group", grouped, {"leaves": tree.n_leaves})],
    )


def _grown(
    settings: Settings, paths: "pd.Series[str]", joint_features: VectorTable, usable: np.ndarray
) -> GroupTree | None:
    """The tree before, with the images of today; None if there was none, or it was of other images."""
    path = settings.data_root / file_of("groups")
    if not path.exists():
        return None
    before = read_table(path)
    known = pd.Series(before.column("leaf").to_numpy(), index=before.column(IMAGE_PATH).to_pandas())
    leaf = known.reindex(paths, fill_value=-1).to_numpy(np.int32, copy=True)
    leaf[~usable] = -1
    if not (leaf >= 0).any():
        return None
    return replace(tree_of(before), leaf=_joined(leaf, usable, joint_features))


def _joined(leaf: np.ndarray, usable: np.ndarray, joint_features: VectorTable) -> np.ndarray:
    """Leaves of all usable images: those without one get the leaf of most of their neighbors, round by round."""
    indices = joint_features.vectors("indices").to_array()
    leaf = leaf.copy()
    while len(left := np.flatnonzero(usable & (leaf < 0))):
        around = leaf[indices[left]]
        counts = [np.bincount(row[row >= 0]) for row in around]
        found = np.array([row.argmax() if len(row) else -1 for row in counts], np.int32)
        if (found < 0).all():
            break
        leaf[left] = found
    if len(left):  # an island of new images: the largest group
        leaf[left] = np.bincount(leaf[leaf >= 0]).argmax()
    return leaf
