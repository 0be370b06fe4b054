"""Batches of the inbox: labels, drift, refits and rollbacks, in this process."""

from __future__ import annotations

import errno
import importlib
import json
import os
import pickle
import shutil
import zipfile
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml
from upath import UPath

from iv_pipeline.assets.arrival import CONTENT_TAG
from iv_pipeline.automation.attempts import next_attempt
from iv_pipeline.automation.inbox import BATCH_TAG
from iv_pipeline.errors import InputError
from iv_pipeline.labelling import load_labeller
from iv_pipeline.learn.statistics import compute_statistics
from iv_pipeline.storage import versions
from iv_pipeline.storage.hand_off import read_csv
from iv_pipeline.storage.inbox import fingerprint_of
from iv_pipeline.storage.tables import read_table
from iv_pipeline_tests.assets.test_attributes import (
    answer,
    answer_clusters,
    refresh,
    truth_of,
    write_answers,
)
from iv_pipeline_tests.conftest import CONFIG, N_IMAGES, PARTITIONS, reasons

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from iv_pipeline_tests.conftest import Finished, Pipeline

    Again = Callable[..., Pipeline]

COLUMNS = (
    *("image_path", "cluster", "confidence", "is_outlier", "outlier_score", "status", "name"),
    *("duplicate_of", "model_version"),
)


@pytest.fixture
def again(again: Again) -> Again:
    """Without the combination, unless a test is about it: what it does takes half the time."""
    return lambda **changes: again(**{"combinations": {}, **changes})


@pytest.fixture
def grown_again(grown: Finished, again: Again) -> Pipeline:
    """A pipeline of one's own after a batch has joined by a refit."""
    pipeline = again()
    shutil.rmtree(pipeline.root)
    shutil.copytree(grown.pipeline.root, pipeline.root, copy_function=os.link)
    return pipeline


def label(pipeline: Pipeline, batch: str) -> None:
    result = pipeline.run("label_batch", batch)
    assert result.success, reasons(result)


def refit(pipeline: Pipeline) -> pd.DataFrame:
    result = pipeline.run("refit")
    assert result.success, reasons(result)
    return pd.read_csv(pipeline.root / "Final" / "refits.csv", keep_default_na=False)


def labels_of(pipeline: Pipeline, batch: str, descriptor: str = "vdc_type") -> pd.DataFrame:
    path = pipeline.root / "Final" / "batches" / batch / f"{descriptor}.csv"
    return pd.read_csv(path, keep_default_na=False)


def facts_of(pipeline: Pipeline, batch: str) -> dict[str, object]:
    path = pipeline.root / "Final" / "batches" / batch / "batch.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_accepts_its_models_as_the_first_version(finished: Finished) -> None:
    accepted = finished.pipeline.read("accepted_models")
    assert accepted["version"] == 1
    assert set(accepted["models"]) == set(PARTITIONS)
    assert accepted["batches"] == []


def test_a_batch_gets_the_labels_that_the_python_interface_gives(again: Again) -> None:
    pipeline = again(combinations=CONFIG["combinations"])
    folder = pipeline.send("monday", range(50))
    label(pipeline, "monday")
    for partition in PARTITIONS:
        files = [folder / "descriptors" / f"{b}.pickle" for b in pipeline.settings.config.blocks(partition)]
        vectors = np.hstack([pickle.loads(file.read_bytes()) for file in files])
        found = labels_of(pipeline, "monday", partition)
        expected = load_labeller(pipeline.root, partition).label(vectors)
        assert tuple(found) == COLUMNS
        pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=1e-5, check_dtype=False)
        assert found["image_path"].iloc[0] == "veriwild/monday/000000.jpg"
        assert (found["model_version"] == 1).all()
    assert facts_of(pipeline, "monday")["descriptors"] == list(PARTITIONS)


@pytest.mark.kernels
def test_a_batch_may_have_some_of_the_descriptors(again: Again) -> None:
    pipeline = again()
    pipeline.send("monday", range(20), descriptors=("vdc_color",))
    label(pipeline, "monday")
    facts = facts_of(pipeline, "monday")
    assert facts["descriptors"] == ["vdc_color"]
    assert facts["left_out"] == ["vdc_type", "vdc_type+vdc_color"]
    refit(pipeline)
    assert pipeline.read("accepted_models")["batches"] == []  # it cannot join without the others


