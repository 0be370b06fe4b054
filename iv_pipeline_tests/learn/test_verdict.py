from __future__ import annotations

import io
import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import make_blobs
from upath import UPath

from iv_pipeline.demo.delivery import Shot, _fleet, _jpeg
from iv_pipeline.demo.features import EXTRACTORS
from iv_pipeline.demo.photo import FLAWS
from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.image_quality import measure_images, quality_outliers
from iv_pipeline.learn.representation import RECIPES, fit_block_maps
from iv_pipeline.learn.statistics import compute_statistics
from iv_pipeline.learn.verdict import anomaly_scores, outlier_verdict, tail_threshold
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline_tests.conftest import REPOSITORY, TRAFFIC_CAMERA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

N_CLEAN = 400
N_PLANTED = 12


def whitened(X: NDArray[np.float32]) -> NDArray[np.float32]:
    statistics = compute_statistics(ArrayBatches(X))
    reduction, _ = fit_block_maps(statistics, [X.shape[1]], RECIPES["whitened"], 0.95, 200)
    return reduction.reduce(ArrayBatches(X))


def judged(paths: list[str], read: Callable[[str], bytes]) -> pd.DataFrame:
    """The table of stage `image_quality`."""
    measured = measure_images(paths, read)
    return measured.merge(quality_outliers(measured), on="image_path", validate="1:1")


