"""Label new images with the models of a finished descriptor, as a process of its own.

The new images come from the same cameras: the same types, colors and views, other vehicles. A line of JSON is
written for each algorithm: the seconds that loading its model and labelling took.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.delivery import MOST_PHOTOS, feature_blocks, make_plan
from iv_pipeline.config import load_config
from iv_pipeline.labelling import load_labeller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def main(arguments: Sequence[str] | None = None) -> int:
    """Label, and write down the seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labelling", description=__doc__)
    parser.add_argument("root", type=Path, help="data root of the finished descriptor")
    parser.add_argument("descriptor")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument(
        "--fitted", type=int, required=True, help="rows of the fit, so that new ones are others"
    )
    parser.add_argument("--rows", type=int, required=True, help="new rows")
    parser.add_argument("--seed", type=int, required=True, help="of the delivery")
    parser.add_argument("--algorithms", nargs="+", required=True)
    parser.add_argument("--steps", type=Path, required=True, help="where the lines go")
    given = parser.parse_args(arguments)
    blocks = load_config(given.config).blocks(given.descriptor)
    X = np.hstack([new_rows(name, given.fitted, given.rows, given.seed) for name in blocks])
    for algorithm in given.algorithms:
        began = time.perf_counter()
        labeller = load_labeller(given.root, given.descriptor, algorithm)
        loaded = time.perf_counter()
        cluster, _ = labeller.predict(X)
        line = {
            "algorithm": algorithm,
            "load_seconds": loaded - began,
            "label_seconds": time.perf_counter() - loaded,
            "noise_share": float(np.mean(cluster < 0)),
        }
        with given.steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        del labeller
    return 0


def new_rows(name: str, fitted: int, rows: int, seed: int) -> NDArray[np.float32]:
    """Rows of the vehicles that come next, were the delivery longer, shape ``(rows, n_features)``."""
    plan = make_plan(fitted + rows + MOST_PHOTOS, seed)
    start = int(np.searchsorted(plan.vehicle, plan.vehicle[fitted - 1], side="right"))
    first = next(i for i, block in enumerate(plan.blocks()) if block.stop > start)
    following = np.concatenate(list(feature_blocks(name, plan, seed, first)))
    skipped = start - plan.blocks()[first].start
    return following[skipped : skipped + rows]


if __name__ == "__main__":
    sys.exit(main())