def test_a_batch_is_laid_out_as_its_own_file_says(again: Again) -> None:
    pipeline = again()
    folder = pipeline.send("monday", range(20))
    (folder / "images_paths.csv").rename(folder / "names.csv")
    (folder / "delivery.yaml").write_text("paths: names.csv\n")
    label(pipeline, "monday")
    assert len(labels_of(pipeline, "monday")) == 20


def test_other_content_under_the_same_name_is_labelled_anew(again: Again) -> None:
    pipeline = again()
    pipeline.send("monday", range(20))
    label(pipeline, "monday")
    first = facts_of(pipeline, "monday")["fingerprint"]
    pipeline.send("monday", range(30))
    label(pipeline, "monday")
    assert facts_of(pipeline, "monday")["fingerprint"] != first
    labels = labels_of(pipeline, "monday")
    assert len(labels) == 30
    assert (labels["duplicate_of"] == "").all()  # it does not know itself by what it was before


def test_a_batch_can_be_labelled_again_when_the_inbox_has_been_cleared(again: Again) -> None:
    pipeline = again()
    folder = pipeline.send("monday", range(20))
    label(pipeline, "monday")
    before = labels_of(pipeline, "monday")
    shutil.rmtree(folder)
    label(pipeline, "monday")
    pd.testing.assert_frame_equal(labels_of(pipeline, "monday"), before)
    facts = facts_of(pipeline, "monday")
    assert run_of(pipeline, "monday", "0" * 16) == 2  # for other content, which has gone
    assert facts_of(pipeline, "monday") == facts


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("descriptors/vdc_type.pickle", b"\x80\x04\x95", "vdc_type.pickle"),
        ("images_paths.csv", b"paths\na.jpg\n", "has 20 rows, but"),
        ("images_paths.csv", b"paths\n../a.jpg\n", "leads out of the delivery"),
    ],
)
def test_a_damaged_batch_fails_with_the_name_of_its_file_and_nothing_is_lost(
    file: str, content: bytes, message: str, again: Again
) -> None:
    pipeline = again()
    pipeline.send("sunday", range(10))
    label(pipeline, "sunday")
    folder = pipeline.send("monday", range(20))
    (folder / file).write_bytes(content)
    before = pipeline.fingerprints()
    result = pipeline.run("label_batch", "monday")
    assert not result.success
    (reason,) = reasons(result).values()
    assert message in reason
    assert file in reason
    assert pipeline.fingerprints() == before


def test_descriptors_of_another_network_are_refused(again: Again) -> None:
    pipeline = again()
    folder = pipeline.send("monday", range(20))
    (folder / "descriptors" / "vdc_type.pickle").write_bytes(pickle.dumps(np.ones((20, 7), np.float32)))
    result = pipeline.run("label_batch", "monday")
    (reason,) = reasons(result).values()
    assert "7 features of vdc_type" in reason
    assert "deliver the descriptor of the same network" in reason


def test_a_batch_without_any_descriptor_is_told(again: Again) -> None:
    pipeline = again()
    pipeline.send("monday", range(20), descriptors=())
    (reason,) = reasons(pipeline.run("label_batch", "monday")).values()
    assert "has none of descriptors/vdc_type.pickle, descriptors/vdc_color.pickle" in reason


def run_of(pipeline: Pipeline, batch: str, content: str) -> int | str:
    """Label a batch as the sensor has it done; what the sensor does next about it."""
    job = pipeline.definitions().resolve_job_def("label_batch")
    tags = {BATCH_TAG: batch, CONTENT_TAG: content}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("batch", [batch])
        result = job.execute_in_process(
            instance=instance, partition_key=batch, tags=tags, raise_on_error=False
        )
        assert not result.success
        return next_attempt(instance, tags)


def test_a_run_whose_batch_was_changed_under_it_is_started_again_and_one_that_failed_is_not(
    again: Again,
) -> None:
    pipeline = again()
    folder = pipeline.send("monday", range(20))
    assert run_of(pipeline, "monday", "0" * 16) == 2
    (folder / "descriptors" / "vdc_type.pickle").write_bytes(b"\x80\x04")
    said = run_of(pipeline, "monday", fingerprint_of(UPath(folder), "_SUCCESS"))
    assert "ended without a result; correct what it names" in str(said)


# ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_gets_the_attributes_that_the_python_interface_gives(again: Again) -> None:
    pipeline = again()
    answer_clusters(pipeline, "type")
    folder = pipeline.send("monday", range(50))
    label(pipeline, "monday")
    found = labels_of(pipeline, "monday", "attributes")
    files = {name: folder / "descriptors" / f"{name}.pickle" for name in PARTITIONS[:2]}
    vectors = {name: pickle.loads(file.read_bytes()) for name, file in files.items()}
    expected = load_labeller(pipeline.root, list(vectors)).label(vectors)
    assert found.columns.to_list() == ["image_path", *expected, "duplicate_of", "model_version"]
    pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=1e-5, check_dtype=False)
    assert found["image_path"].to_list() == labels_of(pipeline, "monday")["image_path"].to_list()
    assert (found["model_version"] == 1).all()
    truth = truth_of(pipeline.read("image_index")["image_path"])["group"].to_numpy()[:50]
    assert (found["type"].to_numpy() == truth).mean() > 0.9
    assert facts_of(pipeline, "monday")["attributes"] == ["type", "view", "color"]


def test_an_image_that_was_known_keeps_what_people_said_of_it(again: Again) -> None:
    pipeline = again()
    paths = pipeline.read("image_index")["image_path"]
    said = {
        "image_path": [paths[3], paths[4], paths[5]],
        "type": ["tractor", "lorry", ""],
        "is_outlier": ["", "", "yes"],
    }
    write_answers(pipeline, "images", pd.DataFrame(said))
    pipeline.send("monday", range(20), noise=0)
    label(pipeline, "monday")
    found = labels_of(pipeline, "monday", "attributes")
    assert found["duplicate_of"].to_list() == paths[:20].to_list()
    assert (found["type"][3], found["type_confidence"][3]) == ("tractor", 1)
    assert found["type_confidence"][5] < 1
    assert (found["is_outlier"][5], found["reasons"][5]) == (True, "a person says so")


def test_a_fit_without_joint_features_labels_without_attributes_and_says_so(again: Again) -> None:
    pipeline = again()
    pipeline.send("monday", range(20))
    label(pipeline, "monday")
    pipeline.path("joint_features").unlink()
    result = pipeline.run("label_batch", "monday")
    assert result.success, reasons(result)
    found = {path.name for path in (pipeline.root / "Final" / "batches" / "monday").iterdir()}
    assert found == {"batch.json", "vdc_type.csv", "vdc_color.csv"}
    assert facts_of(pipeline, "monday")["attributes"] is None
    (event,) = [
        e for e in result.get_asset_materialization_events() if e.asset_key.path == ["labelled_batch"]
    ]
    assert "materialize 'joint_features'" in str(event.materialization.metadata["notices"].value)


def test_answers_survive_a_refit(again: Again) -> None:
    pipeline = again(attributes={"group": None, "parity": ["even", "odd"]})
    refresh(pipeline)
    answer(pipeline, 12)
    paths = pipeline.read("image_index")["image_path"]
    write_answers(pipeline, "images", pd.DataFrame({"image_path": [paths[3]], "group": ["tractor"]}))
    refresh(pipeline)
    before = pipeline.read("attributes")
    joining = range(0, N_IMAGES, 3)
    pipeline.send("monday", joining)
    label(pipeline, "monday")
    assert refit(pipeline)["accepted"].all()
    after = pipeline.read("attributes")
    new = labels_of(pipeline, "monday")["image_path"]
    assert after["image_path"].to_list() == [*paths, *new]
    truth = truth_of(paths)
    truth = pd.concat([truth, truth.iloc[list(joining)]])
    for name in truth.columns:
        assert (after[name].to_numpy() == truth[name].to_numpy()).mean() > 0.9, name
        assert (after[name][:N_IMAGES] == before[name]).mean() > 0.95, name
    assert (after["group"][3], after["group_confidence"][3]) == ("tractor", 1)


# ── images that are known ────────────────────────────────────────────────────────────────────────────────────


