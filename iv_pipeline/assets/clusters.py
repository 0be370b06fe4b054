"""Stage `clusters`: what won on the sample, fitted on all rows."""

import json

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.hierarchy import hierarchy_of
from iv_pipeline.assets.neighbors import graph_of, winner_of
from iv_pipeline.assets.representation import fit_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.labelling import CORE_DISTANCE, REPRESENTATION, SOURCE, FittedAlgorithm, pack_models
from iv_pipeline.learn.clustering import ALGORITHMS, NOISE, Attachment, Space
from iv_pipeline.learn.labelling import n_labels_of, numbers_of, rule_of, rule_to_arrays
from iv_pipeline.learn.numbering import carry_over, number_by_size
from iv_pipeline.learn.statistics import FiniteRows, finite_rows
from iv_pipeline.report import plots
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, read_table, table_from_arrays


@stage(
    group="clustering",
    kinds=("scikitlearn", "hdbscan", "arrow"),
    heavy=True,
    checks={"every_image_labelled": "Has every usable image a label from the winning algorithm?"},
)
def clusters(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scaled_pca: VectorTable,
    clustering_trials: pd.DataFrame,
    representation: VectorTable,
    neighbors: VectorTable,
    hierarchy: dict[str, np.ndarray],
) -> Result:
    """All images clustered by every algorithm with its best parameters; `cluster` is the winner's label."""
    config = settings.config
    winner = winner_of(clustering_trials)
    scaler = winner["scaler"]
    reduced = scaled_pca.vectors(scaler).to_array()
    vectors = representation.vectors("vectors")
    X = vectors.to_array()
    usable = finite_rows(X)
    columns: dict[str, object] = {IMAGE_PATH: scaled_pca.column(IMAGE_PATH), scaler: reduced}
    # the stored graph is one of components, also where something else was made of them to cluster
    own = winner["representation"] != "pca"
    if own:
        columns |= {REPRESENTATION: X}
        if "source" in representation.vector_columns:
            columns |= {SOURCE: representation.vectors("source").to_array()}
    space = Space(
        X[usable],
        config.seed,
        config.neighbors.n_neighbors,
        config.neighbors.min_samples,
        FiniteRows(vectors, int(usable.sum())),
        None if own else graph_of(neighbors, usable),
        None if own else hierarchy_of(hierarchy),
    )
    cluster = np.full(len(X), NOISE, np.int32)
    confidence = np.zeros(len(X), np.float32)
    core_distance = np.full(len(X), np.nan, np.float32)
    fitted, counts = {}, {}
    for trial in clustering_trials[clustering_trials["kept"]].to_dict("records"):
        algorithm = ALGORITHMS[trial["algorithm"]]
        clustering = algorithm.fit(space, json.loads(trial["tried"]))
        rule = rule_of(clustering)
        if isinstance(rule, Attachment):  # what only density methods need is made for them alone
            core_distance[usable] = space.hierarchy.core_distances
        labels = np.full(len(X), NOISE, np.int32)
        labels[usable] = number_by_size(clustering.labels)
        columns[f"label_{algorithm.name}"] = labels
        fitted[algorithm.name] = FittedAlgorithm(
            rule_to_arrays(rule), numbers_of(clustering.labels, labels[usable], n_labels_of(rule))
        )
        counts[f"n_clusters_{algorithm.name}"] = clustering.n_clusters
        context.log.info("clusters · %s · %d clusters", algorithm.name, clustering.n_clusters)
        if trial["won"]:
            cluster = carry_over(labels, _previous(settings, context.partition_key, columns[IMAGE_PATH]))
            confidence[usable] = clustering.confidence
            numbers = numbers_of(clustering.labels, cluster[usable], n_labels_of(rule))
    columns |= {"cluster": cluster, "confidence": confidence, CORE_DISTANCE: core_distance}
    models = pack_models(fit_of(representation), fitted, winner["algorithm"], numbers)
    sizes = pd.Series(cluster[usable]).value_counts().sort_index()
    noise = float((cluster[usable] == NOISE).mean())
    return Result(
        table_from_arrays(columns, metadata=models),
        lambda: {
            "scaler": scaler,
            "representation": winner["representation"],
            "algorithm": winner["algorithm"],
            "n_clusters": int((sizes.index != NOISE).sum()),
            "noise_share": noise,
            "mean_confidence": float(confidence[usable].mean()),
            **counts,
            "sizes": dg.MetadataValue.md(plots.inline(plots.cluster_sizes(sizes))),
        },
        lambda: [_all_labelled(cluster, usable, winner["algorithm"])],
    )


def _all_labelled(cluster: np.ndarray, usable: np.ndarray, algorithm: str) -> Check:
    """Only methods that look for density may leave a usable image in no cluster, and not all of them."""
    noise = cluster[usable] == NOISE
    allowed = algorithm in {"hdbscan", "dbscan"} and not noise.all()
    passed = (allowed or not noise.any()) and bool((cluster[~usable] == NOISE).all())
    return Check("every_image_labelled", passed, {"unlabelled": int(noise.sum())})


def _previous(settings: Settings, descriptor: str, paths: object) -> np.ndarray | None:
    """The labels of the previous fit in the order of `paths`, −1 for images that it did not have."""
    path = settings.data_root / file_of("clusters", descriptor)
    if not path.exists():
        return None
    table = read_table(path)
    before = pd.Series(table.column("cluster").to_numpy(), index=table.column(IMAGE_PATH).to_pandas())
    now = pd.Index(paths.to_pandas())  # type: ignore[attr-defined]
    return before.reindex(now, fill_value=NOISE).to_numpy(np.int32)
