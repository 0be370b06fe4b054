"""Which engine finds the neighbor graph: the same vectors, the same number of neighbors, seconds and recall.

Run from the repository: ``python -m benchmarks.engines --rows 104000``. Each engine that can be told how hard to
look is told to look harder until recall@15 on sampled rows reaches the pipeline's aim, and only the last round
counts: finding out how hard costs it nothing, where the pipeline's own engine pays for it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.delivery import NETWORKS, feature_blocks, make_plan
from benchmarks.machine import commit_of, describe_machine
from benchmarks.run import RESULTS, append_record, command_of
from benchmarks.site import CONFIG, REPOSITORY
from benchmarks.tables import engine_table
from iv_pipeline.config import load_config
from iv_pipeline.engine import ArrayBatches, n_workers
from iv_pipeline.learn.neighbors import (
    RECALL_AIM,
    RECALL_NEIGHBORS,
    nearest,
    neighbor_graph,
    recall_of,
    without_self,
)
from iv_pipeline.learn.pca import fit_pca
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SAMPLED = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every engine on every descriptor, print and append the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--descriptors", nargs="+", choices=list(NETWORKS), default=["vdc_type", "vdc_color"])
    parser.add_argument("--neighbors", type=int, default=load_config(CONFIG).neighbors.n_neighbors)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    measured = []
    for name in given.descriptors:
        X = reduced(name, given.rows)
        sample = np.sort(np.random.default_rng(1).choice(len(X), min(SAMPLED, len(X)), replace=False))
        truth = without_self(nearest(X[sample], X, RECALL_NEIGHBORS + 1), sample)
        for engine in given.engines:
            found, seconds, how = ENGINES[engine](X, given.neighbors, sample, truth)
            facts = {"descriptor": name, "n_features": X.shape[1], "engine": engine, "how": how}
            measured.append({**facts, "seconds": seconds, "recall": recall_of(truth, found)})
            sys.stdout.write(f"{measured[-1]}\n")
    record = {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M"),
        "command": command_of(parser, given),
        "commit": commit_of(REPOSITORY),
        "machine": describe_machine(),
        "rows": given.rows,
        "neighbors": given.neighbors,
        "engines": measured,
    }
    append_record(given.results, record)
    sys.stdout.write(engine_table(measured) + "\n")
    return 0


def reduced(name: str, rows: int) -> NDArray[np.float32]:
    """A drawn descriptor, standardized and reduced as the pipeline does it by default."""
    config = load_config(CONFIG).pca
    X = np.concatenate(list(feature_blocks(name, make_plan(rows, 0), 0)))
    statistics = compute_statistics(ArrayBatches(X))
    components = fit_pca(
        statistics, fit_scaler("standard", statistics), config.variance, config.max_components
    )
    return components.transform(X)


Measured = tuple["NDArray[np.integer[Any]]", float, str]


def _cells(X: NDArray[np.float32], k: int, sample: NDArray[np.int64], truth: NDArray[np.int64]) -> Measured:
    del truth
    began = time.perf_counter()
    graph = neighbor_graph(X, k)
    seconds = time.perf_counter() - began
    how = f"{graph.n_probes} of {graph.n_cells} cells"
    return graph.indices[sample], seconds, how


def _exact(X: NDArray[np.float32], k: int, sample: NDArray[np.int64], truth: NDArray[np.int64]) -> Measured:
    del truth
    began = time.perf_counter()
    found = nearest(X, X, k + 1)
    return without_self(found[sample], sample), time.perf_counter() - began, "all pairs"


def _faiss(
    index: Any, setting: str, efforts: Sequence[int], X: NDArray[np.float32], k: int, judged: Any
) -> Measured:
    """Build a FAISS index, look harder and harder at the sample until the aim is met, then search all rows."""
    import faiss

    faiss.omp_set_num_threads(n_workers())
    sample, truth = judged
    began = time.perf_counter()
    index.train(X)
    index.add(X)
    built = time.perf_counter() - began
    parameters = faiss.ParameterSpace()
    for effort in efforts:
        parameters.set_index_parameter(index, setting, effort)
        if recall_of(truth, without_self(index.search(X[sample], k + 1)[1], sample)) >= RECALL_AIM:
            break
    began = time.perf_counter()
    found = index.search(X, k + 1)[1]
    return without_self(found[sample], sample), built + time.perf_counter() - began, f"{setting} {effort}"


def _inverted_file(
    X: NDArray[np.float32], k: int, sample: NDArray[np.int64], truth: NDArray[np.int64]
) -> Measured:
    import faiss

    index = faiss.index_factory(X.shape[1], f"IVF{int(2 * np.sqrt(len(X)))},Flat")
    return _faiss(index, "nprobe", (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192), X, k, (sample, truth))


def _hnsw(X: NDArray[np.float32], k: int, sample: NDArray[np.int64], truth: NDArray[np.int64]) -> Measured:
    import faiss

    index = faiss.index_factory(X.shape[1], "HNSW16,Flat")
    return _faiss(index, "efSearch", (64, 96, 128, 192, 256, 384, 512, 768), X, k, (sample, truth))


def _pynndescent(
    X: NDArray[np.float32], k: int, sample: NDArray[np.int64], truth: NDArray[np.int64]
) -> Measured:
    from pynndescent import NNDescent

    del truth
    began = time.perf_counter()
    index = NNDescent(X, n_neighbors=k + 1, random_state=0, n_jobs=n_workers())
    found = index.neighbor_graph[0]
    return without_self(found[sample], sample), time.perf_counter() - began, "defaults; compiles first"


ENGINES: dict[str, Callable[..., Measured]] = {
    "cells": _cells,
    "FAISS exact": _exact,
    "FAISS inverted file": _inverted_file,
    "FAISS HNSW": _hnsw,
    "PyNNDescent": _pynndescent,
}


if __name__ == "__main__":
    sys.exit(main())