def test_images_of_the_delivery_are_recognized_by_path_and_by_vectors(again: Again) -> None:
    pipeline = again()
    folder = pipeline.send("monday", range(20), noise=0)
    paths = pipeline.read("image_index")["image_path"]
    names = [paths[100], *(f"new/{i}.jpg" for i in range(19))]
    (folder / "images_paths.csv").write_text("\n".join(["paths", *names, ""]))
    label(pipeline, "monday")
    assert labels_of(pipeline, "monday")["duplicate_of"].tolist() == [paths[100], *paths[1:20]]
    assert facts_of(pipeline, "monday")["known_before"] == 20
    drift = pipeline.read("drift", "monday")
    assert (drift["images"] == 0).all()
    assert not drift["drifted"].any()


def test_pictures_tell_more_than_vectors(again: Again) -> None:
    pipeline = again()
    folder = pipeline.send("monday", range(4), noise=0.1)
    known = pipeline.read("image_index")["image_path"].to_list()
    (folder / "raw_data").mkdir()
    archive = pipeline.settings.config.delivery.archive or ""
    with (
        zipfile.ZipFile(pipeline.delivery / archive) as source,
        zipfile.ZipFile(folder / archive, "w") as target,
    ):
        entries = {name.partition("/")[2] or name: name for name in source.namelist()}
        image = source.read(next(full for full in entries.values() if full.endswith(known[7][-10:])))
        pictures = [image, b"another", image, b"one more"]
        for i, picture in enumerate(pictures):
            target.writestr(f"veriwild/monday/{i:06}.jpg", picture)
    label(pipeline, "monday")
    found = labels_of(pipeline, "monday")["duplicate_of"]
    assert found[0] == found[2] != ""
    assert found[1] == found[3] == ""


@pytest.mark.kernels
def test_images_of_another_batch_are_recognized(again: Again) -> None:
    pipeline = again()
    pipeline.send("monday", range(20))
    label(pipeline, "monday")
    pipeline.send("tuesday", range(20))
    label(pipeline, "tuesday")
    found = labels_of(pipeline, "tuesday")["duplicate_of"]
    assert found.tolist() == labels_of(pipeline, "monday")["image_path"].tolist()
    refit(pipeline)
    joined = pipeline.read("accepted_models")["batches"]
    assert [batch["batch"] for batch in joined] == ["monday"]  # nothing in the other is new


# ── drift ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_like_the_delivery_has_not_drifted_and_a_shifted_one_has(again: Again) -> None:
    pipeline = again()
    pipeline.send("monday", range(0, N_IMAGES, 2), noise=0.05)
    label(pipeline, "monday")
    pipeline.send("night", range(0, N_IMAGES, 2), shift=4.0)
    result = pipeline.run("label_batch", "night")
    assert result.success, reasons(result)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "models_still_fit"]
    assert not check.passed
    assert check.severity.value == "WARN"
    drift = pipeline.read("drift", "night")
    assert drift["drifted"].all()
    assert (drift["refused"] > 0.5).all()
    assert not pipeline.read("drift", "monday")["drifted"].any(), pipeline.read("drift", "monday").T


# ── refits ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.kernels
def test_a_refit_takes_in_what_came_and_keeps_numbers_and_names(finished: Finished, grown: Finished) -> None:
    before, after = (p.pipeline.read("final", "vdc_type") for p in (finished, grown))
    history = grown.pipeline.read("refits")
    assert history["accepted"].all(), history.T
    assert set(history["descriptor"]) == set(PARTITIONS)
    accepted = grown.pipeline.read("accepted_models")
    assert accepted["version"] == 2
    assert [batch["batch"] for batch in accepted["batches"]] == ["monday"]
    n_new = len(range(0, N_IMAGES, 3))
    assert after["image_path"].tolist()[:N_IMAGES] == before["image_path"].tolist()
    assert len(after) == N_IMAGES + n_new
    assert np.mean(after["cluster"][:N_IMAGES] == before["cluster"]) >= 0.8
    assert set(after[after["cluster"] == 0]["name"]) == {"white saloons"}


@pytest.mark.kernels
def test_statistics_of_the_grown_fit_are_those_of_all_its_rows(grown: Finished) -> None:
    for partition in PARTITIONS:
        table = read_table(grown.pipeline.settings.data_root / f"Init/{partition}.arrow")
        found = grown.pipeline.read("statistics", partition)
        expected = compute_statistics(table.vectors("descriptor"))
        assert int(found["n_rows"]) == table.n_rows
        np.testing.assert_allclose(found["mean"], expected.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["covariance"], expected.covariance, rtol=1e-3, atol=1e-5)


