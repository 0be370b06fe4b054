"""How large the report is, how long it takes to write, and how soon a browser has opened it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from iv_pipeline.report.page import ReportData, render_report

N_CLUSTERS = 50
AXES = ["x2", "y2", "x3", "y3", "z3"]


def draw(n_images: int, n_descriptors: int, seed: int = 0) -> ReportData:
    """Everything that the page tells of so many images, without pictures."""
    rng = np.random.default_rng(seed)
    paths = pd.Series([f"veriwild/{i // 130_000 + 1}/{i // 40:05d}/{i:06d}.jpg" for i in range(n_images)])
    names = [f"descriptor {i}" for i in range(1, n_descriptors + 1)]
    cluster = rng.integers(0, N_CLUSTERS, n_images).astype(np.int32)
    score = rng.beta(1, 8, n_images)
    final = pd.DataFrame(
        {
            "image_path": paths,
            "cluster": cluster,
            "confidence": 1.0,
            "is_outlier": score > 0.5,
            "outlier_score": score,
            "status": "ok",
            "name": "",
        }
    )
    middles = rng.normal(0, 8, (N_CLUSTERS, len(AXES)))
    places = (middles[cluster] + rng.normal(size=(n_images, len(AXES)))).astype(np.float32)
    projection = pd.DataFrame(places, columns=AXES).assign(image_path=paths)
    summary = pd.DataFrame(
        {"descriptor": names, "rank": range(1, n_descriptors + 1), "n_clusters": N_CLUSTERS}
    )
    summary = summary.assign(
        scaler="standard", representation="pca", algorithm="kmeans", strength=0.3, criterion="predictability"
    ).assign(reason="drawn")
    outliers = pd.DataFrame({"image_path": paths, "score": score, "reasons": ""})
    outliers = outliers.assign(quality_score=0.0, anomaly=score).sort_values("score", ascending=False)
    comparison = pd.DataFrame(
        columns=["kind", "descriptor", "first", "second", "adjusted_mutual_information"]
    )
    return ReportData(
        summary=summary,
        comparison=comparison,
        outliers=outliers,
        images=pd.DataFrame({"image_path": paths, "label": cluster % 6}),
        final=dict.fromkeys(names, final),
        projection=dict.fromkeys(names, projection),
    )


def opened(page: Path, times: int) -> list[float]:
    """Seconds until a headless browser has loaded the page, each time in a new tab."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for _ in range(times):
            tab = browser.new_page(viewport={"width": 1400, "height": 1000})
            began = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="load")
            seconds.append(time.perf_counter() - began)
            tab.close()
        browser.close()
    return seconds


def main() -> None:
    """Draw, write, open, and say what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--images", type=int, default=416_314)
    parser.add_argument("--descriptors", type=int, default=6)
    given = parser.parse_args()
    data = draw(given.images, given.descriptors)
    began = time.perf_counter()
    html = render_report(data)
    written = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "index.html"
        page.write_text(html, encoding="utf-8")
        seconds = opened(page, 3)
    sys.stdout.write(
        f"{given.images:,} images, {given.descriptors} descriptors: {len(html) / 1e6:.1f} MB, "
        f"written in {written:.1f} s, opened in {', '.join(f'{s:.2f}' for s in seconds)} s\n"
    )


if __name__ == "__main__":
    main()
