"""How long it takes from an answer to new attributes and questions, with the command that people use.

Joint features, groups and clusters are drawn as a run leaves them; no descriptor is computed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from upath import UPath

from benchmarks.site import CONFIG, MIB
from benchmarks.watch import watch
from iv_pipeline.answering import FIT_KEY, table_of_tree
from iv_pipeline.config import GROUPS, load_config
from iv_pipeline.learn.groups import fit_groups
from iv_pipeline.storage.formats import arrays_to_bytes
from iv_pipeline.storage.layout import NAMES, file_of
from iv_pipeline.storage.tables import IMAGE_PATH, table_from_arrays, write_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_FEATURES = 290
"""Joint features of the real descriptors: about 20, 69, 100 and 100 components."""
N_NEIGHBORS = 50
N_KINDS = 60
N_CLUSTERS = 50
COMMAND = "dagster asset materialize -m iv_pipeline.definitions --select attributes,review"


def draw(root: Path, n_rows: int, seed: int = 0) -> NDArray[np.int64]:
    """What `attributes` and `review` read, of so many images; returns the kind of each."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(N_KINDS, size=n_rows)
    middles = rng.normal(size=(N_KINDS, N_FEATURES)).astype(np.float32)
    X = middles[kind] + 2 * rng.standard_normal((n_rows, N_FEATURES), np.float32)
    X *= 2 / np.linalg.norm(X, axis=1, keepdims=True)  # four descriptors, each of length 1
    embedding = 5 * rng.normal(size=(N_KINDS, 15)).astype(np.float32)[kind]
    embedding += rng.standard_normal((n_rows, 15), np.float32)
    paths = pa.array([f"veriwild/{i // 40:05d}/{i:06d}.jpg" for i in range(n_rows)])
    distances = np.sort(rng.random((n_rows, N_NEIGHBORS), np.float32), axis=1)
    indices = rng.integers(n_rows, size=(n_rows, N_NEIGHBORS), dtype=np.int32)
    tables = {
        file_of("joint_features"): table_from_arrays(
            {
                IMAGE_PATH: paths,
                "features": X,
                "indices": indices,
                "distances": distances,
                "embedding": embedding,
            },
            metadata={FIT_KEY: arrays_to_bytes({})},
        ),
        file_of("groups"): table_of_tree(paths, fit_groups(embedding, seed)),
    }
    for name in load_config(CONFIG).partitions:
        cluster = rng.integers(N_CLUSTERS, size=n_rows).astype(np.int32)
        tables[file_of("clusters", name)] = table_from_arrays({IMAGE_PATH: paths, "cluster": cluster})
    for file, table in tables.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        write_table(table, UPath(root / file))
    index = pd.DataFrame({"image_id": np.arange(n_rows), IMAGE_PATH: paths.to_pandas()})
    (root / "Init").mkdir()
    index.to_parquet(root / file_of("image_index"))
    verdict = pd.DataFrame({IMAGE_PATH: index[IMAGE_PATH], "score": 0.1, "is_outlier": False, "reasons": ""})
    (root / "Final").mkdir()
    verdict.to_csv(root / file_of("ranked_outliers"), index=False)
    return kind


def answer(root: Path, kind: NDArray[np.int64], n: int) -> None:
    """Answer the first `n` questions about groups where two thirds of the images shown agree."""
    asked = pd.read_csv(root / file_of("review")).query("kind == 'cluster'").head(n)
    rows = []
    for question in asked.to_dict("records"):
        shown = kind[[int(Path(path).stem) for path in json.loads(str(question["images"]))]]
        said = {}
        for attribute, values in (("type", shown % 6), ("view", shown % 2), ("color", shown % 9)):
            counts = np.bincount(values)
            said[attribute] = f"{attribute} {counts.argmax()}" if 3 * counts.max() >= 2 * len(shown) else ""
        rows.append({"cluster": int(question["cluster"]), **said})
    file = root / NAMES.format(descriptor=GROUPS)
    file.parent.mkdir(exist_ok=True)
    before = [pd.read_csv(file, dtype=str)] if file.exists() else []
    pd.concat([*before, pd.DataFrame(rows).astype(str)]).to_csv(file, index=False)


def main() -> None:
    """Answer 25 questions at a time and say what each update took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write; must not exist")
    parser.add_argument("--images", type=int, default=416_314)
    parser.add_argument("--answers", type=int, default=100)
    given = parser.parse_args()
    root = given.folder / "data"
    for folder in (root / "dagster_home", given.folder / "delivery"):
        folder.mkdir(parents=True)
    began = time.perf_counter()
    kind = draw(root, given.images)
    sys.stdout.write(f"{given.images:,} images drawn in {time.perf_counter() - began:.0f} s\n")
    environment = {
        **os.environ,
        "IV_DATA_ROOT": str(root),
        "IV_CONFIG": str(CONFIG),
        "IV_DELIVERY": str(given.folder / "delivery"),
        "DAGSTER_HOME": str(root / "dagster_home"),
    }
    for n_answers in range(0, given.answers + 1, 25):
        if n_answers:
            answer(root, kind, 25)
        command = [str(Path(sys.executable).parent / "dagster"), *COMMAND.split()[1:]]
        log = given.folder / f"{n_answers}.log"
        usage = watch(command, environment, log)
        if usage.returncode:
            raise SystemExit(f"{log}: the command ended with {usage.returncode}")
        sys.stdout.write(
            f"{n_answers} answers: {usage.wall_seconds:.1f} s, {usage.cpu_seconds:.1f} s of processor time, "
            f"{usage.anonymous_bytes / MIB:,.0f} MiB\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
