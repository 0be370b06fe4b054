import csv
import io
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors
from upath import UPath

from benchmarks import answers, engines, inbox, notebook, processors, report, run, selection, stream
from benchmarks.delivery import MOST_PHOTOS, NETWORKS, TYPES, delivery_bytes, make_plan, write_delivery
from benchmarks.labelling import new_rows
from benchmarks.site import last_error
from benchmarks.stream import head_and_tail, stream_array
from benchmarks.tables import REDUCING, comparison_table, usual_sentences
from benchmarks.watch import Usage, watch
from iv_pipeline.automation import FULL_PIPELINE, PREPARE, SUMMARISE
from iv_pipeline.config import load_config
from iv_pipeline.engine import ArrayBatches
from iv_pipeline.errors import InputError
from iv_pipeline.learn.pca import fit_pca
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics
from iv_pipeline.storage.delivery import Delivery
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.matrices import open_matrix
from iv_pipeline.storage.tables import read_table
from iv_pipeline_tests.conftest import CONFIG, PARTITIONS, REPOSITORY, Finished, Pipeline

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


@pytest.mark.parametrize("name", ["osnet", "vdc_type", "vdc_color"])
def test_a_neighborhood_has_few_dimensions_as_in_real_descriptors(folder: Path, name: str) -> None:
    X = open_matrix(UPath(folder / "descriptors" / f"{name}.pickle")).array[:4800]
    statistics = compute_statistics(ArrayBatches(X))
    reduced = fit_pca(statistics, fit_scaler("standard", statistics), 0.9, 200).transform(X)
    distances, _ = NearestNeighbors(n_neighbors=20).fit(reduced).kneighbors()
    # maximum likelihood (Levina, Bickel 2004); the descriptors of a real delivery have 7 to 12, where
    # hardly a vehicle has ten photos that are nearer to each other than to any other
    dimension = 1 / np.log(distances[:, -1:] / distances[:, :-1]).mean()
    assert 5 < dimension < 20


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


# Measuring


def measured(code: str, folder: Path, **limits: int) -> Usage:
    return watch([sys.executable, "-c", code], os.environ, folder / "log", **limits)


def test_a_command_is_measured_with_its_children(tmp_path: Path) -> None:
    hold = "x = bytearray(b'1') * 100_000_000; import time; time.sleep(0.4)"
    alone = measured(hold, tmp_path)
    assert 100e6 < alone.anonymous_bytes < 130e6
    child = measured(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])", tmp_path)
    assert 100e6 < child.anonymous_bytes < 150e6
    assert 100e6 < child.largest_bytes < child.anonymous_bytes
    busy = measured("import time\nwhile time.process_time() < 0.3: pass", tmp_path)
    assert 0.3 <= busy.cpu_seconds < 1.5
    assert alone.cpu_seconds < alone.wall_seconds - 0.3  # asleep for 0.4


def test_a_map_of_a_file_is_not_anonymous(tmp_path: Path) -> None:
    (tmp_path / "mapped").write_bytes(b"1" * 100_000_000)
    code = f"import mmap, time; f = open({str(tmp_path / 'mapped')!r}, 'rb')\n"
    code += "m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); s = m.find(b'2'); time.sleep(0.2)"
    usage = measured(code, tmp_path)
    assert usage.mapped_bytes > 100e6
    assert usage.anonymous_bytes < 50e6


def test_a_command_over_its_limits_is_ended(tmp_path: Path) -> None:
    late = measured("import time; time.sleep(60)", tmp_path, time_limit=1)
    assert late.over_time
    assert late.returncode == -9
    assert late.wall_seconds < 10
    code = "import time; time.sleep(0.3); x = bytearray(300_000_000)"
    large = measured(code, tmp_path, data_limit=200_000_000)
    assert large.returncode == 1
    assert last_error(tmp_path / "log", large) == "MemoryError"
    assert not large.over_time


