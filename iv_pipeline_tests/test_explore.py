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
from iv_pipeline.learn.neighbors import NeighborGraph
from iv_pipeline.storage.formats import FORMATS
from iv_pipeline.storage.layout import ATLAS
from iv_pipeline.storage.tables import IMAGE_PATH, table_from_arrays
from iv_pipeline_tests.conftest import N_IMAGES, wait_for
from iv_pipeline_tests.test_ui import free_port, is_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from iv_pipeline_tests.conftest import Pipeline, Visit


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(explore.shutil, "which", lambda name, **_: f"/bin/{name}")
    return "/bin/embedding-atlas"


def test_the_table_holds_labels_map_neighbors_and_thumbnails_of_every_image(
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
    assert table["pagerank"].sum() == pytest.approx(1)
    graph = pipeline.read("neighbors", "vdc_type").vectors("indices").to_array()
    np.testing.assert_array_equal(np.stack([row["ids"] for row in table["neighbors"]]), graph)
    assert all((np.diff(row["distances"]) >= 0).all() for row in table["neighbors"])
    assert {Image.open(io.BytesIO(image["bytes"])).size for image in table["image"]} == {explore.THUMBNAIL}


def test_rows_without_a_vector_are_left_out_and_neighbors_renumbered(again: Callable[..., Pipeline]) -> None:
    pipeline, unusable = again(), [0, 5]
    projection, stored = pipeline.read("projection", "vdc_type"), pipeline.read("neighbors", "vdc_type")
    projection.loc[unusable, ["x2", "y2"]] = np.nan
    graph = {name: np.array(stored.vectors(name).to_array()) for name in ("indices", "distances")}
    graph["indices"][np.isin(graph["indices"], unusable)] = 7  # they are nobody's neighbors
    graph["indices"][unusable], graph["distances"][unusable] = -1, np.nan
    changed = table_from_arrays({IMAGE_PATH: stored.column(IMAGE_PATH), **graph})
    for stage, content in {"projection": projection, "neighbors": changed}.items():
        file = pipeline.path(stage, "vdc_type")
        file.unlink()  # a link to the file of another pipeline
        FORMATS[file.suffix].write(content, UPath(file))
    table = pd.read_parquet(write_atlas_table(pipeline.settings, "vdc_type"))
    assert len(table) == len(projection) - len(unusable)
    paths = projection[IMAGE_PATH]
    for row in (1, 6):
        ids = table["neighbors"][table[IMAGE_PATH] == paths[row]].iloc[0]["ids"]
        assert list(table[IMAGE_PATH].iloc[ids]) == list(paths[graph["indices"][row]])


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
    pd.read_parquet(file).drop(columns="pagerank").to_parquet(file)  # as it was, once
    atlas_command(pipeline.settings, "vdc_type", [])
    assert "pagerank" in pd.read_parquet(file)
    written = file.stat().st_mtime_ns
    pipeline.path("final", "vdc_type").touch()
    atlas_command(pipeline.settings, "vdc_type", [])
    assert file.stat().st_mtime_ns > written


def test_images_that_are_neighbors_of_many_stand_for_their_region() -> None:
    star = NeighborGraph(np.array([[1], [0], [0], [0]], np.int32), np.ones((4, 1), np.float32), recall=np.nan)
    ranks = explore._pagerank(star)
    assert ranks == pytest.approx(
        [0.4797, 0.4453, 0.0375, 0.0375], abs=1e-4
    )  # 0.15/4 + 0.85 of who points here


@pytest.mark.daemon
def test_one_command_opens_a_descriptor_in_embedding_atlas(
    again: Callable[..., Pipeline], browse: Callable[..., Visit]
) -> None:
    pipeline, port = again(), free_port()
    with pipeline.background("make", "explore", "DESCRIPTOR=vdc_type", f"PORT={port}"):
        wait_for("Embedding Atlas", lambda: is_up(f"http://127.0.0.1:{port}"))
        page = browse(viewport={"width": 1400, "height": 900}).page
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_text(f"{N_IMAGES:,} / {N_IMAGES:,} points").wait_for()
        page.get_by_role("table").get_by_text(
            str(pipeline.read("final", "vdc_type")[IMAGE_PATH][0])
        ).wait_for()


def test_what_stands_in_the_way_is_one_sentence(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = make_pipeline()
    monkeypatch.setattr(explore.shutil, "which", lambda *_, **__: None)
    with pytest.raises(
        InputError, match="not installed here; install and open it with 'make explore DESCRIPTOR=vdc_type'"
    ):
        atlas_command(pipeline.settings, "vdc_type", [])
    monkeypatch.setattr(explore.shutil, "which", lambda name, **_: name)
    with pytest.raises(InputError, match="no such"):
        atlas_command(pipeline.settings, "no such", [])
    remote = dataclasses.replace(pipeline.settings, data_root=UPath("memory://root"))
    with pytest.raises(
        InputError,
        match="memory://root: Embedding Atlas reads files of this machine alone; copy it into a folder",
    ):
        atlas_command(remote, "vdc_type", [])
    with pytest.raises(InputError, match=r"image_index\.parquet: is not there; materialize 'image_index'"):
        atlas_command(pipeline.settings, "vdc_type", [])
