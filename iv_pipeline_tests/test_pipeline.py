"""All stages through Dagster, in this process."""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from upath import UPath

from iv_pipeline.assets.image_index import true_labels
from iv_pipeline.automation import FULL_PIPELINE, PREPARE, SUMMARISE
from iv_pipeline.config import ALGORITHMS, SCALERS
from iv_pipeline.storage.columns import TEXT
from iv_pipeline.storage.hand_off import read_csv
from iv_pipeline.storage.layout import FILES
from iv_pipeline_tests.conftest import CONFIG, N_IMAGES, PARTITIONS, QUICK, TRAFFIC_CAMERA, reasons

if TYPE_CHECKING:
    from collections.abc import Callable

    import dagster as dg

    from iv_pipeline_tests.conftest import Finished, Pipeline

TRACE = Path(__file__).parent / "a-pickle-ran-code"
UNUSABLE = "unusable: NaN or infinite values"


def paths_of(pipeline: Pipeline) -> list[str]:
    listed = pd.read_csv(pipeline.delivery / "images_paths.csv")["paths"]
    return [path.replace("\\", "/") for path in listed]


# ── what a run leaves behind ─────────────────────────────────────────────────────────────────────────────────


def test_every_stage_leaves_the_file_that_the_layout_names(finished: Finished) -> None:
    pipeline = finished.pipeline
    for asset in (*PREPARE, *SUMMARISE):
        assert pipeline.path(asset).is_file(), asset
    for asset in FULL_PIPELINE:
        for partition in PARTITIONS:
            assert pipeline.path(asset, partition).is_file(), (asset, partition)
    later = {"clustered", "labelled_batch", "drift", "refits"}
    assert {*PREPARE, *SUMMARISE, *FULL_PIPELINE, *later} == set(FILES)


def test_a_run_leaves_no_other_files(finished: Finished) -> None:
    expected = {FILES[asset] for asset in (*PREPARE, *SUMMARISE)} | {"Names/vdc_type.csv"}
    expected |= {FILES[asset].format(descriptor=p) for asset in FULL_PIPELINE for p in PARTITIONS}
    found = {p for p in finished.pipeline.fingerprints() if not p.startswith("Models/versions/1/")}
    versions = {p for p in found - expected if re.fullmatch(r"Models/[^/]+/(arrays|model)-\w{16}\.\w+", p)}
    assert len(versions) == 2 * len(PARTITIONS)  # of each model its facts and its arrays
    assert found - versions == expected


@pytest.mark.parametrize("partition", PARTITIONS)
def test_final_has_every_image_once_in_the_delivery_s_order(finished: Finished, partition: str) -> None:
    final = finished.pipeline.read("final", partition)
    assert list(final.columns) == [
        "image_path",
        "cluster",
        "confidence",
        "is_outlier",
        "outlier_score",
        "reasons",
        "status",
        "name",
    ]
    assert final["image_path"].to_list() == paths_of(finished.pipeline)
    assert final["confidence"].between(0, 1).all()
    assert set(final["status"]) <= {"ok", "noise"}
    assert (final.loc[final["status"] == "ok", "cluster"] >= 0).all()


@pytest.mark.parametrize("partition", PARTITIONS)
def test_tables_hold_every_image_and_the_columns_of_the_contract(finished: Finished, partition: str) -> None:
    pipeline = finished.pipeline
    for asset in ("init", "scaled", "scaled_pca", "clusters"):
        assert pipeline.read(asset, partition).column("image_path").to_pylist() == paths_of(pipeline), asset
    assert pipeline.read("init", partition).vector_columns == ["descriptor"]
    assert pipeline.read("scaled", partition).vector_columns == list(SCALERS)
    assert pipeline.read("scaled_pca", partition).vector_columns == list(SCALERS)
    clusters = set(pipeline.read("clusters", partition).schema.names)
    assert {"cluster", "confidence", *(f"label_{name}" for name in ALGORITHMS)} <= clusters
    assert {
        *("scaler", "algorithm", "parameters", "n_clusters", "calinski_harabasz", "davies_bouldin"),
        *("silhouette", "noise_share", "seconds", "kept"),
    } <= set(pipeline.read("clustering_trials", partition).columns)
    outliers = pipeline.read("outliers", partition)
    assert {"image_path", "score", "is_outlier"} <= set(outliers.columns)
    assert outliers["score"].between(0, 1).all()
    assert {"image_path", "x2", "y2", "x3", "y3", "z3"} <= set(pipeline.read("projection", partition).columns)


def test_the_summary_ranks_every_descriptor_and_the_outliers_name_every_image(finished: Finished) -> None:
    summary = finished.pipeline.read("summary")
    assert {"descriptor", "scaler", "algorithm", "n_clusters", "rank"} <= set(summary.columns)
    assert set(summary["descriptor"]) == set(PARTITIONS)
    assert sorted(summary["rank"]) == [1, 2, 3]
    ranked = finished.pipeline.read("ranked_outliers")
    assert {"image_path", "score", "reasons"} <= set(ranked.columns)
    assert sorted(ranked["image_path"]) == sorted(paths_of(finished.pipeline))
    assert ranked["score"].is_monotonic_decreasing


