"""A whole notebook, as such deliveries are usually looked at, and what each of its parts takes.

Of every descriptor: three scalers, scikit-learn's `PCA(0.9)`, k-means for 2 to 20 clusters with three indices,
mini-batch k-means, agglomerative clustering, DBSCAN, HDBSCAN, isolation forest, local outlier factor, t-SNE.

    python -m benchmarks.notebook /path/to/Intellivision_case --rows 20000

Whatever takes a distance of every pair of rows is given `PAIRED_ROWS` at most, t-SNE `SHOWN_ROWS`.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

VARIANCE, MAX_COMPONENTS = 0.9, 200
COUNTS = range(2, 21)
PAIRED_ROWS, SHOWN_ROWS = 15_000, 5_000


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the seconds of the block to a part."""
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0) + time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and print what each part took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.notebook", description=__doc__)
    parser.add_argument("delivery", type=Path, help="with pickled arrays in its folder descriptors")
    parser.add_argument("--rows", type=int, help="the first so many; all by default")
    given = parser.parse_args(arguments)
    clock = Clock()
    for file in sorted((given.delivery / "descriptors").glob("*.pickle")):
        with clock.timed("load"), file.open("rb") as source:
            X = pickle.load(source)[: given.rows]  # noqa: S301 (whoever runs this has made it)
        look_at(X, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table = pd.Series(clock.seconds, name="seconds").sort_values(ascending=False)
    sys.stdout.write(f"{table.round(1).to_frame().to_markdown()}\n")
    sys.stdout.write(f"\n{len(X):,} rows: {table.sum():.0f} s, {peak:.1f} GB at most\n")
    return 0


def look_at(X: NDArray[np.float32], clock: Clock) -> None:
    """Everything that the notebook does with one descriptor, shape ``(n_rows, n_features)``."""
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    reduced = []
    for scaler in (StandardScaler(), MinMaxScaler(), RobustScaler()):
        with clock.timed("scale, PCA"):
            fitted = PCA(VARIANCE, random_state=0).fit_transform(scaler.fit_transform(X))
        reduced.append(fitted[:, :MAX_COMPONENTS])
        with clock.timed("k-means of 2 to 20 clusters, indices"):
            _try_counts(reduced[-1])
    standard = reduced[0]
    some = standard[np.random.default_rng(0).permutation(len(standard))[:PAIRED_ROWS]]
    with clock.timed("mini-batch k-means"):
        MiniBatchKMeans(10, random_state=0).fit(standard)
    with clock.timed("isolation forest"):
        IsolationForest(contamination=0.01, random_state=0).fit_predict(standard)
    _pairs(standard, some, clock)


def _try_counts(X: NDArray[np.float32]) -> None:
    from sklearn.cluster import KMeans
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    for n_clusters in COUNTS:
        labels = KMeans(n_clusters, random_state=0).fit_predict(X)
        silhouette_score(X, labels, sample_size=min(SHOWN_ROWS, len(X)), random_state=0)
        calinski_harabasz_score(X, labels)
        davies_bouldin_score(X, labels)


def _pairs(standard: NDArray[np.float32], some: NDArray[np.float32], clock: Clock) -> None:
    """What looks at pairs of rows; HDBSCAN at all of them, by its trees."""
    import hdbscan
    from sklearn.cluster import DBSCAN, AgglomerativeClustering
    from sklearn.manifold import TSNE
    from sklearn.neighbors import LocalOutlierFactor

    spread = float(standard.var(axis=0).sum()) ** 0.5
    parts: dict[str, list[tuple[Any, NDArray[np.float32]]]] = {
        "agglomerative": [(AgglomerativeClustering(10), some)],
        "DBSCAN": [(DBSCAN(eps=share * spread), some) for share in (0.3, 0.5, 0.8)],
        "HDBSCAN": [(hdbscan.HDBSCAN(min_cluster_size=max(20, len(standard) // 500)), standard)],
        "local outlier factor": [(LocalOutlierFactor(20, contamination=0.01), some)],
        "t-SNE": [(TSNE(2, random_state=0), some[:SHOWN_ROWS])],
    }
    for part, fits in parts.items():
        with clock.timed(part):
            for estimator, X in fits:
                estimator.fit(X)


if __name__ == "__main__":
    sys.exit(main())
