from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from iv_pipeline.assets.stage import notices_of
from iv_pipeline_tests.conftest import CONFIG, N_IMAGES, Pipeline, reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

STAGES = ("image_index", "image_quality")


@pytest.fixture
def pipeline(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline(descriptors={"vdc_type": CONFIG["descriptors"]["vdc_type"]}, combinations={})


def archive_of(pipeline: Pipeline) -> Path:
    return pipeline.delivery / "raw_data" / "veriwild.zip"


def measure(pipeline: Pipeline) -> pd.DataFrame:
    result = pipeline.materialize(*STAGES)
    assert result.success, reasons(result)
    table: pd.DataFrame = pipeline.read("image_quality")
    return table


def rank(pipeline: Pipeline) -> pd.DataFrame:
    """The verdict on every image."""
    result = pipeline.materialize("joint_features", "ranked_outliers")
    assert result.success, reasons(result)
    table: pd.DataFrame = pipeline.read("ranked_outliers")
    return table


def lock(archive: Path, entries: Iterable[int]) -> None:
    """Mark entries of a zip archive as encrypted; checksums and sizes in its directory stay as they are."""
    content = bytearray(archive.read_bytes())
    begins = [0]
    while (at := content.find(b"PK\x01\x02", begins[-1] + 1)) >= 0:
        begins.append(at)
    for entry in entries:
        content[begins[entry + 1] + 8] |= 1
    archive.write_bytes(bytes(content))


def test_pictures_that_could_not_be_read_are_read_once_they_can_be(pipeline: Pipeline) -> None:
    archive = archive_of(pipeline)
    plain = archive.read_bytes()
    lock(archive, range(N_IMAGES))
    locked = measure(pipeline)
    assert set(locked["error"]) == {"encrypted"}
    (notice,) = notices_of(locked)
    assert f"veriwild.zip: {N_IMAGES} of {N_IMAGES} pictures cannot be read: encrypted" in notice
    assert notice.endswith("pack the archive again without a password")
    archive.write_bytes(plain)
    again = measure(pipeline)
    assert again["error"].isna().all()
    assert notices_of(again) == []


def test_an_unpacked_folder_gives_the_measurements_of_its_archive(pipeline: Pipeline) -> None:
    from_archive = measure(pipeline)
    index = pipeline.read("image_index")
    with zipfile.ZipFile(archive_of(pipeline)) as archive:
        archive.extractall(pipeline.delivery / "raw_data")
    archive_of(pipeline).unlink()
    pipeline.path("image_quality").unlink()
    from_folder = measure(pipeline)
    pd.testing.assert_frame_equal(from_folder, from_archive)
    pd.testing.assert_frame_equal(pipeline.read("image_index"), index)
    (notice,) = notices_of(from_folder)
    assert "there is nothing at raw_data/veriwild.zip, so the images are read from raw_data" in notice


def test_reasons_are_the_same_wherever_the_delivery_lies(make_pipeline: Callable[..., Pipeline]) -> None:
    tables = []
    for _ in range(2):
        pipeline = make_pipeline(descriptors={"vdc_type": CONFIG["descriptors"]["vdc_type"]}, combinations={})
        spoil(archive_of(pipeline), {3: b"", 5: b"no picture", 8: b"\xff\xd8\xff\xe0 damaged"})
        lock(archive_of(pipeline), [11])
        measure(pipeline)
        rank(pipeline)
        tables.append(pipeline.path("ranked_outliers").read_bytes())
    assert tables[0] == tables[1]
    ranked = tables[0].decode()
    for words in ("empty file", "not a picture", "damaged picture", "encrypted"):
        assert f"unreadable: {words}," in ranked


def spoil(archive: Path, contents: dict[int, bytes]) -> None:
    with zipfile.ZipFile(archive) as source:
        entries = {info.filename: source.read(info) for info in source.infolist()}
    entries |= {name: contents[i] for i, name in enumerate(entries) if i in contents}
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in entries.items():
            target.writestr(zipfile.ZipInfo(name), content)


@pytest.mark.parametrize(("n_locked", "counts"), [(N_IMAGES // 2, True), (N_IMAGES // 2 + 1, False)])
def test_pictures_of_which_most_cannot_be_read_make_no_outliers(
    pipeline: Pipeline, n_locked: int, counts: bool
) -> None:
    lock(archive_of(pipeline), range(n_locked))
    measure(pipeline)
    ranked = rank(pipeline)
    assert (ranked["quality_score"] == 1).sum() == (n_locked if counts else 0)
    shown: Any = pipeline.materialize("ranked_outliers").asset_materializations_for_node("ranked_outliers")
    assert ("notices" not in shown[0].metadata) == counts
    if not counts:
        assert "pictures take no part in the ranking" in str(shown[0].metadata["notices"].value)


def test_an_archive_of_other_images_is_told_with_both_names(pipeline: Pipeline) -> None:
    with zipfile.ZipFile(archive_of(pipeline), "w") as archive:
        archive.writestr("holiday/beach.jpg", b"x")
    table = measure(pipeline)
    first = table["image_path"].iloc[0]
    (notice,) = notices_of(table)
    assert f"veriwild.zip: none of {N_IMAGES} images is in it: the first one listed is {first}" in notice
    assert "the first entry there is holiday/beach.jpg; set delivery.archive" in notice
    assert table["score"].isna().all()


def test_without_images_the_run_goes_on_and_says_what_is_there(pipeline: Pipeline) -> None:
    archive_of(pipeline).unlink()
    table = measure(pipeline)
    assert set(table["error"]) == {"no image archive"}
    (notice,) = notices_of(table)
    assert "descriptors, images_paths.csv" in notice
    assert rank(pipeline)["quality_score"].eq(0).all()