def test_the_verdict_is_the_same_in_every_final_file(finished: Finished) -> None:
    columns = ["image_path", "is_outlier", "outlier_score", "reasons"]
    first = finished.pipeline.read("attributes")[columns]
    for partition in PARTITIONS:
        pd.testing.assert_frame_equal(finished.pipeline.read("final", partition)[columns], first)
    flagged = first["is_outlier"]
    assert (first["outlier_score"] >= 0.5).eq(flagged).all()
    assert (first["reasons"] != "").eq(flagged).all()


def test_people_overrule_a_verdict_for_good(again: Callable[..., Pipeline]) -> None:
    pipeline = again()
    before = pipeline.read("attributes").set_index("image_path")["is_outlier"]
    flagged, clean = before[before].index[0], before[~before].index[0]
    lines = ["image_path,is_outlier", f"{flagged},no", f"{clean},yes", ""]
    (pipeline.root / "Names" / "images.csv").write_text("\n".join(lines), encoding="utf-8")
    assert pipeline.run("answer").success
    assert pipeline.run("prepare").success
    assert pipeline.materialize("final", partition="vdc_color").success
    for table in (pipeline.read("attributes"), pipeline.read("final", "vdc_color")):
        verdict = table.set_index("image_path")
        assert not verdict.loc[flagged, "is_outlier"]
        assert (verdict.loc[clean, "is_outlier"], verdict.loc[clean, "reasons"]) == (True, "a person says so")
        assert verdict.loc[flagged, "reasons"] == ""


def test_names_that_people_gave_appear_in_final(finished: Finished) -> None:
    final = finished.pipeline.read("final", "vdc_type")
    assert set(final.loc[final["cluster"] == 0, "name"]) == {"white saloons"}
    assert "white saloons" not in set(final.loc[final["cluster"] != 0, "name"])
    assert "white saloons" not in set(finished.pipeline.read("final", "vdc_color")["name"])


def test_a_name_whose_cluster_is_gone_is_kept_out_of_final_and_reported(
    again: Callable[..., Pipeline],
) -> None:
    pipeline = again()
    names = pipeline.root / "Names" / "vdc_color.csv"
    names.write_text("cluster,name\n0,red\n77,lost\n", encoding="utf-8")
    result = pipeline.materialize("final", partition="vdc_color")
    (event,) = (e for e in result.all_events if e.is_step_materialization)
    assert event.materialization.metadata["names_to_look_at"].value == 1
    final = pipeline.read("final", "vdc_color")
    assert set(final.loc[final["cluster"] == 0, "name"]) == {"red"}
    assert "lost" not in set(final["name"])


