"""Does the processor decide? The same delivery under several settings of the libraries that adapt to it.

OpenBLAS, FAISS, Numba and NumPy choose other kernels on other processors, which add in another order. Each
setting makes them choose as on some other processor, in a process and a data root of its own, up to the stage
`clusters`. A table tells for each descriptor whether the same was chosen and how far the labels agree.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
from sklearn.metrics import adjusted_rand_score
from upath import UPath

from benchmarks.site import CONFIG
from iv_pipeline.config import Settings, load_config
from iv_pipeline.definitions import build_definitions
from iv_pipeline.learn.clustering import ALGORITHMS, Space
from iv_pipeline.learn.selection import described
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from iv_pipeline.config import PipelineConfig

SETTINGS = {
    "native": {},
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell", "FAISS_OPT_LEVEL": "avx2", "NUMBA_CPU_NAME": "generic"},
    "Zen": {"OPENBLAS_CORETYPE": "Zen", "NPY_DISABLE_CPU_FEATURES": "X86_V4"},
    "Sandybridge": {"OPENBLAS_CORETYPE": "Sandybridge", "FAISS_OPT_LEVEL": "generic"},
    "Prescott": {"OPENBLAS_CORETYPE": "Prescott", "FAISS_OPT_LEVEL": "generic"},
    "oldest": {
        "OPENBLAS_CORETYPE": "Prescott",
        "FAISS_OPT_LEVEL": "generic",
        "NUMBA_CPU_NAME": "generic",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3",
        "IV_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    },
}
"""Environment of each setting; the first is what the others are compared with."""
BEFORE = ("image_index", "views")
BY_DESCRIPTOR = (
    *("init", "statistics", "pca", "scaled_pca", "clustering_trials"),
    *("representation", "neighbors", "hierarchy", "clusters"),
)
COMPONENTS = "kmeans on components"
"""Clusters of the standardized components, whatever was chosen: a centroid method without an embedding."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a delivery under every setting; prints a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processors", description=__doc__)
    parser.add_argument("delivery", type=Path)
    parser.add_argument("folder", type=Path, help="a data root for each setting is made, or taken up, in it")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--cluster", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    config = load_config(given.config, UPath(given.delivery))
    if given.cluster:
        return cluster(Settings(UPath(given.folder), UPath(given.delivery), config))
    for name in given.settings:
        root = given.folder / name
        if not _is_finished(root, config):
            _run(name, root, given.delivery, given.config)
    table = compare(config, {name: given.folder / name for name in given.settings})
    sys.stdout.write(table.to_markdown(index=False, floatfmt=".4f") + "\n")
    return 0


def _is_finished(root: Path, config: PipelineConfig) -> bool:
    return all((root / file_of("clusters", partition)).exists() for partition in config.partitions)


def _run(name: str, root: Path, delivery: Path, config: Path) -> None:
    """Cluster a delivery in a process of its own: libraries look at the environment when they are loaded."""
    command = [sys.executable, "-m", "benchmarks.processors", str(delivery), str(root)]
    subprocess.run(  # noqa: S603  (arguments of ours)
        [*command, "--config", str(config), "--cluster"], env=_without_settings() | SETTINGS[name], check=True
    )


def _without_settings() -> dict[str, str]:
    """The environment without what any setting sets."""
    names = {name for setting in SETTINGS.values() for name in setting}
    return {name: value for name, value in os.environ.items() if name not in names}


def cluster(settings: Settings) -> int:
    """Run every stage up to `clusters`; 1 if one fails."""
    job = build_definitions(settings).resolve_implicit_global_asset_job_def()
    runs = [(BEFORE, None), *((BY_DESCRIPTOR, partition) for partition in settings.config.partitions)]
    with dg.DagsterInstance.ephemeral() as instance:
        for stages, partition in runs:
            result = job.execute_in_process(
                instance=instance,
                partition_key=partition,
                asset_selection=[dg.AssetKey(stage) for stage in stages],
                raise_on_error=False,
            )
            if not result.success:
                return 1
    return 0


def compare(config: PipelineConfig, roots: dict[str, Path]) -> pd.DataFrame:
    """A row for each setting and descriptor: what was chosen, and adjusted Rand indices with the first setting."""
    rows = []
    for partition in config.partitions:
        expected: dict[str, NDArray[np.int32]] = {}
        for name, root in roots.items():
            trials = pd.read_parquet(root / file_of("clustering_trials", partition))
            won = trials[trials["won"]].iloc[0]
            labels = _labels(config, root, partition)
            expected = expected or labels
            rows.append(
                {
                    "descriptor": partition,
                    "setting": name,
                    "chosen": f"{won['algorithm']} on {described(won['scaler'], won['representation'])}",
                    "tied": int(trials["tied"].sum()),
                    "score": won[won["criterion"]],
                    **{
                        algorithm: adjusted_rand_score(expected[algorithm], found)
                        for algorithm, found in labels.items()
                        if algorithm in expected
                    },
                }
            )
    return pd.DataFrame(rows)


def _labels(config: PipelineConfig, root: Path, partition: str) -> dict[str, NDArray[np.int32]]:
    """Final clusters, those of every algorithm that ran, and those of the standardized components."""
    table = read_table(UPath(root / file_of("clusters", partition)))
    labels = {
        column.removeprefix("label_"): table.column(column).to_numpy()
        for column in ("cluster", *sorted(c for c in table.schema.names if c.startswith("label_")))
    }
    X = read_table(UPath(root / file_of("scaled_pca", partition))).vectors("standard").to_array()
    X = X[finite_rows(X)]
    budget = {"n_clusters": config.trials.naming_budget}
    return {**labels, COMPONENTS: ALGORITHMS["kmeans"].fit(Space(X, config.seed), budget).labels}


if __name__ == "__main__":
    sys.exit(main())
