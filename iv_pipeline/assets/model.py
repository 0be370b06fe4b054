"""Stage `model`: all that was learnt of a descriptor, as one artefact that labels new images."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.clusters import CORE_DISTANCE, rules_of
from iv_pipeline.assets.final import cluster_names
from iv_pipeline.assets.image_index import identities_of, require_same_images
from iv_pipeline.assets.init import validity_of
from iv_pipeline.assets.neighbors import winner_of
from iv_pipeline.assets.representation import fit_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import ArrayBatches
from iv_pipeline.labelling import NOVELTY, REFERENCE, ROWS, VALIDITY, VECTORS, under, unpack_labeller
from iv_pipeline.learn.drift import reference_of
from iv_pipeline.learn.labelling import labels_of
from iv_pipeline.learn.novelty import N_SAMPLED, Novelty, fit_novelty, scored_rows
from iv_pipeline.learn.representation import pack_fit
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.answers import given_names
from iv_pipeline.storage.models import StoredModel
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

CHECKED_ROWS = 2_000
LEAST_AGREEMENT = 0.97


@stage(
    group="results",
    kinds=("numpy", "json"),
    heavy=True,
    code_version="6",
    checks={"labels_its_own_fit": "Do images of the fit get the clusters of the fit?"},
)
def model(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    init: VectorTable,
    statistics: dict[str, np.ndarray],
    clustering_trials: pd.DataFrame,
    representation: VectorTable,
    clusters: VectorTable,
    cluster_profiles: pd.DataFrame,
) -> Result:
    """Scaler, components, clusters, names and outlier thresholds as arrays and JSON; labels new images."""
    config, partition = settings.config, context.partition_key
    require_same_images(image_index, clusters.column(IMAGE_PATH).to_pandas(), partition)
    winner = winner_of(clustering_trials)
    rules = rules_of(clusters, partition)
    algorithms = sorted({key.partition("/")[0] for key in rules if "/" in key})
    novelty, known_rows, vectors = _what_is_known(settings, init, representation)
    cluster = clusters.column("cluster").to_numpy()
    reference = reference_of(
        cluster,
        novelty.scores,
        config.outliers.unknown,
        identities_of(image_index),
        known_rows[scored_rows(len(known_rows), config.seed)],
    )
    arrays = {
        **rules,
        **vectors,
        **under(NOVELTY, novelty.to_arrays()),
        **under(REFERENCE, reference.to_arrays()),
        **under(VALIDITY, validity_of(init).to_arrays()),
        **_rows(representation, clusters, rules),
    }
    names = cluster_names(given_names(settings.data_root, partition), cluster_profiles)
    facts: dict[str, Any] = {
        "version": version("iv_pipeline"),
        "descriptor": partition,
        "blocks": list(config.blocks(partition)),
        "n_features": init.vectors("descriptor").shape[1],
        "scaler": winner["scaler"],
        "representation": winner["representation"],
        "algorithm": winner["algorithm"],
        "parameters": json.loads(winner["parameters"]),
        "algorithms": algorithms,
        "n_clusters": int((np.unique(rules["numbers"]) >= 0).sum()),
        "names": {str(number): name for number, name in sorted(names.items())},
        "outlier_above": novelty.outlier_above,
        "unknown_above": novelty.unknown_above,
        "seed": config.seed,
        "fitted_on": {
            "rows": init.n_rows,
            "sha256": _sha256_of_data(init, statistics),
            "clusters_sha256": sha256_of_clusters(clusters),
        },
    }
    stored = StoredModel(facts, arrays, _fingerprint(facts, arrays))
    facts["agreement"] = _agreement(stored, init, clusters)  # no part of the fingerprint: near ties differ
    return Result(
        stored,
        lambda: {
            "algorithm": winner["algorithm"],
            "n_clusters": facts["n_clusters"],
            "arrays_bytes": sum(array.nbytes for array in arrays.values()),
            "facts": dg.MetadataValue.json(facts),
        },
        lambda: [
            Check("labels_its_own_fit", labels_its_own_fit(facts), {"agreement": facts["agreement"]}),
        ],
    )


def _what_is_known(
    settings: Settings, init: VectorTable, representation: VectorTable
) -> tuple[Novelty, np.ndarray, dict[str, np.ndarray]]:
    """How far out a row lies, which rows say so, and what makes of raw rows those that were clustered."""
    config = settings.config
    reduction, parts = fit_of(representation)
    fit = under(VECTORS, pack_fit(reduction, parts))
    vectors = representation.vectors("vectors").to_array()
    if "source" in representation.vector_columns:
        source = representation.vectors("source").to_array()
        rows = np.flatnonzero(finite_rows(source))
        known = source[rows]
        fit |= under(VECTORS, {"source": known, "embedding": vectors[rows]})
    else:
        rows = np.flatnonzero(finite_rows(vectors))
        known = vectors[rows]
    n_rows = len(known)
    if reduction.unit_blocks:  # rows of one length do not say how long they were
        usable = np.flatnonzero(finite_rows(vectors))
        rows = np.sort(np.random.default_rng(config.seed).permutation(usable)[:N_SAMPLED])
        known = reduction.components(ArrayBatches(init.vectors("descriptor").take(rows)))
    novelty = fit_novelty(
        known,
        contamination=config.outliers.contamination,
        unknown=config.outliers.unknown,
        n_neighbors=config.neighbors.n_neighbors,
        seed=config.seed,
        n_rows=n_rows,
    )
    return novelty, rows, fit


def _rows(
    representation: VectorTable, clusters: VectorTable, rules: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The rows of the fit and their labels, if a density method needs them to attach others."""
    density = [
        key.partition("/")[0]
        for key, value in rules.items()
        if key.endswith("/kind") and value == "attachment"
    ]
    if not density:
        return {}
    X = representation.vectors("vectors").to_array()
    usable = finite_rows(X)
    core_distances = clusters.column(CORE_DISTANCE).to_numpy()[usable]
    labels = {
        f"{name}/labels_of_rows": labels_of(
            clusters.column(f"label_{name}").to_numpy()[usable], rules[f"{name}/numbers"]
        )
        for name in density
    }
    return {**under(ROWS, {"vectors": X[usable], "core_distances": core_distances}), **labels}


