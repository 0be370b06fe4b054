"""Batch work on a Dask cluster: a scheduler and two worker processes on loopback."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from upath import UPath

from iv_pipeline import engine
from iv_pipeline.engine import ArrayBatches, map_batches, map_rows, use_cluster
from iv_pipeline.errors import ConfigError
from iv_pipeline.learn.clustering import ALGORITHMS, Space
from iv_pipeline.learn.outliers import isolation_scores
from iv_pipeline.learn.pca import Projection, fit_pca
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import FiniteRows, compute_statistics
from iv_pipeline.storage.scaled import scaled_table
from iv_pipeline.storage.tables import VectorTable, as_matrix, read_table, table_from_arrays, write_table
from iv_pipeline_tests.conftest import Finished, Pipeline, wait_for


class Cluster:
    """A scheduler and two workers, each a process."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self._folder = folder
        self.scheduler = self._start("scheduler", "--port", str(port), "--no-dashboard")
        self.workers = [self.add_worker() for _ in range(2)]

    def add_worker(self) -> "subprocess.Popen[bytes]":
        return self._start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"
        )

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        log = (self._folder / f"{arguments[0]}-{time.monotonic_ns()}.log").open("wb")
        with log:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "dask", *arguments, "--host", "127.0.0.1"],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("dask"))
    deadline = time.monotonic() + 60
    while True:  # the scheduler answers a little after its process starts
        try:
            with socket.create_connection(("127.0.0.1", int(started.address.rsplit(":", 1)[1])), timeout=1):
                break
        except OSError:
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.2)
    yield started
    started.stop()


@pytest.fixture
def on_cluster(cluster: Cluster) -> Iterator[Cluster]:
    use_cluster(cluster.address)
    yield cluster
    use_cluster(None)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    rng = np.random.default_rng(0)
    X = np.maximum(rng.normal(size=(3000, 12)) @ rng.normal(size=(12, 12)), 0).astype(np.float32)
    X[100, 3] = np.nan
    path = UPath(tmp_path_factory.mktemp("tables") / "init.arrow")
    paths = pa.array([f"{i}.jpg" for i in range(len(X))])
    write_table(table_from_arrays({"image_path": paths, "descriptor": X}, 256), path)
    return read_table(path)


def stages(init: VectorTable, folder: Path) -> dict[str, np.ndarray]:
    """Every stage that works batch by batch, on whatever the engine is set to."""
    statistics = compute_statistics(init.vectors("descriptor"))
    scaler = fit_scaler("standard", statistics)
    pca = fit_pca(statistics, scaler, 0.9, 200)
    write_table(scaled_table(init, "descriptor", {"standard": scaler}), UPath(folder / "scaled.arrow"))
    projection = Projection([pca])
    reduced = init.derive(
        {"standard": pca.n_components}, lambda batch: projection(as_matrix(batch.column("descriptor")))
    )
    write_table(reduced, UPath(folder / "reduced.arrow"))
    vectors = read_table(UPath(folder / "reduced.arrow")).vectors("standard")
    X = vectors.to_array()[statistics.usable]
    stored = FiniteRows(vectors, len(X))
    clustering = ALGORITHMS["kmeans"].fit(Space(X, stored=stored), {"n_clusters": 7})
    return {
        **{f"statistics {name}": values for name, values in statistics.to_arrays().items()},
        "scaled": read_table(UPath(folder / "scaled.arrow")).vectors("standard").to_array(),
        "reduced": vectors.to_array(),
        "labels": clustering.labels,
        "confidence": clustering.confidence,
        "isolation": isolation_scores(X, stored=stored),
    }


def test_workers_make_what_threads_make(cluster: Cluster, init: VectorTable, tmp_path: Path) -> None:
    (tmp_path / "threads").mkdir()
    (tmp_path / "workers").mkdir()
    expected = stages(init, tmp_path / "threads")
    use_cluster(cluster.address)
    try:
        found = stages(init, tmp_path / "workers")
    finally:
        use_cluster(None)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_batches_really_run_on_the_workers(on_cluster: Cluster) -> None:
    pids = set(map_batches(lambda _: os.getpid(), 40))
    assert pids <= {worker.pid for worker in on_cluster.workers}
    assert os.getpid() not in pids


@pytest.mark.usefixtures("on_cluster")
def test_rows_in_memory_are_sent_a_batch_at_a_time() -> None:
    X = np.arange(40, dtype=np.float32).reshape(20, 2)
    assert list(map_rows(lambda rows: float(rows.sum()), ArrayBatches(X, 5))) == [45, 145, 245, 345]


def test_a_worker_killed_in_the_middle_costs_no_result(on_cluster: Cluster) -> None:
    def slowly(i: int) -> int:
        time.sleep(0.1)
        return i * i

    results = map_batches(slowly, 40)
    done = [next(results) for _ in range(4)]
    os.kill(on_cluster.workers[1].pid, signal.SIGKILL)
    assert done + list(results) == [i * i for i in range(40)]
    on_cluster.workers[1].wait()
    on_cluster.workers[1] = on_cluster.add_worker()


def test_a_run_completes_though_a_worker_is_killed_in_the_middle(
    cluster: Cluster, finished: Finished, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline(engine={"scheduler": cluster.address})

    def kill_once_init_is_there() -> None:
        wait_for("Init", pipeline.path("init", "vdc_color").exists)
        os.kill(cluster.workers[1].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_once_init_is_there)
    try:
        assert pipeline.run("prepare").success
        killer.start()
        assert pipeline.run("full_pipeline", "vdc_color").success
    finally:
        use_cluster(None)
        killer.join()
    assert cluster.workers[1].wait() == -signal.SIGKILL
    cluster.workers[1] = cluster.add_worker()
    for stage in ("final", "outliers", "image_quality"):
        partition = None if stage == "image_quality" else "vdc_color"
        expected, found = (p.read(stage, partition) for p in (finished.pipeline, pipeline))
        pd.testing.assert_frame_equal(found, expected)


def test_no_thread_stays_connected_to_a_cluster_that_is_left(cluster: Cluster) -> None:
    use_cluster(cluster.address)
    assert list(map_batches(lambda i: i, 2)) == [0, 1]
    assert any(thread.name == "IO loop" for thread in threading.enumerate())
    use_cluster(None)
    wait_for(
        "the end of the client's threads", lambda: all(t.name != "IO loop" for t in threading.enumerate())
    )


def test_threads_that_connect_at_once_share_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def connect(*_: object, **__: object) -> object:
        time.sleep(0.2)
        made.append(object())
        return made[-1]

    monkeypatch.setattr(engine, "_clients", {})
    monkeypatch.setattr("distributed.Client", connect)
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(engine._client, ["tcp://nowhere:1"] * 4))
    assert made == list(dict.fromkeys(clients))


@pytest.mark.usefixtures("on_cluster")
def test_an_error_on_a_worker_reaches_the_caller() -> None:
    def fail(i: int) -> int:
        raise ValueError(f"batch {i}")

    with pytest.raises(ValueError, match="batch 0"):
        list(map_batches(fail, 3))


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iv_pipeline.engine.CONNECT_SECONDS", 1)
    use_cluster("tcp://127.0.0.1:9")
    try:
        with pytest.raises(ConfigError, match=r"engine\.scheduler: no Dask scheduler answers at tcp://127"):
            list(map_batches(lambda i: i, 1))
    finally:
        use_cluster(None)
