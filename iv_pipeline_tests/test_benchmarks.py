import csv
import io
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from upath import UPath

from benchmarks import stream
from benchmarks.delivery import NETWORKS, TYPES, delivery_bytes, make_plan, write_delivery
from benchmarks.stream import head_and_tail, stream_array
from iv_pipeline.config import load_config
from iv_pipeline.engine import ArrayBatches
from iv_pipeline.errors import InputError
from iv_pipeline.learn.pca import fit_pca
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics
from iv_pipeline.storage.delivery import Delivery
from iv_pipeline.storage.pickles import open_matrix

REPOSITORY = Path(__file__).parent.parent
N = 6000
FLOAT32 = np.dtype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark") / "Intellivision_case"
    write_delivery(folder, N, descriptors=("osnet", "vdc_type", "vdc_color"))
    return folder


def opened(folder: Path) -> Delivery:
    config = load_config(REPOSITORY / "pipeline.yaml", UPath(folder))
    files = {name: descriptor.file for name, descriptor in config.descriptors.items()}
    return Delivery(UPath(folder), config.delivery, files)


# Streaming


@given(
    arrays(np.float32, st.tuples(st.integers(1, 300), st.integers(1, 200))),
    st.integers(1, 300),
)
@settings(max_examples=40, deadline=None)
def test_a_streamed_pickle_is_read_by_pickle_and_mapped_by_the_pipeline(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, rows_of_block: int
) -> None:
    path = tmp_path_factory.mktemp("stream") / "array.pickle"
    with path.open("wb") as file:
        blocks = (array[i : i + rows_of_block] for i in range(0, len(array), rows_of_block))
        stream_array(file, (len(array), array.shape[1]), blocks)
    np.testing.assert_array_equal(pickle.loads(path.read_bytes()), array)
    mapped = open_matrix(UPath(path)).array
    np.testing.assert_array_equal(mapped, array)
    assert isinstance(mapped, np.memmap)


def test_a_streamed_pickle_has_the_bytes_that_pickle_writes() -> None:
    array = np.random.default_rng(0).normal(size=(700, 128)).astype(np.float32)
    file = io.BytesIO()
    stream_array(file, (700, 128), [array])
    assert file.getvalue() == pickle.dumps(array, protocol=4)


def test_more_bytes_than_four_can_count_take_the_longer_opcode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (2**21 + 1, 512)  # 4 GiB and a row; the file is sparse
    head, tail = head_and_tail(shape, FLOAT32)
    path = tmp_path / "large.pickle"
    last = np.arange(512, dtype=np.float32)
    with path.open("wb") as file:
        file.write(head)
        file.seek(4 * (shape[0] - 1) * shape[1], io.SEEK_CUR)
        file.write(last.tobytes() + tail)
    mapped = open_matrix(UPath(path)).array
    assert mapped.shape == shape
    np.testing.assert_array_equal(mapped[-1], last)
    monkeypatch.setattr(stream, "MOST_BINBYTES", 0)
    head, tail = head_and_tail((1, 512), FLOAT32)
    np.testing.assert_array_equal(pickle.loads(head + last.tobytes() + tail), last[None])


