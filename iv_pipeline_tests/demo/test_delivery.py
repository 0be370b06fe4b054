import csv
import io
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from iv_pipeline.config import DeliveryConfig
from iv_pipeline.demo import draw_delivery
from iv_pipeline.demo.delivery import plan
from iv_pipeline.demo.features import EXTRACTORS
from iv_pipeline.demo.photo import FLAWS
from iv_pipeline.demo.vehicles import BODIES, PAINTS
from iv_pipeline.engine import blas_threads
from iv_pipeline.errors import InputError

WIDTHS = {"efficientnet-b7": 320, "osnet": 160, "vdc_type": 128, "vdc_color": 64}
N = 800


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "Intellivision_case"
    draw_delivery(folder, N, seed=3)
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def photos(folder: Path, label: str) -> list[NDArray[np.uint8]]:
    rows = read(folder / "labels.csv")
    with zipfile.ZipFile(folder / "raw_data" / "veriwild.zip") as archive:
        return [
            np.asarray(Image.open(io.BytesIO(archive.read(row["paths"].replace("\\", "/")))).convert("L"))
            for row in rows
            if row["label"] == label
        ]


def test_every_descriptor_is_a_finite_float32_array_with_a_row_for_each_path(delivery: Path) -> None:
    for name, width in WIDTHS.items():
        data = (delivery / "descriptors" / f"{name}.pickle").read_bytes()
        array = pickle.loads(data)
        assert data[:2] == b"\x80\x04"
        assert (array.shape, array.dtype) == ((N, width), np.float32)
        assert np.isfinite(array).all()
        assert (array.std(axis=0) > 0).all()


def test_paths_labels_and_archive_agree(delivery: Path) -> None:
    paths = [row["paths"] for row in read(delivery / "images_paths.csv")]
    assert (delivery / "images_paths.csv").read_text(encoding="utf-8").startswith("paths\n")
    assert [row["paths"] for row in read(delivery / "labels.csv")] == paths
    assert paths[0] == r"veriwild\1\00001\000001.jpg"
    with zipfile.ZipFile(delivery / "raw_data" / "veriwild.zip") as archive:
        assert archive.namelist() == [path.replace("\\", "/") for path in paths]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


def test_photos_of_one_vehicle_share_their_type_and_color_and_show_both_ends(delivery: Path) -> None:
    content = yaml.safe_load((delivery / "delivery.yaml").read_text(encoding="utf-8"))
    identity = DeliveryConfig.model_validate(content).identity or ""
    seen: dict[str, list[tuple[str, str, str]]] = {}
    for row in read(delivery / "labels.csv"):
        found = re.search(identity, row["paths"].replace("\\", "/"))
        assert found is not None
        if row["label"] not in FLAWS:
            seen.setdefault(found[1], []).append((row["label"], row["color"], row["view"]))
    assert all(len({(label, color) for label, color, _ in shots}) == 1 for shots in seen.values())
    assert {label for shots in seen.values() for label, _, _ in shots} == set(BODIES)
    assert {color for shots in seen.values() for _, color, _ in shots} == set(PAINTS)
    assert {view for shots in seen.values() for _, _, view in shots} == {"front", "rear"}


def test_two_thousand_photos_show_over_two_hundred_vehicles_and_ten_of_each_flaw() -> None:
    shots = plan(2000, 0)
    sizes = np.bincount([shot.vehicle for shot in shots])
    assert len(sizes) > 200
    assert set(sizes[:-1]) == {8, 9, 10}
    assert all(sum(shot.flaw == flaw for shot in shots) == 10 for flaw in FLAWS)


def test_only_an_empty_frame_has_neither_color_nor_view(delivery: Path) -> None:
    for row in read(delivery / "labels.csv"):
        assert (row["color"] == "") == (row["view"] == "") == (row["label"] == "empty")


def test_flawed_photos_look_flawed(delivery: Path) -> None:
    assert all(photo.mean() < 25 for photo in photos(delivery, "dark"))
    assert all(photo.mean() > 190 for photo in photos(delivery, "overexposed"))
    assert all(0.03 < (photo > 245).mean() < 0.5 for photo in photos(delivery, "glare"))
    edges = {
        label: np.mean([np.abs(np.diff(p.astype(float))).mean() for p in photos(delivery, label)])
        for label in ("empty", "truck")
    }
    assert edges["empty"] < edges["truck"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_photos(tmp_path: Path) -> None:
    folders = [tmp_path / name / "Intellivision_case" for name in "abc"]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        draw_delivery(folder, 24, seed)
    a, b, c = (
        {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        for folder in folders
    )
    assert a == b
    assert len(a) == 8
    assert a[Path("raw_data/veriwild.zip")] != c[Path("raw_data/veriwild.zip")]


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="case is not empty: name another folder"):
        draw_delivery(tmp_path / "case", 8)
    assert [p.name for p in tmp_path.rglob("*")] == ["case", "note.txt"]


def test_an_empty_folder_is_filled_and_progress_is_told(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    said: list[str] = []
    draw_delivery(tmp_path / "case", 1, progress=said.append)
    assert said == ["Drawing 1 photos of 1 vehicles", "Drew 1 of 1 photos"]
    assert len(read(tmp_path / "case" / "labels.csv")) == 1


def test_no_images_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ask for at least one"):
        draw_delivery(tmp_path / "case", 0)


def test_photos_drawn_in_several_processes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IV_THREADS", "2")
    drawn = []
    for n_batches in (10, 2):
        monkeypatch.setattr("iv_pipeline.demo.delivery._BATCHES_WORTH_PROCESSES", n_batches)
        folder = tmp_path / str(n_batches)
        draw_delivery(folder, 150)
        drawn.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert drawn[0] == drawn[1]


def test_nothing_is_left_behind_when_drawing_is_interrupted(tmp_path: Path) -> None:
    def interrupt(said: str) -> None:
        raise KeyboardInterrupt(said)

    with pytest.raises(KeyboardInterrupt):
        draw_delivery(tmp_path / "case", 8, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_each_descriptor_knows_something_else_and_none_knows_everything(delivery: Path) -> None:
    rows = read(delivery / "labels.csv")
    vehicles = np.array([row["label"] not in FLAWS for row in rows])
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    quick = make_pipeline(StandardScaler(), RidgeClassifier())

    def accuracy(name: str, column: str, model: Pipeline) -> float:
        vectors = pickle.loads((delivery / "descriptors" / f"{name}.pickle").read_bytes())
        truth = np.array([row[column] for row in rows])
        return float(cross_val_score(model, vectors[vehicles], truth[vehicles], cv=5).mean())

    with blas_threads(1):
        by_type = {name: accuracy(name, "label", quick) for name in WIDTHS}
        by_color = {name: accuracy(name, "color", quick) for name in WIDTHS}
        assert 0.75 < accuracy("vdc_type", "label", probe) < 0.97
    assert max(by_type, key=lambda name: by_type[name]) == "vdc_type"
    assert max(by_color, key=lambda name: by_color[name]) == "vdc_color"
    assert by_color["vdc_type"] < 0.5 < by_color["vdc_color"]


def test_descriptors_of_a_photo_do_not_depend_on_the_photos_beside_it() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 84, 112, 3), dtype=np.uint8)
    for extract in EXTRACTORS.values():
        alone = np.concatenate([extract(images[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(extract(images), alone, rtol=1e-4, atol=1e-5)
