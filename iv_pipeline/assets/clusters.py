"""Stage `clusters`: what won on the sample, fitted on all rows."""

import json
from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa

from iv_pipeline.assets.hierarchy import hierarchy_of
from iv_pipeline.assets.neighbors import graph_of, winner_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import PipelineConfig, Settings
from iv_pipeline.errors import InputError, Notice
from iv_pipeline.labelling import under
from iv_pipeline.learn.clustering import ALGORITHMS, NOISE, Attachment, Space, fit_clusters
from iv_pipeline.learn.labelling import n_labels_of, numbers_of, rule_of, rule_to_arrays
from iv_pipeline.learn.numbering import carry_over, changes, number_by_size
from iv_pipeline.learn.statistics import FiniteRows, finite_rows
from iv_pipeline.report import plots
from iv_pipeline.storage.formats import arrays_from_bytes, arrays_to_bytes
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, read_table, table_from_arrays

REPRESENTATION = "representation"
"""Column of the vectors that were clustered, where they are not the scaled principal components themselves."""
CORE_DISTANCE = "core_distance"
"""Column that density methods attach new images by."""
START = "start"
"""Column of the earlier fit's clusters that the winner started from, −1 where it knew none."""
RULES_KEY = b"iv_pipeline.rules"
"""Under which the table keeps what gives each algorithm's labels, as the arrays of a stored model."""
CHANGES_KEY = b"iv_pipeline.changes"
"""Under which it keeps what became of the clusters of the fit before, as JSON."""