@pytest.mark.parametrize(
    "block", [np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros((3, 3))]
)
def test_blocks_that_are_not_the_announced_array_are_refused(block: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        stream_array(io.BytesIO(), (3, 3), [block])


# Delivery


def test_a_delivery_has_the_layout_and_the_dimensions_of_a_real_one(tmp_path: Path) -> None:
    write_delivery(tmp_path / "d", 30)
    delivery = opened(tmp_path / "d")
    index = delivery.image_index()
    assert {n: delivery.matrix(n).shape for n in delivery.files} == {
        "efficientnet-b7": (30, 2560),
        "osnet": (30, 512),
        "vdc_type": (30, 512),
        "vdc_color": (30, 128),
    }
    assert index["image_path"].iloc[0] == "veriwild/1/00001/000001.jpg"
    assert index["vehicle_id"].iloc[0] == "00001"
    assert index["label"].isin(TYPES).all()
    assert delivery.archive() is None
    assert (tmp_path / "d" / "images_paths.csv").read_text().splitlines()[:2] == [
        "paths",
        r"veriwild\1\00001\000001.jpg",
    ]


def test_every_reader_finds_the_same_finite_skewed_features(folder: Path) -> None:
    for name in ("osnet", "vdc_type", "vdc_color"):
        data = (folder / "descriptors" / f"{name}.pickle").read_bytes()
        X = pickle.loads(data)
        np.testing.assert_array_equal(open_matrix(UPath(folder / "descriptors" / f"{name}.pickle")).array, X)
        assert X.dtype == np.float32
        assert X.shape == (N, NETWORKS[name].n_features)
        assert np.isfinite(X).all()
        assert X.min() == 0
        assert 0.05 < (X == 0).mean() < 0.5
        assert (((X - X.mean(0)) ** 3).mean(0) > 0).mean() > 0.8


@pytest.mark.parametrize(("name", "published"), [("vdc_type", 20), ("vdc_color", 69), ("osnet", 153)])
def test_as_many_components_keep_90_percent_of_the_variance_as_published(
    folder: Path, name: str, published: int
) -> None:
    X = open_matrix(UPath(folder / "descriptors" / f"{name}.pickle")).array
    statistics = compute_statistics(ArrayBatches(X))
    found = fit_pca(statistics, fit_scaler("standard", statistics), 0.9, X.shape[1]).n_components
    assert published / 1.5 < found < published * 1.5


def test_each_descriptor_sees_best_what_its_network_was_trained_for(folder: Path) -> None:
    plan = make_plan(N, seed=0)
    vehicle_type = plan.type[plan.vehicle]
    color = plan.color[plan.vehicle]

    def share_of_variance(name: str, groups: np.ndarray) -> float:
        X = open_matrix(UPath(folder / "descriptors" / f"{name}.pickle")).array
        means = np.stack([X[groups == g].mean(0) for g in np.unique(groups)])
        return float(means[np.unique(groups, return_inverse=True)[1]].var(0).sum() / X.var(0).sum())

    assert share_of_variance("vdc_type", vehicle_type) > 3 * share_of_variance("vdc_color", vehicle_type)
    assert share_of_variance("vdc_color", color) > 3 * share_of_variance("vdc_type", color)
    assert share_of_variance("osnet", plan.vehicle) > 0.5


def test_a_vehicle_has_about_ten_photos_and_one_type(folder: Path) -> None:
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    photos = Counter(row["paths"].split("\\")[2] for row in rows)
    seen = {(row["paths"].split("\\")[2], row["label"], row["color"]) for row in rows}
    assert 9 < np.mean(list(photos.values())) < 11
    assert len(seen) == len(photos)
    assert len({row["label"] for row in rows}) == len(TYPES)


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        write_delivery(tmp_path / name, 5000, seed, descriptors=("vdc_color",))  # two blocks
    files = ["descriptors/vdc_color.pickle", "labels.csv"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "b" / file).read_bytes()


def test_a_delivery_with_pictures_has_one_for_every_path(tmp_path: Path) -> None:
    write_delivery(tmp_path / "d", 12, images=True, descriptors=("vdc_color",))
    delivery = opened(tmp_path / "d")
    archive = delivery.archive()
    assert archive is not None
    assert archive.missing(delivery.paths) == []
    assert archive.read(delivery.paths[0]).startswith(b"\xff\xd8")


def test_the_size_of_a_delivery_is_foreseen(folder: Path) -> None:
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert written == pytest.approx(delivery_bytes(N, ("osnet", "vdc_type", "vdc_color")), rel=0.02)


def test_a_delivery_overwrites_nothing_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").touch()
    with pytest.raises(InputError, match="not empty"):
        write_delivery(tmp_path / "d", 10)
    with pytest.raises(KeyError):
        write_delivery(tmp_path / "e", 10, descriptors=("vdc_color", "unknown"))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    with pytest.raises(InputError, match="at least one"):
        write_delivery(tmp_path / "e", 0)