def drawn(n: int, flaws: tuple[str | None, ...], seed: int) -> list[bytes]:
    fleet = _fleet(max(n // 8, 4), seed)
    shots = [
        Shot(i, i % len(fleet), ("front", "rear")[i // len(fleet) % 2], flaws[i % len(flaws)])
        for i in range(n)
    ]
    return [_jpeg(shot, fleet, seed) for shot in shots]


@pytest.fixture(scope="module")
def photos() -> dict[str, bytes]:
    """Drawn photos, the last ones bad."""
    images = [*drawn(N_CLEAN, (None,), seed=3), *drawn(N_PLANTED, FLAWS, seed=4)]
    return {f"{i:04d}.jpg": data for i, data in enumerate(images)}


@pytest.fixture(scope="module")
def quality(photos: dict[str, bytes]) -> pd.DataFrame:
    return judged(list(photos), photos.__getitem__)


@pytest.fixture(scope="module")
def verdict(photos: dict[str, bytes], quality: pd.DataFrame) -> pd.DataFrame:
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in photos.values()])
    scores = {
        name: anomaly_scores(whitened(extract(pixels)), contamination=0.01)
        for name, extract in EXTRACTORS.items()
    }
    return outlier_verdict(quality, scores, contamination=0.01)


def test_the_training_set_of_the_readme_is_free_of_planted_frames(
    verdict: pd.DataFrame, quality: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    snippet = next(block for block in blocks if "what may go into a training set" in block)
    table = pd.DataFrame({"image_path": quality["image_path"], "cluster": 0, "status": "ok", "name": "sedan"})
    final = tmp_path / "data" / "Final"
    final.mkdir(parents=True)
    table.join(verdict).to_csv(final / "vdc_type.csv", index=False)
    monkeypatch.chdir(tmp_path)
    names: dict[str, pd.DataFrame] = {}
    exec(snippet, names)  # noqa: S102
    kept = names["usable"].index
    assert (kept >= N_CLEAN).sum() <= 2  # empty roads, with markings
    assert (kept < N_CLEAN).sum() >= 0.99 * N_CLEAN


def test_planted_frames_are_flagged_for_the_fault_that_was_planted(verdict: pd.DataFrame) -> None:
    planted = verdict.iloc[N_CLEAN:].assign(flaw=np.resize(FLAWS, N_PLANTED)).query("is_outlier")
    right = [
        reason.startswith(flaw) for reason, flaw in zip(planted["reasons"], planted["flaw"], strict=True)
    ]
    assert np.mean(right) >= 0.9


def real_rows(n: int) -> tuple[list[str], ImageArchive, dict[str, NDArray[np.float32]]]:
    if not TRAFFIC_CAMERA.is_dir():
        pytest.skip(f"there is no delivery at {TRAFFIC_CAMERA}")
    listed = pd.read_csv(TRAFFIC_CAMERA / "images_paths.csv")["paths"].str.replace("\\", "/", regex=False)
    archive = ImageArchive(UPath(TRAFFIC_CAMERA / "raw_data" / "veriwild.zip"))
    vectors = {
        path.stem: np.asarray(pickle.loads(path.read_bytes()), np.float32)[:n]
        for path in sorted((TRAFFIC_CAMERA / "descriptors").glob("*.pickle"))
    }
    return listed.to_list()[:n], archive, vectors


def test_bad_frames_among_real_photos_are_flagged_by_their_pictures_alone() -> None:
    n_real, n_planted = 1500, 20
    paths, archive, vectors = real_rows(n_real)
    planted = {f"planted/{i}.jpg": data for i, data in enumerate(drawn(n_planted, FLAWS, seed=5))}
    quality = judged(
        [*paths, *planted], lambda path: planted[path] if path in planted else archive.read(path)
    )
    copied = np.random.default_rng(0).choice(n_real, n_planted, replace=False)  # vectors that know nothing
    scores = {name: anomaly_scores(whitened(X), 0.01) for name, X in vectors.items()}
    scores = {name: np.concatenate([score, score[copied]]) for name, score in scores.items()}
    flagged = outlier_verdict(quality, scores, 0.01)["is_outlier"]
    assert flagged[n_real:].sum() >= 18
    assert flagged[:n_real].mean() <= 0.01


def test_real_vectors_have_almost_no_outliers_and_garbage_among_them_is_flagged() -> None:
    _, _, vectors = real_rows(4800)
    rng = np.random.default_rng(0)
    X = vectors["osnet"]
    clean = anomaly_scores(whitened(X), 0.01)
    assert (clean >= 1).mean() <= 0.001
    garbage = rng.permuted(X[rng.choice(len(X), 30)], axis=1)  # each row's features in another order
    scores = anomaly_scores(whitened(np.vstack([X, garbage])), 0.01)
    assert (scores[len(X) :] >= 1).all()
    assert (scores[: len(X)] >= 1).mean() <= 0.001


def blobs(n: int = 2000) -> NDArray[np.float32]:
    X, _ = make_blobs(n, centers=8, n_features=20, center_box=(-4, 4), random_state=0)
    return np.asarray(X, np.float32)


def far(X: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    return rng.normal(X.mean(axis=0), 5 * X.std(axis=0), (n, X.shape[1])).astype(np.float32)


PLANTS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]] = {
    "far_out": lambda X: far(X, 15),
    "one_clump": lambda X: far(X, 1) + np.random.default_rng(0).normal(0, 0.2, (15, X.shape[1])),
    "all_equal": lambda X: np.repeat(far(X, 1), 15, axis=0),
    "too_long": lambda X: 6 * X[:15],
}


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_rows_are_flagged_and_no_others(plant: str) -> None:
    X = blobs()
    scores = anomaly_scores(whitened(np.vstack([X, PLANTS[plant](X)]).astype(np.float32)), 0.01)
    assert (scores[len(X) :] >= 1).all()
    assert (scores[: len(X)] >= 1).sum() <= 1


def test_a_clean_delivery_has_almost_no_outliers() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X = blobs() + rng.standard_t(8, (2000, 20))  # heavier tails than real descriptors have
        assert (anomaly_scores(whitened(X.astype(np.float32)), 0.01) >= 1).sum() <= 4


def test_rows_are_scored_alike_among_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    X = whitened(np.vstack([blobs(), far(blobs(), 15)]))
    every = anomaly_scores(X, 0.01)
    monkeypatch.setattr("iv_pipeline.learn.verdict.N_REFERENCE", 800)
    monkeypatch.setattr("iv_pipeline.learn.verdict.BATCH_ROWS", 500)
    sampled = anomaly_scores(X, 0.01)
    assert np.corrcoef(every, sampled)[0, 1] > 0.9
    assert ((sampled >= 1) == (np.arange(len(X)) >= 2000)).mean() >= 0.999


def test_unusable_rows_have_no_score_and_equal_or_few_ones_are_not_unusual() -> None:
    X = blobs(300)
    X[7, 3], X[9, 0] = np.nan, np.inf
    scores = anomaly_scores(X, 0.01)
    assert np.flatnonzero(np.isnan(scores)).tolist() == [7, 9]
    np.testing.assert_array_equal(anomaly_scores(np.ones((300, 4), np.float32), 0.01), 0)
    np.testing.assert_array_equal(anomaly_scores(X[:2], 0.01), 0)


def test_half_a_row_exceeds_the_threshold_of_an_exponential_tail() -> None:
    rng = np.random.default_rng(0)
    draws = rng.exponential(3.0, (400, 1000))
    exceeding = [(row > tail_threshold(row)).sum() for row in draws]
    assert np.mean(exceeding) == pytest.approx(0.5, abs=0.15)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(-3, 9), st.booleans()), min_size=1, max_size=60),
    st.floats(0.01, 0.4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_flagged_images_score_highest_and_only_they_have_reasons(
    quality: pd.DataFrame, images: list[tuple[float, float, bool]], contamination: float
) -> None:
    score, strange, has_vector = (np.array(column) for column in zip(*images, strict=True))
    strange = np.where(has_vector, strange, np.nan)
    pictures = quality.iloc[: len(images)].assign(score=score, reasons=np.where(score >= 0.5, "dark", ""))
    for given_quality in (pictures, None):
        verdict = outlier_verdict(given_quality, {"osnet": strange, "vdc": strange - 1}, contamination)
        flagged = verdict["is_outlier"].to_numpy()
        assert verdict["outlier_score"].between(0, 1).all()
        assert ((verdict["outlier_score"] >= 0.5) == flagged).all()
        assert ((verdict["reasons"] != "") == flagged).all()
        by_vectors = flagged & ~verdict["reasons"].str.contains("^dark|no usable").to_numpy()
        assert by_vectors.sum() <= contamination * len(flagged)


def test_reasons_name_every_descriptor_and_the_fault(quality: pd.DataFrame) -> None:
    scores = {name: np.zeros(len(quality)) for name in ("osnet", "vdc_type")}
    dark = N_CLEAN + FLAWS.index("dark")
    for values in scores.values():
        values[[0, dark]] = 3.0
    scores["osnet"][1] = 2.0
    scores["osnet"][2] = scores["vdc_type"][2] = np.nan
    reasons = outlier_verdict(quality, scores, 0.01)["reasons"]
    assert reasons[0] == "unusual vectors: osnet, vdc_type"
    assert reasons[1] == "unusual vectors: osnet"
    assert reasons[2] == "no usable vector: osnet, vdc_type"
    assert re.fullmatch(r"dark: mean brightness \d%; unusual vectors: osnet, vdc_type", reasons[dark])


def test_a_doubtful_picture_with_doubtful_vectors_is_flagged(quality: pd.DataFrame) -> None:
    measured = quality.drop(columns=["score", "reasons"])
    dim = measured.iloc[:1].copy()
    for dim["brightness"] in np.linspace(0.2, 0.02, 200):
        if quality_outliers(dim, measured)["score"].iloc[0] > 0.45:
            break
    measured.loc[0, "brightness"] = np.float32(dim["brightness"].iloc[0])
    table = measured.merge(quality_outliers(measured), on="image_path")
    usual, doubtful = np.zeros(len(table)), np.zeros(len(table))
    doubtful[0] = 0.8
    assert not outlier_verdict(table, {"osnet": usual}, 0.01)["is_outlier"][0]
    assert not outlier_verdict(None, {"osnet": doubtful}, 0.01)["is_outlier"][0]
    verdict = outlier_verdict(table, {"osnet": doubtful}, 0.01).iloc[0]
    assert verdict["is_outlier"]
    assert re.fullmatch(
        r"possibly dark: mean brightness \d+%; rather unusual vectors: osnet", verdict["reasons"]
    )


def test_pictures_of_which_few_were_read_take_no_part(quality: pd.DataFrame) -> None:
    unread = quality.assign(error=pd.array(["encrypted"] * len(quality), "string"), score=1.0)
    assert not outlier_verdict(unread, {"osnet": np.zeros(len(quality))}, 0.01)["is_outlier"].any()


def test_a_missing_descriptor_and_another_number_of_rows_are_refused(quality: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="at least one descriptor"):
        outlier_verdict(quality, {}, 0.01)
    with pytest.raises(ValueError, match="quality has 412 rows, anomaly 3"):
        outlier_verdict(quality, {"osnet": np.zeros(3)}, 0.01)
