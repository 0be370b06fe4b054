from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import yaml
from upath import UPath

from iv_pipeline.answering import tree_of
from iv_pipeline.storage.tables import read_table, table_from_arrays, write_table
from iv_pipeline_tests.conftest import N_GROUPS, N_IMAGES, Finished, Pipeline, reasons

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def pipeline(finished: Finished, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """A finished pipeline of its own, without names."""
    own = make_pipeline(attributes={"group": None, "parity": ["even", "odd"]})
    shutil.copytree(finished.pipeline.root, own.root, copy_function=os.link)
    shutil.rmtree(own.root / "Names")
    refresh(own)
    return own


def refresh(pipeline: Pipeline) -> None:
    result = pipeline.run("answer")
    assert result.success, reasons(result)


def truth_of(paths: pd.Series[str]) -> pd.DataFrame:
    """The groups that all descriptors of the delivery tell apart, and whether their numbers are even."""
    group = paths.str.split("/").str[2].astype(int) % N_GROUPS
    parity = np.where(group % 2, "odd", "even")
    return pd.DataFrame({"group": "g" + group.astype(str), "parity": parity}).set_index(paths)


def write_answers(pipeline: Pipeline, name: str, frame: pd.DataFrame) -> None:
    folder = pipeline.root / "Names"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.csv").unlink(missing_ok=True)  # it may be shared with other pipelines
    frame.to_csv(folder / f"{name}.csv", index=False)


def answer_clusters(pipeline: Pipeline, attribute: str, descriptor: str = "vdc_type") -> None:
    """Give every cluster of a descriptor the value that most of its images have."""
    final = pipeline.read("final", descriptor)
    truth = truth_of(final["image_path"])["group"].rename(attribute)
    named = truth.groupby(final["cluster"].to_numpy()).agg(lambda values: values.mode()[0])
    write_answers(pipeline, descriptor, named[named.index >= 0].rename_axis("cluster").reset_index())


def answer(pipeline: Pipeline, n: int) -> None:
    """Answer the first questions as a person would: a value where two thirds of the images shown agree."""
    review, truth = pipeline.read("review"), truth_of(pipeline.read("attributes")["image_path"])
    rows = []
    for question in review.head(n).to_dict("records"):
        shown = truth.loc[json.loads(question["images"])]
        values = {}
        for name in truth.columns:
            counts = shown[name].value_counts()
            values[name] = counts.index[0] if counts.iloc[0] >= 2 / 3 * len(shown) else ""
        rows.append({"descriptor": question["descriptor"], "cluster": int(question["cluster"]), **values})
    for descriptor, of_descriptor in pd.DataFrame(rows).groupby("descriptor"):
        write_answers(pipeline, str(descriptor), of_descriptor.drop(columns="descriptor"))


def test_before_any_answer_values_are_empty_and_nothing_is_sure(pipeline: Pipeline) -> None:
    frame = pipeline.read("attributes")
    assert frame["image_path"].tolist() == pipeline.read("image_index")["image_path"].tolist()
    assert list(frame.columns) == [
        *("image_path", "group", "group_confidence", "parity", "parity_confidence"),
        *("is_outlier", "outlier_score", "reasons", "status"),
    ]
    assert (frame[["group", "parity"]] == "").all(axis=None)
    assert (frame[["group_confidence", "parity_confidence"]] == 0).all(axis=None)


def test_questions_come_with_images_of_their_cluster(pipeline: Pipeline) -> None:
    review = pipeline.read("review")
    assert list(review.columns) == [
        *("kind", "descriptor", "cluster", "image_path", "images", "attributes", "gain"),
    ]
    assert not review.duplicated(["descriptor", "cluster", "image_path"]).any()
    paths = pipeline.read("image_index")["image_path"]
    tree = tree_of(pipeline.read("groups"))
    for question in review[review["descriptor"] == "groups"].head(5).to_dict("records"):
        shown = json.loads(question["images"])
        assert 1 <= len(shown) <= 9
        assert set(shown) <= set(paths.iloc[tree.members(int(question["cluster"]))])


def test_a_few_answers_tell_the_groups_of_nearly_all_images(pipeline: Pipeline) -> None:
    answer(pipeline, 12)
    refresh(pipeline)
    frame = pipeline.read("attributes")
    truth = truth_of(frame["image_path"])
    for name in truth.columns:
        right = frame[name].to_numpy() == truth[name].to_numpy()
        assert right.mean() > 0.9, name
        assert frame[f"{name}_confidence"].median() > 0.5, name


def test_answered_questions_disappear(pipeline: Pipeline) -> None:
    before = pipeline.read("review").head(5)
    answer(pipeline, 5)
    refresh(pipeline)
    after = pipeline.read("review")
    asked = set(zip(before["descriptor"], before["cluster"], strict=True))
    assert not asked & set(zip(after["descriptor"], after["cluster"], strict=True))


def test_an_answer_about_an_image_is_a_fact(pipeline: Pipeline) -> None:
    answer(pipeline, 12)
    path = pipeline.read("attributes")["image_path"][3]
    write_answers(pipeline, "images", pd.DataFrame([{"image_path": path, "group": "tractor", "parity": ""}]))
    refresh(pipeline)
    row = pipeline.read("attributes").set_index("image_path").loc[path]
    assert (row["group"], row["group_confidence"]) == ("tractor", 1)


def test_answers_about_clusters_of_a_descriptor_count(pipeline: Pipeline) -> None:
    answer_clusters(pipeline, "group")
    refresh(pipeline)
    frame = pipeline.read("attributes")
    truth = truth_of(frame["image_path"])
    assert (frame["group"].to_numpy() == truth["group"].to_numpy()).mean() > 0.9
    assert (frame["parity"] == "").all()


def test_a_value_of_no_attribute_ends_in_one_sentence(pipeline: Pipeline) -> None:
    before = pipeline.path("attributes").read_bytes()
    write_answers(pipeline, "groups", pd.DataFrame([{"cluster": 0, "parity": "prime"}]))
    result = pipeline.run("answer")
    assert "line 2: 'prime' is no value of 'parity'; choose one of even, odd" in reasons(result)["attributes"]
    assert pipeline.path("attributes").read_bytes() == before


def test_answers_about_what_is_not_there_are_told(pipeline: Pipeline) -> None:
    write_answers(pipeline, "vdc_type", pd.DataFrame([{"cluster": 999, "group": "g0"}]))
    write_answers(pipeline, "images", pd.DataFrame([{"image_path": "x/y.jpg", "group": "g0"}]))
    result = pipeline.run("answer")
    assert result.success
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key.path == ["attributes"]]
    notices = str(event.materialization.metadata["notices"].value)
    assert "answers about 999 count for nothing" in notices
    assert "1 images are not in the delivery" in notices or "1 image is not in the delivery" in notices