@pytest.mark.kernels
def test_a_refit_shows_its_stages_in_dagster(grown: Finished) -> None:
    made = {
        (event.asset_key.to_user_string(), event.partition)
        for event in grown.results["refit"].all_events
        if event.event_type_value == "ASSET_MATERIALIZATION" and event.asset_key
    }
    assert {("clusters", p) for p in PARTITIONS} <= made
    assert {("summary", None), ("accepted_models", None), ("refits", None)} <= made


@pytest.mark.kernels
def test_a_run_after_a_refit_is_of_the_grown_fit_set(grown: Finished, grown_again: Pipeline) -> None:
    pipeline = grown_again
    for job, partition in (("prepare", None), ("full_pipeline", "vdc_color")):
        result = pipeline.run(job, partition)
        assert result.success, reasons(result)
    before, after = (p.read("final", "vdc_color") for p in (grown.pipeline, pipeline))
    assert after["image_path"].tolist() == before["image_path"].tolist()
    assert np.mean(after["cluster"] == before["cluster"]) >= 0.8


@pytest.mark.kernels
def test_a_refit_with_nothing_to_take_in_changes_nothing(finished: Finished, again: Again) -> None:
    pipeline = again()
    assert refit(pipeline).empty
    before = finished.pipeline.fingerprints()
    assert {k: v for k, v in pipeline.fingerprints().items() if k != "Final/refits.csv"} == before


@pytest.mark.kernels
def test_a_worse_fit_is_refused_and_says_why(again: Again) -> None:
    pipeline = again(refit={"kept_share": 1.0, "score_loss": 0.0})
    pipeline.send("night", range(N_IMAGES), shift=5.0, noise=1.0)
    label(pipeline, "night")
    before = pipeline.fingerprints()
    history = refit(pipeline)
    assert not history["accepted"].any()
    assert (
        history["reason"]
        .str.contains("of the images keep their cluster|score falls|are gone|fails its check")
        .any()
    )
    assert (history["version"] == 1).all()
    after = pipeline.fingerprints()
    assert {k: v for k, v in after.items() if k != "Final/refits.csv"} == before


@pytest.mark.kernels
def test_images_that_came_before_in_a_batch_that_cannot_join_do_join(again: Again) -> None:
    pipeline = again()
    pipeline.send("part", range(30), descriptors=PARTITIONS[:1], prefix="camera")
    label(pipeline, "part")
    pipeline.send("whole", range(40), prefix="camera")
    label(pipeline, "whole")
    known = labels_of(pipeline, "whole")["duplicate_of"]
    assert (known[:30] != "").all()
    history = refit(pipeline)
    assert (history["batches"] == "whole").all()
    assert (history["images_joined"] == 40).all()


@pytest.mark.kernels
def test_a_batch_that_has_joined_without_a_descriptor_is_named_and_can_leave(
    grown_again: Pipeline, again: Again
) -> None:
    pipeline = again(refit={"exclude": ["monday"]})
    shutil.rmtree(pipeline.root)
    shutil.copytree(grown_again.root, pipeline.root, copy_function=os.link)
    (vectors,) = (grown_again.root / "Init" / "batches" / "monday").glob("*/vdc_color.arrow")
    vectors.unlink()
    said = reasons(grown_again.run("prepare"))["views"]
    assert "batch monday: has joined the fit without vdc_color; name it under refit.exclude" in said
    said = reasons(pipeline.run("refit"))["refits"]
    assert said.startswith(
        "batch monday: has joined the fit and is excluded by now; run the pipeline once without it"
    )
    assert pipeline.materialize("accepted_models").success
    assert pipeline.read("accepted_models")["batches"] != []  # the fit in force is with it still
    assert pipeline.run("prepare").success
    assert len(pipeline.read("image_index")) == N_IMAGES
    said = reasons(pipeline.run("summarise"))["summary"]
    assert said.endswith("was made of other images than image_index; run full_pipeline for it again")
    assert pipeline.materialize("accepted_models").success
    assert pipeline.read("accepted_models")["batches"] == []


@pytest.mark.kernels
def test_a_batch_that_a_person_keeps_out_does_not_join(again: Again) -> None:
    pipeline = again(refit={"exclude": ["monday"]})
    pipeline.send("monday", range(30))
    label(pipeline, "monday")
    assert refit(pipeline).empty