@stage(
    group="clustering",
    kinds=("scikitlearn", "hdbscan", "arrow"),
    heavy=True,
    checks={"every_image_labelled": "Has every usable image a label from the winning algorithm?"},
    code_version="4",
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
    space = Space(
        X[usable],
        config.seed,
        config.neighbors.n_neighbors,
        config.neighbors.min_samples,
        FiniteRows(vectors, int(usable.sum())),
        None if own else graph_of(neighbors, usable),
        None if own else hierarchy_of(hierarchy),
    )
    previous, start = _previous(settings, context.partition_key, columns[IMAGE_PATH])
    cluster = np.full(len(X), NOISE, np.int32)
    confidence = np.zeros(len(X), np.float32)
    core_distance = np.full(len(X), np.nan, np.float32)
    rules: dict[str, np.ndarray] = {}
    counts = {}
    for trial in clustering_trials[clustering_trials["kept"]].to_dict("records"):
        algorithm = ALGORITHMS[trial["algorithm"]]
        started = space
        if trial["won"] and start is not None:
            started = replace(space, previous=start[usable])  # it shares no hierarchy
        clustering = fit_clusters(algorithm, started, json.loads(trial["tried"]))
        rule = rule_of(clustering)
        if isinstance(rule, Attachment):  # what only density methods need is made for them alone
            core_distance[usable] = space.hierarchy.core_distances
        labels = np.full(len(X), NOISE, np.int32)
        labels[usable] = number_by_size(clustering.labels)
        columns[f"label_{algorithm.name}"] = labels
        numbers = numbers_of(clustering.labels, labels[usable], n_labels_of(rule))
        rules |= under(algorithm.name, {**rule_to_arrays(rule), "numbers": numbers})
        counts[f"n_clusters_{algorithm.name}"] = clustering.n_clusters
        context.log.info(
            "clusters · %s · %s · %d clusters", context.partition_key, algorithm.name, clustering.n_clusters
        )
        if trial["won"]:
            cluster = carry_over(labels, previous)
            confidence[usable] = clustering.confidence
            rules["numbers"] = numbers_of(clustering.labels, cluster[usable], n_labels_of(rule))
    nothing = np.full(len(X), NOISE, np.int32)
    columns |= {"cluster": cluster, "confidence": confidence, CORE_DISTANCE: core_distance}
    columns |= {START: nothing if start is None else start}
    became = changes(cluster, nothing if previous is None else previous)
    if previous is not None:
        _warn(context, became)
    sizes = pd.Series(cluster[usable]).value_counts().sort_index()
    noise = float((cluster[usable] == NOISE).mean())
    return Result(
        table_from_arrays(
            columns,
            metadata={
                RULES_KEY: arrays_to_bytes(rules),
                CHANGES_KEY: became.to_json(orient="records").encode(),
            },
        ),
        lambda: {
            "scaler": scaler,
            "representation": winner["representation"],
            "algorithm": winner["algorithm"],
            "n_clusters": int((sizes.index != NOISE).sum()),
            "noise_share": noise,
            "mean_confidence": float(confidence[usable].mean()),
            "distinct_vectors": space.n_distinct,
            **counts,
            **{f"clusters_{change}": int(n) for change, n in became["change"].value_counts().items()},
            "sizes": dg.MetadataValue.md(plots.inline(plots.cluster_sizes(sizes))),
        },
        lambda: [_all_labelled(cluster, usable, winner["algorithm"])],
        _of_few(space, context.partition_key, config),
    )


def _of_few(space: Space, descriptor: str, config: PipelineConfig) -> list[Notice]:
    """A notice if there are fewer distinct vectors than clusters were asked for."""
    if space.n_distinct >= (config.choice(descriptor).n_clusters or config.trials.naming_budget):
        return []
    what = f"{space.n_rows:,} usable images have {space.n_distinct:,} distinct vectors and no more clusters"
    return [Notice(what, where=f"descriptor {descriptor}")]


def _all_labelled(cluster: np.ndarray, usable: np.ndarray, algorithm: str) -> Check:
    """Only methods that look for density may leave a usable image in no cluster, and not all of them."""
    noise = cluster[usable] == NOISE
    allowed = algorithm in {"hdbscan", "dbscan"} and not noise.all()
    passed = (allowed or not noise.any()) and bool((cluster[~usable] == NOISE).all())
    return Check("every_image_labelled", passed, {"unlabelled": int(noise.sum())})


def changes_of(clusters: VectorTable, descriptor: str) -> pd.DataFrame:
    """What became of the clusters of the fit before, as `iv_pipeline.learn.numbering.changes` gives it."""
    columns = ["cluster", "change", "images", "kept_share", "into"]
    return pd.DataFrame(json.loads(_stored(clusters, CHANGES_KEY, descriptor)), columns=columns)


def rules_of(clusters: VectorTable, descriptor: str) -> dict[str, np.ndarray]:
    """What gives the labels of each algorithm, ``<algorithm>/<array>``, and ``numbers`` of the winner's."""
    return arrays_from_bytes(_stored(clusters, RULES_KEY, descriptor))


def _stored(clusters: VectorTable, key: bytes, descriptor: str) -> bytes:
    metadata: dict[bytes, bytes] = clusters.schema.metadata or {}
    if key not in metadata:
        raise InputError(
            "the stored clusters are of an earlier version",
            where=f"descriptor {descriptor}",
            fix=f"materialize 'clusters' of {descriptor} again",
        )
    return metadata[key]


def _warn(context: dg.AssetExecutionContext, became: pd.DataFrame) -> None:
    for row in became[~became["change"].isin(["kept", "new"])].to_dict("records"):
        into = f" into {', '.join(map(str, row['into']))}" if row["into"] else ""
        context.log.warning(
            "cluster %d of the previous fit is %s%s: look at its name", row["cluster"], row["change"], into
        )


def _previous(
    settings: Settings, descriptor: str, paths: pa.ChunkedArray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The labels of the previous fit, and those to start from; −1 for images that it did not have.

    A fit of other images goes on from the labels; one of the same images starts from where that fit started, so
    that a run that is run again gives the same clusters, also after a refit.
    """
    path = settings.data_root / file_of("clusters", descriptor)
    if not path.exists():
        return None, None
    table = read_table(path)
    now, then = pd.Index(paths.to_pandas()), pd.Index(table.column(IMAGE_PATH).to_pandas())
    known = pd.Series(table.column("cluster").to_numpy(), index=then)
    labels = known.reindex(now, fill_value=NOISE).to_numpy(np.int32)
    if not then.equals(now):
        return labels, labels
    start = table.column(START).to_numpy() if START in table.schema.names else np.array([NOISE])
    return labels, None if (start == NOISE).all() else start