def test_the_benchmark_measures_stages_and_the_usual_way_and_cleans_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    options = ["--rows", "2000", "--descriptors", "vdc_color", "--stages", "image_index", "init"]
    assert run.main([*options, "--work", str(tmp_path / "work"), "--results", str(results)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    (record,) = json.loads(results.read_text())
    assert record["command"] == f"python -m benchmarks.run {' '.join(options)}"
    assert [(s["stage"], s["descriptor"]) for s in record["stages"]] == [
        ("image_index", None),
        ("init", "vdc_color"),
    ]
    for stage in record["stages"]:
        assert stage["succeeded"]
        assert 0 < stage["stage_seconds"] < stage["wall_seconds"]
        assert stage["anonymous_bytes"] > 50e6
    (usual,) = record["usual"]
    assert [step["step"] for step in usual["steps"]] == ["import", "load", "scale", "pca", "kmeans"]
    assert "| init " in capsys.readouterr().out
    assert report.main(["--results", str(results)]) == 0
    assert "## 2,000 rows" in (tmp_path / "RESULTS.md").read_text()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.fixture
def quick_config(tmp_path: Path) -> Path:
    """One descriptor, little to try."""
    settings = {
        "descriptors": {"vdc_color": "descriptors/vdc_color.pickle"},
        "trials": {
            "naming_budget": 6,
            "n_clusters": [6],
            "scalers": ["standard"],
            "representations": ["pca"],
            "algorithms": ["kmeans", "dbscan"],
        },
        "projection": {"n_epochs": 1},
        "inbox": {"look_seconds": 1},
    }
    config = tmp_path / "pipeline.yaml"
    config.write_text(json.dumps(settings))
    return config


def test_the_benchmark_measures_a_whole_run_and_labels_new_images_with_it(
    tmp_path: Path, quick_config: Path
) -> None:
    results = tmp_path / "results.json"
    options = ["--rows", "400", "--whole", "--no-usual", "--new-rows", "90", "--config", str(quick_config)]
    assert run.main([*options, "--work", str(tmp_path / "work"), "--results", str(results)]) == 0
    (record,) = json.loads(results.read_text())
    assert record["whole"]["succeeded"]
    assert record["whole"]["anonymous_bytes"] > 50e6
    reported = {(s["stage"], s["descriptor"]): s["stage_seconds"] for s in record["whole"]["stages"]}
    assert set(reported) == {(s, None) for s in (*PREPARE, *SUMMARISE)} | {
        (s, "vdc_color") for s in FULL_PIPELINE
    }
    assert all(seconds > 0 for seconds in reported.values())
    (labelled,) = record["labelled"]
    assert [line["algorithm"] for line in labelled["algorithms"]] == ["kmeans", "dbscan"]
    assert labelled["algorithms"][0]["noise_share"] == 0
    assert report.main(["--results", str(results)]) == 0
    page = (tmp_path / "RESULTS.md").read_text()
    assert "The whole run, `make run`, one process for vdc_color" in page
    assert re.search(r"\d MB in any process \(in `\w+`( of vdc_color)?\)", page)
    assert re.search(r"\| clustering_trials +\| each +\|", page)
    assert re.search(r"\| vdc_color +\| kmeans +\| +400 \| +90 \|", page)


@pytest.mark.daemon
def test_a_batch_is_timed_from_the_inbox_to_its_labels_and_into_the_next_fit(
    tmp_path: Path, quick_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--rows", "300", "--batch", "40", "--refit"]
    assert inbox.main([*sizes, "--config", str(quick_config), "--work", str(tmp_path / "work")]) == 0
    assert not (tmp_path / "work").exists()
    told = capsys.readouterr().out
    steps = ("noticed", "first stage began", "labels of all descriptors", "drift")
    after = [float(re.search(rf"^{step}: after ([0-9.]+) s$", told, re.MULTILINE)[1]) for step in steps]
    assert after == sorted(after)
    assert re.search(r"^refit: \d+ s, at most \d+ MiB", told, re.MULTILINE)
    assert re.search(r"^ *\S+T\S+ +2 +True +vdc_color +.* monday +340 +40 ", told, re.MULTILINE), told


def test_an_update_after_answers_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["answers", str(tmp_path / "site"), "--images", "600", "--answers", "25"]
    monkeypatch.setattr(sys, "argv", arguments)
    answers.main()
    assert re.findall(r"(\d+) answers: [\d.]+ s", capsys.readouterr().out) == ["0", "25"]
    learned = pd.read_csv(tmp_path / "site" / "data" / "Final" / "attributes.csv")
    assert learned["type_confidence"].gt(0).all()


def test_a_whole_notebook_is_timed_part_by_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "COUNTS", range(2, 4))
    (tmp_path / "descriptors").mkdir()
    X = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    (tmp_path / "descriptors" / "net.pickle").write_bytes(pickle.dumps(X))
    assert notebook.main([str(tmp_path), "--rows", "150"]) == 0
    told = capsys.readouterr().out
    for part in ("load", "scale, PCA", "k-means of 2 to 20 clusters, indices", "HDBSCAN", "t-SNE"):
        assert re.search(rf"^\| {part} +\| +[\d.]+ +\|$", told, re.MULTILINE), part
    assert re.search(r"^150 rows: \d+ s, [\d.]+ GB at most$", told, re.MULTILINE)


def test_new_images_are_the_next_vehicles_of_a_longer_delivery(folder: Path) -> None:
    X = open_matrix(UPath(folder / "descriptors" / "vdc_color.pickle")).array
    vehicle = make_plan(N, 0).vehicle
    start = int(np.searchsorted(vehicle, vehicle[2999], side="right"))
    rows = N - 3000 - MOST_PHOTOS
    np.testing.assert_array_equal(new_rows("vdc_color", 3000, rows, seed=0), X[start : start + rows])


def test_a_longer_delivery_begins_with_the_same_vehicles() -> None:
    short, long = make_plan(1000, 0), make_plan(5000, 0)
    np.testing.assert_array_equal(long.vehicle[:1000], short.vehicle)
    np.testing.assert_array_equal(long.view[:1000], short.view)
    np.testing.assert_array_equal(long.type[: len(short.type)], short.type)
    np.testing.assert_array_equal(long.color[: len(short.color)], short.color)


def test_every_engine_finds_neighbors_and_the_report_compares_them(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    chosen = ["cells", "FAISS exact", "FAISS inverted file", "FAISS HNSW"]
    options = ["--rows", "1500", "--descriptors", "vdc_type", "--engines", *chosen, "--results", str(results)]
    assert engines.main(options) == 0
    measured = json.loads(results.read_text())[0]["engines"]
    assert [line["engine"] for line in measured] == chosen
    assert all(line["recall"] >= 0.95 for line in measured)
    report.write_report(results)
    assert "FAISS HNSW" in (tmp_path / "RESULTS.md").read_text()


def test_a_chain_that_does_not_fit_its_memory_fails_the_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    options = ["--rows", "500", "--descriptors", "vdc_color", "--limit-anonymous", "60"]
    assert run.main([*options, "--work", str(tmp_path / "work"), "--results", str(results)]) == 1
    (limited,) = json.loads(results.read_text())[0]["limited"]
    assert [(s["stage"], s["succeeded"]) for s in limited["stages"]] == [("init", False)]
    assert "FAILED: vdc_color, 500 rows, at most 60 MiB" in capsys.readouterr().out


def test_the_benchmark_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    options = ["--work", str(tmp_path), "--results", str(tmp_path / "results.json")]
    assert run.main(["--rows", "100", *options]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert inbox.main(["--work", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    (tmp_path / "mine").unlink()
    assert run.main(["--rows", "1000000000", *options]) == 1
    assert "GB are needed" in capsys.readouterr().err
    assert run.main(["--rows", "100", "--descriptors", "unknown", *options]) == 1
    assert "unknown" in capsys.readouterr().err
    assert report.main(["--results", str(tmp_path / "results.json")]) == 1
    assert "measure first" in capsys.readouterr().err


# Reporting


def stage(name: str, seconds: float, descriptor: str | None = "osnet") -> dict[str, Any]:
    facts = {
        "stage": name,
        "descriptor": descriptor,
        "succeeded": True,
        "reason": "",
        "stage_seconds": seconds,
    }
    return {**facts, **Usage(wall_seconds=seconds + 3, anonymous_bytes=10**9).to_dict()}


def usual_way(*steps: tuple[str, float], reason: str = "") -> dict[str, Any]:
    done = [{"step": name, "seconds": seconds} for name, seconds in steps]
    facts = {"descriptor": "osnet", "scalers": ["standard"], "succeeded": not reason, "reason": reason}
    return {**facts, "steps": done, **Usage(wall_seconds=600, anonymous_bytes=8 * 10**9).to_dict()}


@given(st.floats(0.1, 3), st.floats(-4, 0), st.lists(st.integers(1000, 10**7), min_size=2, unique=True))
def test_the_exponent_is_that_of_a_power_law(power: float, factor: float, rows: list[int]) -> None:
    seconds = {n: math.exp(factor) * n**power for n in rows}
    slow = [s for s in seconds.values() if s >= report.STEADY_SECONDS]
    found = report.exponent(seconds)
    assert found == (pytest.approx(power, rel=1e-3) if len(slow) > 1 else None)


def test_growth_takes_the_latest_measurement_of_each_size_and_no_failure() -> None:
    failed = stage("pca", 99) | {"succeeded": False}
    records = [
        {"rows": 100, "stages": [stage("pca", 9), stage("init", 1)]},
        {"rows": 100, "stages": [stage("pca", 2)]},
        {"rows": 200, "stages": [stage("pca", 4)]},
        {"rows": 300, "stages": [failed]},
    ]
    assert report.growth_of(records) == {("osnet", "init"): {100: 1}, ("osnet", "pca"): {100: 2, 200: 4}}
    assert list(report.growth_of(records)) == [("osnet", "init"), ("osnet", "pca")]


def test_the_usual_way_is_compared_with_the_stages_that_do_the_same() -> None:
    stages = [stage(name, 4.0) for name in REDUCING]
    way = usual_way(("import", 7), ("load", 10), ("scale", 10), ("pca", 80), ("kmeans", 300))
    (row,) = comparison_table(stages, [way]).splitlines()[2:]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2:] == ["100", "16.0", "6.2", "28.0", "8,000", "1,000", "8.0"]
    assert comparison_table(stages[1:], [way]) == ""  # a stage is missing: nothing to compare
    (_, stored) = comparison_table([*stages, stage("scaled", 9)], [way]).splitlines()[2:]
    assert [cell.strip() for cell in stored.split("|")[1:-1]][2:5] == ["100", "25.0", "4.0"]


def test_a_usual_way_that_did_not_end_is_a_lower_bound() -> None:
    way = usual_way(("load", 10), ("scale", 10), reason="over the limit of 600 s")
    (row,) = comparison_table([stage(name, 4.0) for name in REDUCING], [way]).splitlines()[2:]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2:5] == ["> 600", "16.0", "> 37.5"]
    assert "did not end: over the limit of 600 s" in usual_sentences([way])[0]


def test_the_report_draws_a_line_for_each_stage(tmp_path: Path) -> None:
    stages = [("init", 1.0), ("pca", 3.0), ("report", 0.001)]
    records = [
        {
            "date": "2026-01-01 00:00",
            "command": "c",
            "commit": "",
            "machine": {"cores": 2},
            "rows": rows,
            "usual": [],
            "stages": [stage(name, rows / 1000 * seconds) for name, seconds in stages],
        }
        for rows in (1000, 2000)
    ]
    results = tmp_path / "results.json"
    results.write_text(json.dumps(records))
    report.write_report(results)
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.index("## 2,000 rows") < page.index("## 1,000 rows")
    assert re.search(r"pca +\| osnet +\| +3\.0 \| +6\.0 \| +1\.00 \|", page)
    drawn = (tmp_path / report.CHART).read_text()
    assert "<!-- init -->" in drawn
    assert "<!-- pca -->" in drawn
    assert "<!-- report -->" not in drawn
    report.write_report(results)
    assert (tmp_path / report.CHART).read_text() == drawn


def test_a_criterion_is_judged_by_the_clusterings_at_the_budget() -> None:
    judged = pd.DataFrame(
        {
            "descriptor": ["a"] * 5,
            "seed": 0,
            "n_clusters": [50, 48, 50, 40, 5],
            "accuracy": [0.5, 0.6, 0.8, 0.7, 0.9],
            "predictability": [0.1, 0.2, 0.4, 0.3, 0.9],
            "stability": [0.4, 0.3, 0.1, np.nan, 0.9],
            "davies_bouldin": [4.0, 3.0, 1.0, 2.0, 0.1],
            **dict.fromkeys(("identity", "calinski_harabasz", "silhouette"), np.nan),
        }
    )
    table = selection.criteria_table(judged, 50)
    assert set(table.index) == {"predictability", "stability", "davies_bouldin"}
    assert table["rank correlation"].to_dict() == pytest.approx(
        {"predictability": 1, "stability": -1, "davies_bouldin": 1}
    )
    assert table["points lost"].to_dict() == pytest.approx(
        {"predictability": 0, "stability": 30, "davies_bouldin": 0}
    )


def test_kernels_of_another_processor_choose_the_same_and_give_the_same_labels(
    make_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    embedded = {"file": "descriptors/vdc_type.pickle", "choose": {"representation": "normalized_umap"}}
    pipeline = make_pipeline(
        descriptors=CONFIG["descriptors"] | {"vdc_type": embedded},
        combinations={},
        trials=CONFIG["trials"]
        | {
            "algorithms": ["kmeans", "agglomerative", "leiden", "hdbscan"],
            "representations": ["pca", "normalized_umap"],
        },
    )
    command = [sys.executable, "-m", "benchmarks.processors", str(pipeline.delivery), str(tmp_path)]
    options = ["--config", str(pipeline.config), "--settings", "native", "oldest"]
    ran = subprocess.run([*command, *options], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    table = processors.compare(
        pipeline.settings.config, {name: tmp_path / name for name in ("native", "oldest")}
    )
    assert table.groupby("descriptor")[["chosen", "score", "tied"]].nunique().eq(1).all(axis=None)
    assert (
        table[["cluster", "kmeans", "agglomerative", "leiden", "hdbscan", processors.COMPONENTS]]
        .eq(1)
        .all(axis=None)
    )
    stored = [
        read_table(UPath(tmp_path / setting / file_of("representation", "vdc_type")))
        for setting in ("native", "oldest")
    ]
    np.testing.assert_array_equal(*(table.vectors("vectors").to_array() for table in stored))
    assert "source" in stored[0].vector_columns  # it was embedded
    for name in ("scaled_pca", "neighbors", "views"):
        files = [tmp_path / setting / file_of(name, "vdc_type") for setting in ("native", "oldest")]
        assert files[0].read_bytes() == files[1].read_bytes(), name


CHOICES = pd.DataFrame(
    {
        "descriptor": ["a", "a", "b", "b"],
        "seed": 0,
        "algorithm": ["kmeans", "leiden", "kmeans", "leiden"],
        "n_clusters": 50,
        "score": [0.4, 0.39, 0.2, 0.3],
        "tied": [True, True, False, True],
        "won": [False, True, False, True],
        "raced": [True, False, False, True],
        "accuracy": [0.8, 0.7, 0.5, 0.6],
        "accuracy_color": [0.3, 0.5, 0.4, 0.2],
    }
)


def test_ties_and_the_race_are_judged_beside_the_best_score() -> None:
    table = selection.choices_table(CHOICES, 50)
    points = {"accuracy": (0, 5, 0), "accuracy_color": (20, 10, 20)}
    for column, (best, exhaustive, race) in points.items():
        assert table.loc[column, "best score: points lost"] == pytest.approx(best)
        assert table.loc[column, "exhaustive: points lost"] == pytest.approx(exhaustive)
        assert table.loc[column, "race: points lost"] == pytest.approx(race)
    assert table["tied"].tolist() == [1.5, 1.5]
    assert table["tie broken"].tolist() == table["race differs"].tolist() == [0.5, 0.5]


def test_algorithms_are_compared_by_how_near_they_come_to_the_best() -> None:
    table = selection.contenders_table(CHOICES, 50, "algorithm")
    assert table["share of the best score"].to_dict() == pytest.approx(
        {"leiden": (0.39 / 0.4 + 1) / 2, "kmeans": (1 + 0.2 / 0.3) / 2}
    )
    assert table["chosen"].to_dict() == {"leiden": 1.0, "kmeans": 0.0}
    assert table["choices"].tolist() == [2, 2]


def test_criteria_are_judged_on_a_finished_run(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = finished.pipeline
    assert selection.main([str(pipeline.root), "--config", str(pipeline.config)]) == 0
    page = capsys.readouterr().out
    assert re.search(r"\| predictability +\|", page)
    chosen = pipeline.read("summary").set_index("descriptor")["n_clusters"]
    for name in PARTITIONS:
        assert re.search(rf"\| {re.escape(name)} +\|.*\| +{chosen[name]} \|", page)


@pytest.mark.browser
def test_the_report_is_written_and_opened_at_any_size() -> None:
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no browser on the PATH: neither chromium nor google-chrome")
    command = [sys.executable, "-m", "benchmarks.page", "--images", "300", "--descriptors", "1"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    number = r"\d+\.\d+"
    opened = ", ".join([number] * 3)
    told = rf"300 images, 1 descriptors: {number} MB, written in {number} s, opened in {opened} s"
    assert re.fullmatch(told, ran.stdout.strip())
