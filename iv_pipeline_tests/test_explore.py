from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from upath import UPath

from iv_pipeline import explore
from iv_pipeline.errors import InputError
from iv_pipeline.explore import atlas_command, write_atlas_table
from iv_pipeline.storage.layout import ATLAS

if TYPE_CHECKING:
    from collections.abc import Callable

    from iv_pipeline_tests.conftest import Pipeline


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(explore.shutil, "which", lambda name, **_: f"/bin/{name}")
    return "/bin/embedding-atlas"


def test_the_table_holds_labels_map_neighbours_and_thumbnails_of_every_image(
    again: Callable[..., Pipeline],
) -> None:
    pipeline = again()
    table = pd.read_parquet(write_atlas_table(pipeline.settings, "vdc_type"))
    final = pipeline.read("final", "vdc_type")
    projection = pipeline.read("projection", "vdc_type")
    columns = list(final.columns)
    pd.testing.assert_frame_equal(
        table[columns].fillna({"name": ""}), final.fillna({"name": ""}), check_dtype=False
    )
    np.testing.assert_array_equal(table[["x", "y"]], projection[["x2", "y2"]])
    assert "label" in table
    graph = pipeline.read("neighbors", "vdc_type").vectors("indices").to_array()
    np.testing.assert_array_equal(np.stack([row["ids"] for row in table["neighbors"]]), graph)
    assert all((np.diff(row["distances"]) >= 0).all() for row in table["neighbors"])
    assert {Image.open(io.BytesIO(image["bytes"])).size for image in table["image"]} == {explore.THUMBNAIL}


def test_rows_without_a_vector_are_left_out_and_neighbours_renumbered(again: Callable[..., Pipeline]) -> None:
    pipeline = again()
    projection = pipeline.read("projection", "vdc_type")
    projection.loc[[0, 5], ["x2", "y2"]] = np.nan
    file = pipeline.path("projection", "vdc_type")
    file.unlink()  # a link to the file of another pipeline
    projection.to_parquet(file)
    table = pd.read_parquet(write_atlas_table(pipeline.settings, "vdc_type"))
    assert len(table) == len(projection) - 2
    assert max(max(row["ids"]) for row in table["neighbors"]) < len(table)
    first = pipeline.read("neighbors", "vdc_type").vectors("indices").to_array()[1]
    known = [n for n in first.tolist() if n not in {0, 5}]
    paths = projection["image_path"]
    ids = table["neighbors"].iloc[0]["ids"]
    assert {paths[n] for n in known} <= set(table["image_path"].iloc[ids])


def test_the_table_is_written_again_only_when_a_stage_is_newer(
    again: Callable[..., Pipeline], installed: str
) -> None:
    pipeline = again()
    command = atlas_command(pipeline.settings, "vdc_type", ["--port", "7"])
    file = pipeline.root / ATLAS.format(descriptor="vdc_type")
    assert command[:2] == [installed, str(file)]
    assert command[-4:] == ["--image", "image", "--port", "7"]
    written = file.stat().st_mtime_ns
    atlas_command(pipeline.settings, "vdc_type", [])
    assert file.stat().st_mtime_ns == written
    pipeline.path("final", "vdc_type").touch()
    atlas_command(pipeline.settings, "vdc_type", [])
    assert file.stat().st_mtime_ns > written


def test_what_stands_in_the_way_is_one_sentence(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = make_pipeline()
    monkeypatch.setattr(explore.shutil, "which", lambda *_, **__: None)
    with pytest.raises(InputError, match=r"not installed here: .*\[explore\]"):
        atlas_command(pipeline.settings, "vdc_type", [])
    monkeypatch.setattr(explore.shutil, "which", lambda name, **_: name)
    with pytest.raises(InputError, match="no such"):
        atlas_command(pipeline.settings, "no such", [])
    remote = dataclasses.replace(pipeline.settings, data_root=UPath("memory://root"))
    with pytest.raises(InputError, match="reads files of this machine: copy memory://root into a folder"):
        atlas_command(remote, "vdc_type", [])
    with pytest.raises(InputError, match=r"image_index\.parquet is not there: materialise 'image_index'"):
        atlas_command(pipeline.settings, "vdc_type", [])