def _sha256_of_data(init: VectorTable, statistics: Mapping[str, np.ndarray]) -> str:
    """Of the paths and of what the statistics of the vectors are made of."""
    digest = hashlib.sha256()
    for path in init.column(IMAGE_PATH).to_pylist():
        digest.update(path.encode("utf-8") + b"\n")
    for name in sorted(statistics):
        digest.update(name.encode("utf-8") + np.ascontiguousarray(statistics[name]).tobytes())
    return digest.hexdigest()


def _fingerprint(facts: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8"))
    for name in sorted(arrays):
        digest.update(name.encode("utf-8") + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _agreement(stored: StoredModel, init: VectorTable, clusters: VectorTable) -> float:
    """Share of a sample of the images of the fit to which the model gives their cluster."""
    rows = np.sort(np.random.default_rng(0).permutation(clusters.n_rows)[:CHECKED_ROWS])
    found, _ = unpack_labeller(stored).predict(init.vectors("descriptor").take(rows))
    return float(np.mean(found == clusters.column("cluster").to_numpy()[rows]))


def labels_its_own_fit(facts: Mapping[str, Any]) -> bool:
    """Whether the images of its fit got the clusters of the fit when a model was made."""
    return bool(facts.get("agreement", 0) >= LEAST_AGREEMENT)


def sha256_of_clusters(clusters: VectorTable) -> str:
    """Digest of the paths of all images and their clusters, which tells what clusters a model is of."""
    digest = hashlib.sha256("\n".join(clusters.column(IMAGE_PATH).to_pylist()).encode("utf-8"))
    digest.update(clusters.column("cluster").to_numpy().astype(np.int32).tobytes())
    return digest.hexdigest()
