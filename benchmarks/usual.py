"""The usual way, as a process of its own: unpickle, scale, reduce by scikit-learn's PCA, cluster by KMeans.

It holds everything in memory, and the solver is the one that scikit-learn picks, or one that is named. A line of
JSON is appended to a file after each step, so that whoever ends the process knows how far it came.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIANCE = 0.9
N_CLUSTERS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and write down the seconds of each step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.usual", description=__doc__)
    parser.add_argument("pickles", type=Path, nargs="+", help="descriptors, put side by side")
    parser.add_argument("--scalers", nargs="+", default=["standard"])
    parser.add_argument("--solver", default="auto", help="of PCA, as scikit-learn names them")
    parser.add_argument("--steps", type=Path, required=True, help="where the lines go")
    given = parser.parse_args(arguments)
    began = time.perf_counter()

    def done(step: str, **facts: Any) -> None:
        nonlocal began
        line = json.dumps({"step": step, "seconds": time.perf_counter() - began, **facts})
        with given.steps.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        began = time.perf_counter()

    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    scalers = {"standard": StandardScaler, "minmax": MinMaxScaler, "robust": RobustScaler}
    done("import")
    blocks = [_load(path) for path in given.pickles]
    X = blocks[0] if len(blocks) == 1 else np.hstack(blocks)
    del blocks
    done("load")
    for name in given.scalers:
        scaled = scalers[name]().fit_transform(X)
        done("scale", scaler=name)
        pca = PCA(VARIANCE, svd_solver=given.solver, random_state=0)
        reduced = pca.fit_transform(scaled)
        done("pca", scaler=name, n_components=int(pca.n_components_))
        KMeans(N_CLUSTERS, random_state=0).fit(reduced)
        done("kmeans", scaler=name)
        del scaled, pca, reduced  # the next scaler's would not fit beside them
    return 0


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 (benchmarks.delivery wrote it)


if __name__ == "__main__":
    sys.exit(main())
