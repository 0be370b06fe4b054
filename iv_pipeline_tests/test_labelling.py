"""New images, labelled with what a finished run has learnt."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.labelling import load_labeller
from iv_pipeline.learn.clustering import ALGORITHMS
from iv_pipeline.storage.tables import read_table, table_from_arrays, write_table
from iv_pipeline_tests.assets.test_attributes import answer_clusters, truth_of
from iv_pipeline_tests.conftest import PARTITIONS, Finished, Pipeline, reasons

FIT = (
    "clustering_trials",
    "representation",
    "neighbors",
    "hierarchy",
    "clusters",
    "cluster_profiles",
    "model",
)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_vectors_of_a_run_get_the_labels_of_its_final_csv(finished: Finished, partition: str) -> None:
    pipeline = finished.pipeline
    blocks = pipeline.settings.config.blocks(partition)
    vectors = np.hstack([pipeline.matrix(block) for block in blocks])
    cluster, confidence = load_labeller(pipeline.root, partition).predict(vectors)
    final = pipeline.read("final", partition)
    assert np.mean(cluster == final["cluster"]) >= 0.99
    fitted = pipeline.read("clusters", partition)
    np.testing.assert_allclose(confidence, fitted.column("confidence").to_numpy(), atol=1e-3)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_labels_the_images_of_its_fit_again(
    algorithm: str, again: Callable[..., Pipeline]
) -> None:
    chosen = {"file": "descriptors/vdc_type.pickle", "choose": {"algorithm": algorithm}}
    descriptors = {"vdc_type": chosen, "vdc_color": "descriptors/vdc_color.pickle"}
    # so few images are dense only by a low standard
    pipeline = again(descriptors=descriptors, neighbors={"n_neighbors": 15, "min_samples": 2})
    result = pipeline.materialize(*FIT, partition="vdc_type")
    assert result.success, reasons(result)
    cluster, _ = load_labeller(pipeline.root, "vdc_type").predict(pipeline.matrix("vdc_type"))
    fitted = pipeline.read("clusters", "vdc_type").column("cluster").to_numpy()
    assert np.mean(cluster == fitted) >= (0.97 if algorithm in {"hdbscan", "dbscan"} else 0.99)


@pytest.mark.parametrize(
    ("representation", "landmarks"),
    [("whitened", 100_000), ("whitened_umap", 100), ("fusion", 100_000), ("fusion", 100)],
)
def test_images_of_the_fit_are_labelled_again_whatever_was_clustered(
    representation: str, landmarks: int, again: Callable[..., Pipeline]
) -> None:
    combination = {"of": list(PARTITIONS[:2]), "choose": {"representation": representation}}
    embedding = {"n_epochs": 20, "landmarks": landmarks}
    pipeline = again(combinations={PARTITIONS[2]: combination}, embedding=embedding)
    result = pipeline.materialize(*FIT, partition=PARTITIONS[2])
    assert result.success, reasons(result)
    vectors = np.hstack([pipeline.matrix(block) for block in PARTITIONS[:2]])
    cluster, _ = load_labeller(pipeline.root, PARTITIONS[2]).predict(vectors)
    clusters = pipeline.read("clusters", PARTITIONS[2]).column("cluster").to_numpy()
    table = pipeline.read("representation", PARTITIONS[2])
    assert ("source" in table.vector_columns) == (representation != "whitened")
    if "source" in table.vector_columns:
        known = np.isfinite(table.vectors("source").to_array()).all(axis=1)
        assert known.sum() == min(landmarks, table.n_rows)
    assert np.mean(cluster == clusters) >= 0.99


@pytest.mark.parametrize("algorithm", ["kmeans", "gaussianmixture", "agglomerative", "dbscan"])
def test_other_algorithms_than_the_winner_label_too(finished: Finished, algorithm: str) -> None:
    pipeline = finished.pipeline
    fitted = pipeline.read("clusters", "vdc_color").column(f"label_{algorithm}").to_numpy()
    labeller = load_labeller(pipeline.root, "vdc_color", algorithm)
    assert np.mean(labeller.predict(pipeline.matrix("vdc_color"))[0] == fitted) >= 0.97


def test_the_winner_by_name_gives_its_own_numbers_also_after_a_refit(again: Callable[..., Pipeline]) -> None:
    pipeline = again()
    path = UPath(pipeline.path("clusters", "vdc_color"))
    before = read_table(path)
    cluster = before.column("cluster").to_numpy()
    columns = {n: before.column(n) for n in before.schema.names if n not in before.vector_columns}
    columns |= {n: before.vectors(n).to_array() for n in before.vector_columns}
    columns["cluster"] = np.where(cluster < 0, -1, 7 - cluster).astype(
        np.int32
    )  # as a fit long ago counted them
    write_table(table_from_arrays(columns), path)
    assert pipeline.materialize("clusters", "cluster_profiles", "model", partition="vdc_color").success
    after = read_table(path)
    winner = pipeline.read("clustering_trials", "vdc_color").query("won")["algorithm"].iloc[0]
    vectors = pipeline.matrix("vdc_color")
    for column, algorithm in (("cluster", None), (f"label_{winner}", winner)):
        found, _ = load_labeller(pipeline.root, "vdc_color", algorithm).predict(vectors)
        assert np.mean(found == after.column(column).to_numpy()) >= 0.97
    assert after.column("cluster").to_numpy().max() == 7


def test_an_algorithm_that_did_not_run_is_named_with_those_that_did(finished: Finished) -> None:
    with pytest.raises(
        InputError, match=r"no clusters by 'birch'; choose one of agglomerative, dbscan, .*, kmeans"
    ):
        load_labeller(finished.pipeline.root, "vdc_color", "birch")


def test_before_a_run_there_is_nothing_to_label_with(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"vdc_type.model\.json: is not there; run the pipeline for vdc_type first"
    ):
        load_labeller(tmp_path, "vdc_type")


def test_clusters_of_an_earlier_version_say_what_to_do(again: Callable[..., Pipeline]) -> None:
    pipeline = again()
    scaled = pipeline.path("scaled_pca", "vdc_type")  # like clusters that bring no rules
    target = pipeline.path("clusters", "vdc_type")
    target.unlink()
    target.write_bytes(scaled.read_bytes())
    result = pipeline.materialize("model", partition="vdc_type")
    assert "earlier version; materialize 'clusters' of vdc_type again" in reasons(result)["model"]


def test_a_model_says_what_it_is_and_what_it_was_fitted_on(finished: Finished) -> None:
    pipeline = finished.pipeline
    facts = json.loads(pipeline.path("model", "vdc_type").read_text(encoding="utf-8"))
    trial = pipeline.read("clustering_trials", "vdc_type").query("won").iloc[0]
    assert (facts["descriptor"], facts["algorithm"]) == ("vdc_type", trial["algorithm"])
    assert facts["names"]["0"] == "white saloons"
    assert facts["fitted_on"]["rows"] == len(pipeline.read("final", "vdc_type"))
    assert len(facts["fitted_on"]["sha256"]) == len(facts["fingerprint"]) == 64
    assert 0 < facts["outlier_above"] <= facts["unknown_above"] < 1


def test_a_model_s_fingerprint_tells_one_fit_from_another(
    finished: Finished, again: Callable[..., Pipeline]
) -> None:
    def facts(pipeline: Pipeline) -> dict[str, Any]:
        return json.loads(pipeline.path("model", "vdc_type").read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    pipeline = again()
    assert pipeline.run("recluster", "vdc_type").success
    assert facts(pipeline) == facts(finished.pipeline)
    changed = pipeline.matrix("vdc_type")
    changed[:, 0] += 1
    pipeline.deliver("vdc_type", changed)
    assert pipeline.run("full_pipeline", "vdc_type").success
    assert facts(pipeline)["fitted_on"]["sha256"] != facts(finished.pipeline)["fitted_on"]["sha256"]
    assert facts(pipeline)["fingerprint"] != facts(finished.pipeline)["fingerprint"]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_vectors_of_another_kind_are_not_guessed(finished: Finished, partition: str) -> None:
    pipeline = finished.pipeline
    vectors = np.hstack([pipeline.matrix(block) for block in pipeline.settings.config.blocks(partition)])
    rng = np.random.default_rng(0)
    alien = rng.normal(vectors.mean(), 20 * vectors.std(), size=(50, vectors.shape[1])).astype(np.float32)
    labels = load_labeller(pipeline.root, partition).label(alien)
    assert (labels["cluster"] == -1).mean() >= 0.95
    assert labels["is_outlier"].all()


def test_new_images_get_the_names_that_people_gave(finished: Finished) -> None:
    pipeline = finished.pipeline
    labels = load_labeller(pipeline.root, "vdc_type").label(pipeline.matrix("vdc_type"))
    assert set(labels.loc[labels["cluster"] == 0, "name"]) == {"white saloons"}
    expected = pipeline.read("final", "vdc_type")["name"].fillna("")
    assert np.mean(labels["name"] == expected) >= 0.99


# ── attributes, by several descriptors ───────────────────────────────────────────────────────────────────────

SEVERAL = list(PARTITIONS[:2])
ANSWERS = [
    *("type", "type_confidence", "view", "view_confidence", "color", "color_confidence"),
    *("is_outlier", "outlier_score", "reasons", "status"),
]


@pytest.fixture
def answered(again: Callable[..., Pipeline]) -> Pipeline:
    """A finished pipeline whose clusters of vdc_type people have said the type of."""
    pipeline = again()
    answer_clusters(pipeline, "type")
    return pipeline


def test_images_of_the_fit_get_the_attributes_that_they_have(answered: Pipeline) -> None:
    result = answered.run("answer")
    assert result.success, reasons(result)
    expected = answered.read("attributes")
    found = load_labeller(answered.root, SEVERAL).label({name: answered.matrix(name) for name in SEVERAL})
    assert found.columns.to_list() == ANSWERS == expected.columns.to_list()[1:]
    known = found["status"] == "ok"
    assert known.mean() > 0.95
    assert (found.loc[known, "type"] == expected.loc[known, "type"]).all()
    np.testing.assert_allclose(
        found.loc[known, "type_confidence"], expected.loc[known, "type_confidence"], atol=1e-4
    )
    assert (found["view"] == "").all()
    assert (found["view_confidence"] == 0).all()


def test_descriptors_that_do_not_come_say_nothing(answered: Pipeline) -> None:
    labeller = load_labeller(answered.root, SEVERAL)
    truth = truth_of(answered.read("image_index")["image_path"])["group"].to_numpy()
    rng = np.random.default_rng(0)
    for name in SEVERAL:
        X = answered.matrix(name)
        noise = rng.normal(size=X.shape) * 0.1 * X.std(axis=0)
        found = labeller.label({name: (X + noise).astype(np.float32)})
        assert (found["type"].to_numpy() == truth).mean() > 0.9, name


def test_before_any_answer_new_images_have_no_values(finished: Finished) -> None:
    pipeline = finished.pipeline
    found = load_labeller(pipeline.root, SEVERAL).label({name: pipeline.matrix(name) for name in SEVERAL})
    assert (found[["type", "view", "color"]] == "").all(axis=None)
    assert (found[["type_confidence", "view_confidence", "color_confidence"]] == 0).all(axis=None)


def test_of_what_every_descriptor_refuses_nothing_is_claimed(answered: Pipeline) -> None:
    X = {name: answered.matrix(name)[:4].copy() for name in SEVERAL}
    for name in SEVERAL:
        X[name][1] = np.nan
        X[name][2:] += 8 * answered.matrix(name).std(axis=0)
    X["vdc_type"][3] = answered.matrix("vdc_type")[3]  # strange in one descriptor alone
    labels = load_labeller(answered.root, SEVERAL).label(X)
    assert labels["status"].str.partition(":")[0].to_list() == ["ok", "unusable", "unknown", "ok"]
    assert (labels["type"] != "").to_list() == [True, False, False, True]
    assert (labels["type_confidence"] > 0).to_list() == [True, False, False, True]
    assert labels["is_outlier"].to_list()[1:] == [True] * 3
    assert labels["reasons"].to_list()[1:] == [
        "no usable vector: vdc_type, vdc_color",
        "unusual vectors: vdc_type, vdc_color",
        "unusual vectors: vdc_color",
    ]


def test_the_verdict_by_several_descriptors_is_that_of_the_strictest(answered: Pipeline) -> None:
    X = {name: answered.matrix(name) for name in SEVERAL}
    found = load_labeller(answered.root, SEVERAL).label(X)
    each = [load_labeller(answered.root, name).label(X[name]) for name in SEVERAL]
    assert found.equals(load_labeller(answered.root, SEVERAL, version=1).label(X))
    assert (found["is_outlier"] == (each[0]["is_outlier"] | each[1]["is_outlier"])).all()
    assert (found["outlier_score"] == np.maximum(each[0]["outlier_score"], each[1]["outlier_score"])).all()
    assert ((found["reasons"] != "") == found["is_outlier"]).all()


def test_vectors_that_cannot_be_joined_end_in_one_sentence(finished: Finished) -> None:
    root, X = finished.pipeline.root, finished.pipeline.matrix("vdc_type")
    labeller = load_labeller(root, SEVERAL)
    with pytest.raises(
        InputError, match="'osnet' is none of the descriptors; give vectors of some of vdc_type"
    ):
        labeller.label({"osnet": X})
    with pytest.raises(InputError, match="different numbers of vectors: 7 of vdc_type, 5 of vdc_color"):
        labeller.label({"vdc_type": X[:7], "vdc_color": finished.pipeline.matrix("vdc_color")[:5]})
    with pytest.raises(InputError, match="there are no vectors"):
        labeller.label({})
    with pytest.raises(InputError, match=r"has no joint features, .*; choose some of vdc_type, vdc_color"):
        load_labeller(root, list(PARTITIONS))
    with pytest.raises(InputError, match="there are no descriptors"):
        load_labeller(root, [])


def test_a_fit_without_joint_features_says_what_to_do(again: Callable[..., Pipeline]) -> None:
    pipeline = again()
    pipeline.path("joint_features").unlink()
    with pytest.raises(InputError, match="materialize 'joint_features' and 'groups'"):
        load_labeller(pipeline.root, SEVERAL)
    pipeline.path("attributes").unlink()
    with pytest.raises(InputError, match=r"attributes\.csv: is not there; materialize 'attributes'"):
        load_labeller(pipeline.root, SEVERAL)