def test_answers_about_clusters_of_other_images_wait(pipeline: Pipeline) -> None:
    answer_clusters(pipeline, "group")
    path = UPath(pipeline.path("clusters", "vdc_type"))
    before = read_table(path)
    fewer = {name: before.column(name).slice(1) for name in ("image_path", "cluster")}
    write_table(table_from_arrays(fewer), path)
    result = pipeline.run("answer")
    assert result.success, reasons(result)
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key.path == ["attributes"]]
    notices = str(event.materialization.metadata["notices"].value)
    assert "the clusters of vdc_type are of other images than the joint features" in notices
    assert (pipeline.read("attributes")["group"] == "").all()
    (judged,) = [
        e for e in result.get_asset_materialization_events() if e.asset_key.path == ["descriptor_accuracy"]
    ]
    assert "descriptor vdc_type: is not judged" in str(judged.materialization.metadata["notices"].value)


def test_groups_stay_while_answers_refer_to_them(pipeline: Pipeline) -> None:
    before = pipeline.read("groups")
    answer(pipeline, 3)
    config = yaml.safe_load(pipeline.config.read_text(encoding="utf-8"))
    pipeline.config.write_text(yaml.safe_dump(config | {"seed": 5}), encoding="utf-8")
    result = pipeline.materialize("joint_features", "groups")
    assert result.success, reasons(result)
    after = pipeline.read("groups")
    assert after.column("leaf").equals(before.column("leaf"))
    assert np.array_equal(tree_of(after).children, tree_of(before).children)


def test_without_attributes_there_is_nothing_to_ask(
    finished: Finished, make_pipeline: Callable[..., Pipeline]
) -> None:
    own = make_pipeline(attributes={})
    shutil.copytree(finished.pipeline.root, own.root, copy_function=os.link)
    refresh(own)
    assert len(own.read("attributes")) == N_IMAGES
    assert own.read("review").empty
