import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from iv_pipeline.assets.delivery import files_of, open_delivery
from iv_pipeline.assets.identities import PATTERN, decide_on_identity, with_known_identity
from iv_pipeline.config import PipelineConfig, Settings
from iv_pipeline.storage.delivery import Delivery
from iv_pipeline.storage.fit_set import FitSet
from iv_pipeline.storage.formats import write_parquet
from iv_pipeline_tests.conftest import TRAFFIC_CAMERA


def deliver(
    root: Path, of_vehicle: float, layout: str = "veriwild\\{b}\\{v:05}\\{i:06}.jpg", **delivery: Any
) -> Settings:
    folder = root / "delivery"
    (folder / "descriptors").mkdir(parents=True)
    vehicle = np.repeat(np.arange(40), 5)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 8)) + of_vehicle * rng.normal(size=(40, 8))[vehicle]
    (folder / "descriptors" / "net.pickle").write_bytes(pickle.dumps(X.astype(np.float32)))
    paths = [layout.format(b=v // 20, v=v, i=i) for i, v in enumerate(vehicle)]
    (folder / "images_paths.csv").write_text("\n".join(["paths", *paths]))
    config = PipelineConfig.model_validate(
        {"descriptors": {"net": "descriptors/net.pickle"}, "delivery": delivery}
    )
    return Settings(UPath(root / "root"), UPath(folder), config)


def decide(settings: Settings) -> tuple[FitSet, list[str]]:
    fit_set, decision = decide_on_identity(settings, open_delivery(settings))
    return fit_set, [str(notice) for notice in decision.notices]


def test_folders_of_one_vehicle_each_become_identities_and_it_is_told(tmp_path: Path) -> None:
    fit_set, (notice,) = decide(deliver(tmp_path, 2.0))
    ids = fit_set.image_index()["vehicle_id"]
    assert ids[0] == ids[4] == "veriwild/0/00000"
    assert ids.nunique() == 40
    assert notice.startswith("delivery.identity: folders such as veriwild/0/00000 are used as vehicles")


def test_a_folder_further_up_may_be_the_vehicle(tmp_path: Path) -> None:
    fit_set, _ = decide(deliver(tmp_path, 2.0, "{b}/{v}/{i}/image.jpg"))
    assert fit_set.image_index()["vehicle_id"][7] == "0/1"


def test_folders_of_any_vehicles_do_not_and_it_is_told(tmp_path: Path) -> None:
    fit_set, (notice,) = decide(deliver(tmp_path, 0.0))
    assert "vehicle_id" not in fit_set.image_index()
    assert "folders are not used as vehicles" in notice


@pytest.mark.parametrize("layout", ["{i}.jpg", "images/{i}.jpg"])
def test_paths_without_such_folders_need_no_decision(tmp_path: Path, layout: str) -> None:
    fit_set, notices = decide(deliver(tmp_path, 2.0, layout))
    assert notices == []
    assert "vehicle_id" not in fit_set.image_index()


def test_null_means_none_and_a_pattern_is_taken_as_it_is(tmp_path: Path) -> None:
    none, notices = decide(deliver(tmp_path / "none", 2.0, identity=None))
    assert notices == []
    assert "vehicle_id" not in none.image_index()
    pattern, notices = decide(deliver(tmp_path / "pattern", 0.0, identity="([0-9]+)/[^/]+$"))
    assert notices == []
    assert pattern.image_index()["vehicle_id"][0] == "00000"


def test_a_batch_takes_over_what_was_found_in_the_delivery(tmp_path: Path) -> None:
    settings = deliver(tmp_path, 2.0)
    batch = Delivery(settings.delivery, settings.config.delivery, files_of(settings))
    assert "vehicle_id" not in with_known_identity(settings, batch).image_index()
    index = pd.DataFrame({"image_path": ["a.jpg"]})
    index.attrs[PATTERN] = decide(settings)[0].delivery.config.identity
    write_parquet(index, settings.data_root / "Init" / "image_index.parquet")
    assert with_known_identity(settings, batch).image_index()["vehicle_id"][0] == "veriwild/0/00000"


@pytest.mark.skipif(not TRAFFIC_CAMERA.exists(), reason="no real delivery beside the repository")
def test_the_folders_of_a_real_delivery_without_identities_are_none() -> None:
    names = ("osnet", "vdc_type")
    config = PipelineConfig.model_validate({"descriptors": {n: f"descriptors/{n}.pickle" for n in names}})
    fit_set, notices = decide(Settings(UPath("nowhere"), UPath(TRAFFIC_CAMERA), config))
    assert fit_set.delivery.config.identity is None
    assert "not used as vehicles" in notices[0]
