from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest
from upath import UPath

from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.batches import DUPLICATE_OF, StoredBatch
from iv_pipeline.storage.folder import ImageFolder
from iv_pipeline_tests.storage.test_folder import IMAGES, lay_out, pack

if TYPE_CHECKING:
    from pathlib import Path

    from iv_pipeline.storage.image_store import ImageStore


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_a_batch_keeps_its_images_from_an_archive_or_a_folder(tmp_path: Path, kind: str) -> None:
    packed = {f"export/{name}": content for name, content in IMAGES.items()}
    images: ImageStore = (
        ImageArchive.matching(pack(tmp_path / "images.zip", packed), list(IMAGES))
        if kind == "archive"
        else ImageFolder.matching(lay_out(tmp_path / "images", packed), list(IMAGES))
    )
    batch = StoredBatch.of(UPath(tmp_path / "root"), "monday", "0" * 16)
    batch.keep(pd.DataFrame({"image_path": list(IMAGES), DUPLICATE_OF: None}), {}, images)
    kept = batch.archive()
    assert kept is not None
    assert {name: kept.read(name) for name in IMAGES} == IMAGES