@pytest.mark.kernels
def test_a_batch_that_comes_during_a_refit_is_labelled_by_the_models_in_force(
    again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = again()
    pipeline.send("monday", range(50))
    label(pipeline, "monday")
    promote = versions.promote

    def promote_later(data_root: UPath, models: versions.ModelSet) -> None:
        pipeline.send("tuesday", range(50, 80))
        label(pipeline, "tuesday")
        promote(data_root, models)

    monkeypatch.setattr(importlib.import_module("iv_pipeline.assets.refits"), "promote", promote_later)
    assert refit(pipeline)["accepted"].all()
    assert (labels_of(pipeline, "tuesday")["model_version"] == 1).all()
    pipeline.send("wednesday", range(80, 110))
    label(pipeline, "wednesday")
    assert (labels_of(pipeline, "wednesday")["model_version"] == 2).all()


@pytest.mark.kernels
def test_a_process_that_dies_while_files_take_their_places_loses_nothing(
    again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = again()
    pipeline.send("monday", range(50))
    label(pipeline, "monday")
    with monkeypatch.context() as patch:
        patch.setattr(versions, "accept", lambda *_: pytest.fail("killed"))
        assert not pipeline.run("refit").success
    assert pipeline.read("accepted_models")["version"] == 1
    assert refit(pipeline)["accepted"].all()  # it is finished, and what was decided is told
    assert pipeline.read("accepted_models")["version"] == 2
    assert len(pipeline.read("final", "vdc_type")) == N_IMAGES + 50
    assert not (pipeline.root / "Models" / "candidate").exists()


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.kernels
def test_a_rollback_puts_models_and_results_back(finished: Finished, grown_again: Pipeline) -> None:
    pipeline = grown_again
    listed = pipeline.command("iv-pipeline", "versions")
    assert listed.stdout.splitlines() == [
        "1  3 models; joined batches: none",
        "2  3 models; joined batches: monday; in force",
    ]
    back = pipeline.command("iv-pipeline", "rollback", "1")
    assert back.returncode == 0, back.stderr
    for partition in PARTITIONS:
        first = finished.pipeline.read("final", partition)
        pd.testing.assert_frame_equal(pipeline.read("final", partition), first)
    pipeline.send("tuesday", range(20))
    label(pipeline, "tuesday")
    assert (labels_of(pipeline, "tuesday")["model_version"] == 1).all()
    unknown = pipeline.command("iv-pipeline", "rollback", "7")
    assert unknown.returncode == 1
    assert "version 7 cannot be put back" in unknown.stderr
    assert "choose one of those kept, 1, 2" in unknown.stderr


def test_a_data_root_may_be_any_url_that_fsspec_opens(again: Again) -> None:
    pipeline, root = again(), UPath("memory://fleet")
    pipeline.send("monday", range(50))
    root.fs.put(str(pipeline.root), root.path, recursive=True)
    shutil.rmtree(pipeline.root)
    for job, partition in (("label_batch", "monday"), ("refit", None)):
        result = pipeline.run(job, partition, data_root=root)
        assert result.success, (job, reasons(result))
    assert (read_csv(root / "Final" / "batches" / "monday" / "vdc_type.csv")["model_version"] == 1).all()
    assert read_csv(root / "Final" / "refits.csv")["accepted"].all()
    assert len(read_csv(root / "Final" / "vdc_type.csv")) == N_IMAGES + 50
    versions.roll_back(root, 1)
    assert len(read_csv(root / "Final" / "vdc_type.csv")) == N_IMAGES
    assert not pipeline.root.exists()


@pytest.mark.kernels
def test_what_labels_refer_to_outlives_its_version(again: Again) -> None:
    pipeline = again(retention={"versions": 0})
    pipeline.send("monday", range(50))
    label(pipeline, "monday")
    assert refit(pipeline)["accepted"].all()
    kept = {path.name for path in (pipeline.root / "Models" / "versions" / "1").iterdir()}
    assert kept == {"set.json"}  # its results went
    vectors = pipeline.matrix("vdc_type")[:20]
    labels = load_labeller(pipeline.root, "vdc_type", version=1).label(vectors)
    assert len(labels) == 20  # its model, which labelled monday, did not


@pytest.mark.kernels
def test_a_version_that_was_cleaned_up_in_part_cannot_be_put_back(
    grown_again: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = UPath(grown_again.root)
    current = versions.accepted(root)
    assert current is not None
    before = versions.known_versions(root)[1]
    with monkeypatch.context() as patch:
        patch.setattr(versions, "remove", lambda _: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            versions.clean(root, current, before, 0, ())
    with pytest.raises(InputError, match="its results are not kept any more"):
        versions.roll_back(root, 1)
    assert versions.clean(root, current, before, 0, ()) == ["Models/versions/1"]
    assert [path.name for path in (root / "Models" / "versions" / "1").iterdir()] == ["set.json"]
    versions.write_json(before.to_facts(), root / "Models" / "versions" / "1" / "set.json")
    assert not versions.results_kept(root, 1)


def test_a_folder_on_another_disk_is_promoted_by_copying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = type(UPath(tmp_path)).replace

    def across_disks(self: UPath, target: UPath) -> UPath:
        if not self.name.endswith(".link"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, target)

    source, target = UPath(tmp_path / "a" / "file"), UPath(tmp_path / "b" / "file")
    source.parent.mkdir()
    source.write_text("made")
    monkeypatch.setattr(type(source), "replace", across_disks)
    versions._move(source, target)
    assert target.read_text() == "made"
    assert not source.exists()


def test_models_that_nothing_refers_to_go_when_their_version_does(again: Again) -> None:
    pipeline = again(retention={"versions": 0})
    models = [pipeline.read("accepted_models")["models"]["vdc_color"]]
    for seed in (1, 2):
        changed = yaml.safe_load(pipeline.config.read_text()) | {"seed": seed}
        pipeline.config.write_text(yaml.safe_dump(changed, sort_keys=False))
        for assets, partition in ((("clusters", "model"), "vdc_color"), (("accepted_models",), None)):
            result = pipeline.materialize(*assets, partition=partition)
            assert result.success, reasons(result)
        models.append(pipeline.read("accepted_models")["models"]["vdc_color"])
    assert len(set(models)) == 3
    kept = {
        path.stem.removeprefix("model-")
        for path in (pipeline.root / "Models" / "vdc_color").glob("model-*.json")
    }
    assert kept == set(models[1:])  # batches may be being labelled by the one before


def test_earlier_contents_stay_while_labels_call_their_images_the_same(again: Again) -> None:
    pipeline = again(retention={"contents": 0})
    pipeline.send("monday", range(20))
    label(pipeline, "monday")
    first = facts_of(pipeline, "monday")["fingerprint"]
    pipeline.send("tuesday", range(20))  # the same vectors
    label(pipeline, "tuesday")
    assert labels_of(pipeline, "tuesday")["duplicate_of"].str.contains("monday").all()
    pipeline.send("monday", range(20, 40), noise=0.3)
    label(pipeline, "monday")
    assert (pipeline.root / "Init" / "batches" / "monday" / str(first)).is_dir()


@pytest.mark.kernels
def test_earlier_contents_of_a_batch_go_but_for_what_has_joined(again: Again) -> None:
    pipeline = again(retention={"contents": 0})
    versions = []
    for n in (30, 31, 32):
        pipeline.send("monday", range(n))
        label(pipeline, "monday")
        versions.append(facts_of(pipeline, "monday")["fingerprint"])
        if n == 30:
            refit(pipeline)
    pipeline.send("monday", range(33))
    label(pipeline, "monday")
    kept = {path.name for path in (pipeline.root / "Init" / "batches" / "monday").iterdir()}
    # the first has joined, the third was what the labels were of until the fourth had been labelled
    assert kept == {versions[0], versions[2], facts_of(pipeline, "monday")["fingerprint"]}


@pytest.mark.kernels
def test_a_batch_that_has_joined_can_be_labelled_again_and_stays_joined(
    grown: Finished, grown_again: Pipeline
) -> None:
    pipeline = grown_again
    label(pipeline, "monday")
    assert (labels_of(pipeline, "monday")["duplicate_of"] == "").all()
    assert (labels_of(pipeline, "monday")["model_version"] == 2).all()
    pipeline.send("tuesday", range(20))
    label(pipeline, "tuesday")
    assert refit(pipeline)["accepted"].all()
    assert len(pipeline.read("final", "vdc_type")) == len(grown.pipeline.read("final", "vdc_type")) + 20


def test_a_batch_is_not_known_by_one_that_only_repeats_it(again: Again) -> None:
    pipeline = again()
    for batch in ("monday", "tuesday"):
        pipeline.send(batch, range(20))
        label(pipeline, batch)
    shutil.rmtree(pipeline.root / "Init" / "batches" / "monday")
    (pipeline.root / "Final" / "batches" / "monday" / "batch.json").unlink()
    label(pipeline, "monday")
    assert (labels_of(pipeline, "monday")["duplicate_of"] == "").all()


@pytest.mark.kernels
def test_a_batch_that_was_mended_joins_after_a_rollback(grown_again: Pipeline) -> None:
    pipeline = grown_again
    versions.roll_back(UPath(pipeline.root), 1)
    pipeline.send("monday", range(0, N_IMAGES, 3), noise=0.2)
    label(pipeline, "monday")
    assert (labels_of(pipeline, "monday")["duplicate_of"] == "").all()
    history = refit(pipeline)
    assert history["accepted"].iloc[-1]
    assert history["images_joined"].iloc[-1] == len(range(0, N_IMAGES, 3))


@pytest.mark.kernels
def test_a_fit_that_was_rolled_back_is_not_made_again_before_something_comes(grown_again: Pipeline) -> None:
    pipeline = grown_again
    versions.roll_back(pipeline.settings.data_root, 1)
    refit(pipeline)
    assert pipeline.read("accepted_models")["version"] == 1
    pipeline.send("tuesday", range(40))
    label(pipeline, "tuesday")
    refit(pipeline)
    assert [b["batch"] for b in pipeline.read("accepted_models")["batches"]] == ["monday", "tuesday"]


@pytest.mark.kernels
def test_a_rollback_that_was_interrupted_is_finished(
    grown_again: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = grown_again
    root = pipeline.settings.data_root
    with monkeypatch.context() as patch:
        patch.setattr(versions, "link", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            versions.roll_back(root, 1)
    assert pipeline.read("accepted_models")["version"] == 2
    assert versions.settle(root) == "a rollback"
    assert pipeline.read("accepted_models")["version"] == 1
    assert len(pipeline.read("final", "vdc_type")) == N_IMAGES
    assert versions.settle(root) == ""


def test_labels_of_descriptors_that_no_longer_come_are_removed(again: Again) -> None:
    pipeline = again()
    folder = pipeline.send("monday", range(20))
    label(pipeline, "monday")
    shutil.rmtree(folder)
    pipeline.send("monday", range(25), descriptors=("vdc_color",))
    label(pipeline, "monday")
    found = {path.name for path in (pipeline.root / "Final" / "batches" / "monday").iterdir()}
    assert found == {"attributes.csv", "batch.json", "vdc_color.csv"}


def test_names_that_people_give_later_are_in_the_labels_of_batches(again: Again) -> None:
    pipeline = again()
    names = pipeline.root / "Names" / "vdc_color.csv"
    names.write_text("cluster,name\n0,night buses\n", encoding="utf-8")
    pipeline.send("monday", range(60))
    label(pipeline, "monday")
    labels = labels_of(pipeline, "monday", "vdc_color")
    assert set(labels[labels["cluster"] == 0]["name"]) == {"night buses"}


def test_a_model_of_other_clusters_than_the_last_is_not_accepted(again: Again) -> None:
    pipeline = again()
    pipeline.path("accepted_models").unlink()  # nothing is in force yet
    path = pipeline.path("model", "vdc_color")
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["fitted_on"]["clusters_sha256"] = "of clusters made before"
    path.unlink()  # other data roots share its content
    path.write_text(json.dumps(facts), encoding="utf-8")
    assert pipeline.materialize("accepted_models").success
    assert set(pipeline.read("accepted_models")["models"]) == {"vdc_type"}


def test_a_model_that_does_not_label_its_own_fit_is_not_accepted(
    again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = again()
    changed = yaml.safe_load(pipeline.config.read_text()) | {"seed": 1}
    pipeline.config.write_text(yaml.safe_dump(changed, sort_keys=False))
    monkeypatch.setattr(importlib.import_module("iv_pipeline.assets.model"), "LEAST_AGREEMENT", 1.1)
    assert not pipeline.run("full_pipeline", "vdc_color").success
    result = pipeline.run("summarise")
    assert result.success, reasons(result)
    assert pipeline.read("accepted_models")["version"] == 1