@pytest.mark.parametrize(
    ("representation", "algorithm"),
    [("pca", "kmeans"), ("normalized_umap", "kmeans"), ("normalized_umap", "agglomerative")],
)
def test_a_refit_without_some_images_keeps_the_numbers_of_the_others(
    representation: str, algorithm: str, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = one_descriptor(make_pipeline, {"representation": representation, "algorithm": algorithm})
    before = pipeline.read("final", "vdc_type")
    clusters_before = pipeline.path("clusters", "vdc_type").read_bytes()
    vectors = pipeline.read("representation", "vdc_type").vectors("vectors").to_array()
    kept = np.random.default_rng(0).random(N_IMAGES) < 0.9
    deliver_again(pipeline, kept)
    after = pipeline.read("final", "vdc_type")
    written = pipeline.path("final", "vdc_type").read_bytes()
    changes = pipeline.read("changes", "vdc_type")
    moved = after["cluster"].to_numpy() != before.loc[kept, "cluster"].to_numpy()
    told = changes["change"].value_counts()
    assert (told.get("gone", 0), told.get("moved", 0), told.get("new", 0)) == ((~kept).sum(), moved.sum(), 0)
    assert pipeline.run("recluster", "vdc_type").success  # the same images once more
    assert pipeline.path("final", "vdc_type").read_bytes() == written
    pd.testing.assert_frame_equal(pipeline.read("changes", "vdc_type"), changes)  # nothing is forgotten
    pipeline.path("clusters", "vdc_type").write_bytes(clusters_before)  # as if the refit had died before it
    assert pipeline.run("recluster", "vdc_type").success
    assert pipeline.path("final", "vdc_type").read_bytes() == written
    assert after["image_path"].tolist() == before.loc[kept, "image_path"].tolist()
    assert np.mean(after["cluster"].to_numpy() == before.loc[kept, "cluster"].to_numpy()) >= 0.9
    if representation != "pca":  # images that are known stay where they were
        again = pipeline.read("representation", "vdc_type").vectors("vectors").to_array()
        np.testing.assert_array_equal(again, vectors[kept])


def test_a_refit_lays_out_anew_what_has_changed_and_what_is_mostly_unknown(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    pipeline = one_descriptor(make_pipeline, {"representation": "normalized_umap", "algorithm": "kmeans"})
    vectors = pipeline.read("representation", "vdc_type").vectors("vectors").to_array()
    changed = pipeline.matrix("vdc_type")
    changed[:20] = changed[20:40]
    pipeline.deliver("vdc_type", changed)
    kept = np.arange(N_IMAGES) < N_IMAGES - 10
    deliver_again(pipeline, kept)
    table = pipeline.read("representation", "vdc_type")
    placed = table.vectors("vectors").to_array()
    np.testing.assert_array_equal(placed[20:], vectors[20:][kept[20:]])
    np.testing.assert_allclose(placed[:20], vectors[20:40], atol=1e-2)  # where their neighbors are
    assert np.isnan(table.vectors("source").to_array()[:20]).all()
    pipeline.deliver("vdc_type", pipeline.matrix("vdc_type")[::-1])
    deliver_again(pipeline, np.arange(len(placed)) > 0)
    anew = pipeline.read("representation", "vdc_type")
    assert np.isfinite(anew.vectors("source").to_array()).all()
    assert not np.allclose(anew.vectors("vectors").to_array()[40], placed[41])


@pytest.mark.parametrize(
    ("archive", "criterion", "why"),
    [
        ("raw_data/veriwild.zip", "predictability", "the pictures themselves predict its clusters"),
        (None, "identity", "photos of one vehicle fall together"),
    ],
)
def test_a_descriptor_that_is_alone_is_judged_by_the_pictures_or_by_the_vehicles(
    archive: str | None, criterion: str, why: str, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline(
        descriptors={"vdc_type": "descriptors/vdc_type.pickle"},
        combinations={},
        delivery={"archive": archive},
        trials={"naming_budget": 6, "n_clusters": [6], "representations": ["pca", "umap"]},
    )
    assert pipeline.run("prepare").success
    result = pipeline.materialize(*UP_TO_TRIALS, partition="vdc_type")
    assert result.success, reasons(result)
    (winner,) = pipeline.read("clustering_trials", "vdc_type").query("won").to_dict("records")
    assert winner["criterion"] == criterion
    assert why in winner["reason"]
    judges = {"pictures/shape", "pictures/colors"} if archive else set()
    assert set(json.loads(winner["predicted_by"])) == judges


@pytest.mark.parametrize("picture", [b"", b"not a picture", "the first one"])
def test_pictures_that_tell_no_images_apart_do_not_stop_a_descriptor_that_is_alone(
    picture: bytes | str, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline(descriptors={"vdc_type": "descriptors/vdc_type.pickle"}, combinations={})
    archive = pipeline.delivery / "raw_data" / "veriwild.zip"
    with zipfile.ZipFile(archive) as source:
        content = source.read(source.namelist()[0]) if isinstance(picture, str) else picture
        names = source.namelist()
    archive.unlink()  # other tests share it
    with zipfile.ZipFile(archive, "w") as target:
        for name in names:
            target.writestr(name, content)
    assert pipeline.materialize("image_index", "views").success
    assert [name for name in pipeline.read("views").schema.names if name.startswith("pictures")] == []


def one_descriptor(make_pipeline: Callable[..., Pipeline], chosen: dict[str, str]) -> Pipeline:
    """A finished pipeline of one descriptor, whose configuration is fixed: nothing else is tried."""
    few = {name: [chosen[name.removesuffix("s")]] for name in ("representations", "algorithms")}
    pipeline = make_pipeline(
        descriptors={"vdc_type": {"file": "descriptors/vdc_type.pickle", "choose": chosen}},
        combinations={},
        trials={**CONFIG["trials"], "scalers": ["standard"], **few},
    )
    assert pipeline.run("prepare").success
    assert pipeline.run("full_pipeline", "vdc_type").success
    return pipeline


UP_TO_TRIALS = ("init", "statistics", "scaled", "pca", "scaled_pca", "clustering_trials")


def deliver_again(pipeline: Pipeline, kept: np.ndarray) -> None:
    """Cluster some images of the delivery over the files of the run before."""
    file = pipeline.delivery / "images_paths.csv"
    pd.read_csv(file)[kept].to_csv(file, index=False)
    pipeline.deliver("vdc_type", pipeline.matrix("vdc_type")[kept])
    assert pipeline.run("prepare").success
    result = pipeline.run("full_pipeline", "vdc_type")
    assert result.success, reasons(result)


def test_what_answers_are_worth_is_measured_on_every_label_column(finished: Finished) -> None:
    curve = finished.pipeline.read("evaluation")
    labels = [c for c in finished.pipeline.read("image_index") if c.startswith("label")]
    assert list(dict.fromkeys(curve["attribute"])) == [c.removeprefix("label_") for c in labels]
    by = curve.set_index(["attribute", "strategy"])["accuracy"]
    for attribute in set(curve["attribute"]):
        assert by[attribute, "questions"].iloc[-1] > by[attribute, "random"].iloc[0]
        assert by[attribute, "all labels"] > 0.5
    assert curve["calibration_error"].between(0, 0.5).all()


def test_label_columns_that_tell_no_kinds_are_not_judged() -> None:
    index = pd.DataFrame(
        {
            "image_path": [f"{i}.jpg" for i in range(60)],
            "label": ["car", "bus"] * 30,
            "label_color": [None, "red", "white"] * 20,
            "labels2": ["a", "b", "c"] * 20,
            "label_remark": [f"remark {i}" for i in range(60)],
            "label_constant": "yes",
        }
    )
    assert list(true_labels(index)) == ["label", "color", "labels2"]
    assert list(true_labels(index.iloc[:12])) == ["label"]  # too few images of each color


def test_what_each_descriptor_tells_is_judged_by_labels_as_long_as_nobody_answered(
    finished: Finished,
) -> None:
    told = finished.pipeline.read("descriptor_accuracy")
    assert set(told["descriptor"]) == set(PARTITIONS)
    assert set(told["judged_by"]) == {"labels"}
    best = told[told["rank"] == 1].drop_duplicates("attribute").set_index("attribute")["accuracy"]
    assert set(best.index) == set(finished.pipeline.read("evaluation")["attribute"])


def test_descriptors_are_crossed_ranked_and_their_disputes_listed(finished: Finished) -> None:
    crossings, disputes, ranking = (
        finished.pipeline.read(name) for name in ("crossings", "disagreements", "ranking")
    )
    assert {*crossings["first"], *crossings["second"]} == set(PARTITIONS)
    assert sorted(disputes["image_path"]) == sorted(paths_of(finished.pipeline))
    assert disputes["disagreement"].dropna().is_monotonic_decreasing
    assert set(PARTITIONS) <= set(disputes.columns)
    n_trials = sum(len(finished.pipeline.read("clustering_trials", name)) for name in PARTITIONS)
    assert len(ranking) == n_trials
    assert ranking.groupby("descriptor")["won"].sum().eq(1).all()


def test_a_run_lets_go_of_what_lies_on_disk(finished: Finished) -> None:
    outputs = [
        finished.results["vdc_type"].output_for_node(name) for name in ("init", "neighbors", "clusters")
    ]
    assert [written.value for written in outputs] == [None, None, None]


def test_two_runs_with_one_seed_give_the_same_labels_byte_for_byte(
    finished: Finished, make_pipeline: Callable[..., Pipeline]
) -> None:
    other = make_pipeline()
    assert other.run("prepare").success
    assert other.run("full_pipeline", "vdc_color").success
    first, second = (p.path("final", "vdc_color").read_bytes() for p in (finished.pipeline, other))
    assert first == second


def test_a_second_run_over_the_first_one_s_files_changes_no_label(again: Callable[..., Pipeline]) -> None:
    pipeline = again()
    before = pipeline.path("final", "vdc_color").read_bytes()
    assert pipeline.run("recluster", "vdc_color").success
    assert pipeline.path("final", "vdc_color").read_bytes() == before


def test_reclustering_takes_over_init_and_makes_the_rest_again(again: Callable[..., Pipeline]) -> None:
    pipeline = again(pca={"max_components": 3})
    init = pipeline.path("init", "vdc_color").stat().st_mtime_ns
    assert pipeline.run("recluster", "vdc_color").success
    assert pipeline.path("init", "vdc_color").stat().st_mtime_ns == init
    reduced = pipeline.read("clusters", "vdc_color")
    assert reduced.vectors(reduced.vector_columns[0]).shape[1] == 3
    assert len(pipeline.read("final", "vdc_color")) == reduced.n_rows


def test_labels_take_no_part_in_any_choice(
    finished: Finished, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline()
    file = pipeline.delivery / "labels.csv"
    labels = pd.read_csv(file)
    labels["label"] = labels["label"].sample(frac=1, random_state=0).to_numpy()
    file.unlink()  # it may be a link to the file of another pipeline
    labels.to_csv(file, index=False)
    assert pipeline.run("prepare").success
    assert pipeline.run("full_pipeline", "vdc_color").success
    before, after = (p.read("final", "vdc_color") for p in (finished.pipeline, pipeline))
    pd.testing.assert_frame_equal(before.drop(columns="name"), after.drop(columns="name"))
    first, second = (p.read("clustering_trials", "vdc_color") for p in (finished.pipeline, pipeline))
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))
    assert not finished.pipeline.read("image_index")["label"].equals(pipeline.read("image_index")["label"])


# ── what Dagster shows ───────────────────────────────────────────────────────────────────────────────────────


def materializations(finished: Finished) -> dict[tuple[str, str], dict[str, Any]]:
    """Metadata by asset and by job or partition."""
    return {
        (event.asset_key.to_user_string(), what): dict(event.materialization.metadata)
        for what, result in finished.results.items()
        for event in result.all_events
        if event.is_step_materialization and event.asset_key
    }


def test_every_materialization_says_what_it_cost(finished: Finished) -> None:
    found = materializations(finished)
    assert len(found) == len(PREPARE) + len(SUMMARISE) + len(FULL_PIPELINE) * len(PARTITIONS)
    for where, metadata in found.items():
        assert metadata["seconds"].value > 0, where
        assert metadata["peak_memory_mb"].value > 10, where
        partition = where[1] if where[1] in PARTITIONS else None
        assert metadata["bytes"].value == finished.pipeline.path(where[0], partition).stat().st_size, where


def test_tables_say_how_many_rows_and_dimensions_they_have(finished: Finished) -> None:
    found = materializations(finished)
    for asset in ("init", "scaled", "scaled_pca", "clusters", "outliers", "projection", "final"):
        assert found[asset, "vdc_color"]["dagster/row_count"].value == N_IMAGES, asset
    n_features = finished.pipeline.matrix("vdc_color").shape[1]
    assert found["init", "vdc_color"]["dimensions_descriptor"].value == n_features
    for scaler in SCALERS:
        assert found["scaled", "vdc_color"][f"dimensions_{scaler}"].value == n_features
        assert 1 < found["scaled_pca", "vdc_color"][f"dimensions_{scaler}"].value < n_features


def test_metadata_stays_small_enough_for_the_event_log(finished: Finished) -> None:
    for where, metadata in materializations(finished).items():
        for name, value in metadata.items():
            assert len(str(value.value)) < 60_000, (where, name)


PICTURES = {
    "pca": "explained_variance",
    "clustering_trials": "selection",
    "clusters": "sizes",
    "outliers": "gallery",
    "cluster_profiles": "gallery",
    "projection": "map",
    "ranked_outliers": "gallery",
}


def test_what_can_be_seen_at_a_glance_is_a_picture(finished: Finished) -> None:
    shown = materializations(finished)
    for asset, name in PICTURES.items():
        for what in PARTITIONS if asset in FULL_PIPELINE else ("prepare",):
            markdown = str(shown[asset, what][name].value)
            found = re.fullmatch(r"!\[\]\(data:image/(\w+);base64,(.*)\)", markdown)
            assert found is not None, (asset, markdown[:80])
            with Image.open(io.BytesIO(base64.b64decode(found[2]))) as picture:
                assert picture.format == found[1].upper()
                assert max(picture.size) > 100


def test_every_column_of_every_table_is_described(finished: Finished, grown: Finished) -> None:
    described = 0
    everything = [*materializations(finished).items(), *materializations(grown).items()]
    for (asset, _), metadata in everything:
        if "dagster/column_schema" not in metadata:
            continue
        for column in metadata["dagster/column_schema"].value.columns:
            assert column.description, (asset, column.name)
            described += 1
    assert described > 200


def test_every_asset_says_what_it_is(finished: Finished) -> None:
    specs = list(finished.pipeline.definitions().resolve_all_asset_specs())
    assert {spec.key.to_user_string() for spec in specs} == set(FILES)
    for spec in specs:
        assert spec.group_name not in (None, "default"), spec.key
        assert spec.description, spec.key
        assert spec.kinds, spec.key
        assert spec.code_version, spec.key


def test_every_check_blocks_and_asks_a_question(finished: Finished) -> None:
    graph = finished.pipeline.definitions().resolve_asset_graph()
    checks = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    assert {"image_index", "init", "scaled", "scaled_pca", "clusters", "outliers", "final"} <= {
        check.asset_key.to_user_string() for check in checks
    }
    assert [check.name for check in checks if not check.blocking] == ["models_still_fit"]
    for check in checks:
        assert (check.description or "").endswith("?"), check.name


def test_a_check_that_fails_stops_what_comes_after(
    again: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = again()
    before = pipeline.fingerprints()
    module = importlib.import_module("iv_pipeline.assets.scaled_pca")
    monkeypatch.setattr(module, "finite_rows", lambda vectors: np.zeros(len(vectors), bool))
    result = pipeline.run("recluster", "vdc_color")
    assert not result.success
    evaluations = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert evaluations["finite_values"] is False
    done = {event.step_key for event in result.all_events if event.is_step_success}
    assert done == {"pca"}
    after = pipeline.fingerprints()
    assert {name for name in before if before[name] != after[name]} <= {
        "Scaled_PCA/vdc_color.arrow",
        "Scaled_PCA/vdc_color_pca.npz",
    }


# ── deliveries that lack something ───────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def damaged(make_pipeline: Callable[..., Pipeline]) -> tuple[Pipeline, dict[str, dg.ExecuteInProcessResult]]:
    """A run over a delivery in which four vectors of one descriptor cannot be used, and ten are equal."""
    pipeline = make_pipeline(**QUICK)
    matrix = pipeline.matrix("vdc_color").copy()
    matrix[3, 5], matrix[7, 0] = np.nan, np.inf
    matrix[11] = 0
    matrix[13] = 1e25
    matrix[20:30] = matrix[20]
    pipeline.deliver("vdc_color", matrix)
    return pipeline, pipeline.run_all()


@pytest.mark.parametrize("partition", ["vdc_color", "vdc_type+vdc_color"])
def test_rows_that_cannot_be_used_are_marked_wherever_their_descriptor_takes_part(
    damaged: tuple[Pipeline, Any], partition: str
) -> None:
    final = damaged[0].read("final", partition)
    assert len(final) == N_IMAGES
    assert final.loc[final["status"].str.startswith("unusable"), "status"].to_dict() == {
        3: UNUSABLE,
        7: UNUSABLE,
        11: "unusable: all zeros",
        13: "unusable: values far beyond those of the other images",
    }
    unusable = final.iloc[[3, 7, 11, 13]]
    assert (unusable["cluster"] == -1).all()
    assert (unusable["confidence"] == 0).all()
    assert unusable["is_outlier"].all()
    assert (unusable["name"] == "").all()


def test_images_of_equal_vectors_get_equal_labels(damaged: tuple[Pipeline, Any]) -> None:
    pipeline = damaged[0]
    final = pipeline.read("final", "vdc_color")[20:30]
    assert (final["cluster"] == final["cluster"].iloc[0]).all()
    clusters = pipeline.read("clusters", "vdc_color")
    for name in ALGORITHMS:
        assert len(np.unique(clusters.column(f"label_{name}").to_numpy()[20:30])) == 1, name
    places = pipeline.read("projection", "vdc_color").loc[20:29, ["x2", "y2"]]
    assert (places == places.iloc[0]).all(axis=None)


def test_rows_that_cannot_be_used_are_reported(damaged: tuple[Pipeline, Any]) -> None:
    for partition in ("vdc_color", "vdc_type+vdc_color"):
        events = damaged[1][partition].asset_materializations_for_node("statistics")
        assert events[0].metadata["unusable_rows"].value == 4
    notices = damaged[1]["vdc_color"].asset_materializations_for_node("statistics")[0].metadata["notices"]
    assert "descriptor vdc_color: 1 of 200 vectors are unusable (all zeros)" in str(notices.value)


def test_an_image_without_a_usable_vector_is_not_called_unusual(
    damaged: tuple[Pipeline, Any],
) -> None:
    ranked = damaged[0].read("ranked_outliers").set_index("image_path")["reasons"]
    reason = ranked[paths_of(damaged[0])[11]]
    assert "no usable vector: vdc_color" in reason
    assert "unusual" not in reason


def test_rows_that_cannot_be_used_leave_other_descriptors_alone(damaged: tuple[Pipeline, Any]) -> None:
    final = damaged[0].read("final", "vdc_type")
    assert UNUSABLE not in set(final["status"])
    assert (
        damaged[1]["vdc_type"]
        .asset_materializations_for_node("statistics")[0]
        .metadata["unusable_rows"]
        .value
        == 0
    )


@pytest.fixture(scope="module")
def bare(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """A run with one descriptor, no archive, no labels and scalers in place of scaled vectors."""
    pipeline = make_pipeline(
        descriptors={"vdc_color": "descriptors/vdc_color.pickle"},
        combinations={},
        delivery={"archive": None},
        scaled={"store": "parameters"},
    )
    (pipeline.delivery / "labels.csv").unlink()
    pipeline.run_all()
    return pipeline


def test_one_descriptor_without_archive_and_labels_is_enough(bare: Pipeline) -> None:
    assert bare.settings.config.partitions == ["vdc_color"]
    assert bare.read("final", "vdc_color")["image_path"].to_list() == paths_of(bare)
    assert bare.read("summary")["descriptor"].to_list() == ["vdc_color"]
    assert "label" not in bare.read("image_index")
    assert set(bare.read("image_quality")["error"]) == {"no image archive"}
    assert bare.path("report").stat().st_size > 0


def test_an_archive_that_is_not_there_does_not_stop_a_run(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline()
    (pipeline.delivery / "raw_data" / "veriwild.zip").unlink()
    assert pipeline.run("prepare").success
    assert pipeline.read("image_quality")["score"].isna().all()


def test_stored_scalers_read_like_the_vectors_that_they_make(bare: Pipeline, finished: Finished) -> None:
    assert bare.path("scaled", "vdc_color").stat().st_size < (
        finished.pipeline.path("scaled", "vdc_color").stat().st_size
    )
    computed, stored = (p.read("scaled", "vdc_color") for p in (bare, finished.pipeline))
    assert computed.schema.names == stored.schema.names
    for scaler in SCALERS:
        np.testing.assert_array_equal(
            computed.vectors(scaler).to_array(), stored.vectors(scaler).to_array(), strict=True
        )


@pytest.mark.parametrize("store", ["vectors", "parameters"])
def test_clustered_is_made_on_request(store: str, again: Callable[..., Pipeline], bare: Pipeline) -> None:
    pipeline = again() if store == "vectors" else bare
    assert not pipeline.path("clustered", "vdc_color").exists()
    result = pipeline.materialize("clustered", partition="vdc_color")
    assert result.success, reasons(result)
    table = pipeline.read("clustered", "vdc_color")
    assert table.n_rows == 100
    assert {f"label_{name}" for name in ALGORITHMS} <= set(table.schema.names)


# ── deliveries that are wrong ────────────────────────────────────────────────────────────────────────────────


class Hostile:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {TRACE}",)


def lose_rows(pipeline: Pipeline) -> None:
    pipeline.deliver("vdc_color", pipeline.matrix("vdc_color")[:-10])


def deliver_code(pipeline: Pipeline) -> None:
    pipeline.pickle_of("vdc_color").write_bytes(pickle.dumps(Hostile()))


def truncate(pipeline: Pipeline) -> None:
    file = pipeline.pickle_of("vdc_color")
    file.write_bytes(file.read_bytes()[:-1000])


def lose_file(pipeline: Pipeline) -> None:
    pipeline.pickle_of("vdc_color").unlink()


def repeat_path(pipeline: Pipeline) -> None:
    file = pipeline.delivery / "images_paths.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[9] = lines[4]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def leave_folder(pipeline: Pipeline) -> None:
    file = pipeline.delivery / "images_paths.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[9] = "..\\..\\etc\\passwd"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def truncate_archive(pipeline: Pipeline) -> None:
    file = pipeline.delivery / "raw_data" / "veriwild.zip"
    file.write_bytes(file.read_bytes()[:-5000])


@pytest.mark.parametrize(
    ("spoil", "step", "says"),
    [
        (lose_rows, "init", (f"vdc_color.pickle: has {N_IMAGES - 10} rows", f"{N_IMAGES} paths")),
        (lose_rows, "image_index", (f"vdc_color.pickle: has {N_IMAGES - 10} rows", f"{N_IMAGES} paths")),
        (deliver_code, "init", ("vdc_color.pickle", "system")),
        (truncate, "init", ("vdc_color.pickle: ends in the middle of its data", "copy it again")),
        (lose_file, "init", ("there is no such file", "vdc_color.pickle", "copy it there")),
        (repeat_path, "init", ("lines 5 and 10 have the same path", "keep one of them")),
        (repeat_path, "image_index", ("lines 5 and 10 have the same path", "keep one of them")),
        (leave_folder, "image_index", ("line 10", "leads out of the delivery")),
        (truncate_archive, "image_quality", ("veriwild.zip",)),
    ],
)
def test_a_wrong_delivery_gets_one_sentence_and_changes_no_file(
    again: Callable[..., Pipeline],
    spoil: Callable[[Pipeline], None],
    step: str,
    says: tuple[str, ...],
) -> None:
    pipeline = again()
    before = pipeline.fingerprints()
    spoil(pipeline)
    result = pipeline.materialize(step, partition="vdc_color" if step == "init" else None)
    assert list(reasons(result)) == [step]
    sentence = reasons(result)[step]
    for part in says:
        assert part in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert pipeline.fingerprints() == before
    assert not TRACE.exists()


def test_more_clusters_than_images_become_as_many_as_there_are_images(
    again: Callable[..., Pipeline],
) -> None:
    chosen = {"algorithm": "kmeans", "representation": "pca", "scaler": "standard", "n_clusters": 500}
    greedy = {"file": "descriptors/vdc_color.pickle", "choose": chosen}
    pipeline = again(descriptors=CONFIG["descriptors"] | {"vdc_color": greedy})
    stages = ("clustering_trials", "representation", "neighbors", "hierarchy", "clusters")
    result = pipeline.materialize(*stages, partition="vdc_color")
    assert result.success, reasons(result)
    assert len(np.unique(pipeline.read("clusters", "vdc_color").column("cluster").to_numpy())) == N_IMAGES
    (made,) = result.asset_materializations_for_node("clusters")
    assert f"{N_IMAGES} distinct vectors" in str(made.metadata["notices"].value)


def test_a_stage_before_its_inputs_says_what_to_materialize(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline()
    result = pipeline.materialize("init", partition="vdc_color")
    assert "materialize 'image_index' first" in reasons(result)["init"]
    assert "Traceback" not in reasons(result)["init"]


def test_the_summary_counts_the_clusters_and_the_noise_of_the_final_csvs(
    again: Callable[..., Pipeline],
) -> None:
    pipeline = again()
    final = pipeline.read("final", "vdc_type")
    final.loc[:20, ["cluster", "status"]] = [-1, "noise"]
    final.loc[final["cluster"] == final["cluster"].max(), ["cluster", "status"]] = [-1, "noise"]
    pipeline.path("final", "vdc_type").unlink()  # a link to the file of another pipeline
    final.to_csv(pipeline.path("final", "vdc_type"), index=False)
    assert pipeline.materialize("summary").success
    row = pipeline.read("summary").set_index("descriptor").loc["vdc_type"]
    assert row["n_clusters"] == final.loc[final["cluster"] >= 0, "cluster"].nunique()
    assert row["noise_share"] == pytest.approx((final["status"] == "noise").mean())


def test_csvs_are_read_back_with_the_types_that_they_were_written_with(finished: Finished) -> None:
    pipeline = finished.pipeline
    stages = ("ranked_outliers", "disagreements", "ranking", "summary")
    for path in [pipeline.path(stage) for stage in stages] + [pipeline.path("final", "vdc_type")]:
        read = read_csv(UPath(path))
        text = {name for name, dtype in read.dtypes.items() if dtype.kind not in "bif"}
        assert text == TEXT & set(read.columns), path.name


def test_the_summary_keeps_the_ranks_before_the_last_change(again: Callable[..., Pipeline]) -> None:
    pipeline = again()
    summary = pipeline.read("summary")
    assert summary["previous_rank"].isna().all()  # the first one
    other = summary.assign(rank=summary["rank"].iloc[::-1].to_numpy()).iloc[:2]
    pipeline.path("summary").unlink()  # a link to the file of another pipeline
    other.to_csv(pipeline.path("summary"), index=False)
    for _ in range(2):  # made again, it does not forget
        assert pipeline.materialize("summary").success
        ranks = pipeline.read("summary").set_index("descriptor")["previous_rank"]
        assert ranks.dropna().to_dict() == other.set_index("descriptor")["rank"].to_dict()
        assert ranks.isna().sum() == 1


def test_a_summary_before_any_descriptor_says_what_to_materialize(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    pipeline = make_pipeline()
    assert pipeline.run("prepare").success
    result = pipeline.run("summarise")
    assert not result.success
    for step, sentence in reasons(result).items():
        assert "full_pipeline" in sentence, step
        assert "\n" not in sentence, step


def test_trials_of_an_earlier_version_are_named_with_what_to_do(again: Callable[..., Pipeline]) -> None:
    pipeline = again()
    path = pipeline.path("clustering_trials", "vdc_type")
    trials = pd.read_parquet(path).drop(columns="round")
    path.unlink()  # other data roots share its content
    trials.to_parquet(path)
    result = pipeline.run("summarise")
    assert not result.success
    assert "vdc_type" in reasons(result)["ranking"]
    assert "earlier version, without the column 'round'; materialize" in reasons(result)["ranking"]


# ── a real delivery ──────────────────────────────────────────────────────────────────────────────────────────


def test_scaled_and_reduced_vectors_of_a_real_delivery_match_scikit_learn(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    if not TRAFFIC_CAMERA.is_dir():
        pytest.skip(f"there is no delivery at {TRAFFIC_CAMERA}")
    from dataclasses import replace

    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    pipeline = replace(make_pipeline(), delivery=TRAFFIC_CAMERA)
    assert pipeline.materialize("image_index").success
    stages = ("init", "statistics", "scaled", "pca", "scaled_pca")
    assert pipeline.materialize(*stages, partition="vdc_color").success
    raw = pipeline.matrix("vdc_color").astype(np.float64)
    np.testing.assert_array_equal(
        pipeline.read("init", "vdc_color").vectors("descriptor").to_array(), raw.astype(np.float32)
    )
    scaled, reduced = pipeline.read("scaled", "vdc_color"), pipeline.read("scaled_pca", "vdc_color")
    scalers = {"standard": StandardScaler(), "minmax": MinMaxScaler(), "robust": RobustScaler()}
    for kind, scaler in scalers.items():
        expected = scaler.fit_transform(raw)
        vectors = scaled.vectors(kind).to_array()
        assert np.abs(vectors - expected).max() <= 1e-4 * np.abs(expected).max(), kind
        expected -= expected.mean(axis=0)
        singular = np.linalg.svd(expected, compute_uv=False)
        share = np.cumsum(singular**2) / (singular**2).sum()
        norms = np.linalg.norm(reduced.vectors(kind).to_array().astype(np.float64), axis=0)
        assert len(norms) == np.searchsorted(share, 0.9) + 1, kind
        np.testing.assert_allclose(norms, singular[: len(norms)], rtol=1e-3, err_msg=kind)
