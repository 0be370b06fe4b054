"""Small plots for Dagster's metadata and the report."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

SCALER_COLORS = {"standard": "#2f6fb5", "minmax": "#d1742f", "robust": "#3f8f5f"}
ALGORITHM_MARKERS = {
    "kmeans": "o",
    "minibatchkmeans": "s",
    "gaussianmixture": "^",
    "agglomerative": "D",
    "hdbscan": "P",
    "dbscan": "X",
}
INK = "#333a45"
NOISE_COLOR = "#c4c8ce"


def inline(png: bytes) -> str:
    """A picture as markdown that needs no file beside it."""
    return f"![](data:image/png;base64,{base64.b64encode(png).decode()})"


def variance_curve(ratios: Mapping[str, NDArray[np.float64]]) -> bytes:
    """Share of the variance that the leading components keep, a line for each scaler, as PNG."""
    figure, axes = _axes(5.2, 3.0)
    for scaler, ratio in ratios.items():
        share = 100 * np.cumsum(ratio)
        axes.plot(
            np.arange(1, len(share) + 1),
            share,
            color=SCALER_COLORS.get(scaler, INK),
            label=f"{scaler}: {len(share)} keep {share[-1]:.1f} %",
        )
    axes.set(xlabel="components", ylabel="variance kept, %", ylim=(0, 101))
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return _png(figure)


def selection_curve(trials: pd.DataFrame) -> bytes:
    """The leading criterion against the number of clusters, a mark for each trial, as PNG."""
    criterion = str(trials["criterion"].iloc[0])
    figure, axes = _axes(5.6, 3.4)
    for (scaler, algorithm), group in trials.groupby(["scaler", "algorithm"], sort=False):
        points = group[group["n_clusters"] > 1].sort_values("n_clusters")
        axes.plot(
            points["n_clusters"],
            points[criterion],
            color=SCALER_COLORS.get(str(scaler), INK),
            marker=ALGORITHM_MARKERS.get(str(algorithm), "."),
            markersize=4,
            linewidth=0.8 if algorithm in {"kmeans", "agglomerative"} else 0,
            alpha=0.75,
        )
    winner = trials[trials["won"]].iloc[0]
    axes.plot(
        winner["n_clusters"], winner[criterion], "o", ms=12, mfc="none", mec="#b3261e", mew=1.6, label="chosen"
    )
    axes.set(xscale="log", xlabel="clusters", ylabel=criterion)
    marks = [axes.plot([], [], color=c, label=s)[0] for s, c in SCALER_COLORS.items()]
    marks += [axes.plot([], [], m, color=INK, ms=4, label=a)[0] for a, m in ALGORITHM_MARKERS.items()]
    axes.legend(handles=marks, frameon=False, fontsize=6.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return _png(figure)


def cluster_sizes(sizes: pd.Series[int]) -> bytes:
    """A bar for each cluster, noise in grey, as PNG."""
    figure, axes = _axes(5.6, 2.4)
    colors = [NOISE_COLOR if number == -1 else "#2f6fb5" for number in sizes.index]
    axes.bar(range(len(sizes)), sizes.to_numpy(), color=colors, width=0.85)
    step = max(1, len(sizes) // 12)
    axes.set_xticks(range(0, len(sizes), step), [str(n) for n in sizes.index[::step]])
    axes.set(xlabel="cluster", ylabel="images")
    return _png(figure)


def map_2d(coordinates: NDArray[np.float32], labels: NDArray[np.int32], size: float = 4.6) -> bytes:
    """All points of a map in the colour of their cluster, as PNG."""
    import matplotlib as mpl

    figure, axes = _axes(size, size)
    colors = np.array(mpl.colormaps["tab20"].colors)[labels % 20]  # type: ignore[attr-defined]
    colors[labels < 0] = mpl.colors.to_rgb(NOISE_COLOR)
    order = np.argsort(labels >= 0, kind="stable")  # noise lies below
    dot = float(np.clip(20_000 / max(len(labels), 1), 0.2, 6))
    axes.scatter(*coordinates[order].T, c=colors[order], s=dot, linewidths=0, rasterized=True)
    axes.set_axis_off()
    return _png(figure)


def heat_map(values: pd.DataFrame, low: float = 0.0, high: float = 1.0) -> bytes:
    """A square table of agreement as coloured cells with their numbers, as PNG."""
    n = len(values)
    figure, axes = _axes(1.6 + 0.72 * n, 1.1 + 0.6 * n)
    axes.imshow(values.to_numpy(float), vmin=low, vmax=high, cmap="Blues", aspect="auto")
    axes.set_xticks(range(n), [str(c) for c in values.columns], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(n), [str(c) for c in values.index], fontsize=8)
    for i in range(n):
        for j in range(n):
            value = float(values.iloc[i, j])  # type: ignore[arg-type]
            color = "white" if value > (low + high) / 2 else INK
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    axes.spines[:].set_visible(False)
    return _png(figure)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure that no global state knows, so that plots may be drawn on any thread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    return figure, axes


def _png(figure: Figure) -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format="png", pil_kwargs={"optimize": True})
    return target.getvalue()
