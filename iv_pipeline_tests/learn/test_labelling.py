from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hdbscan
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_blobs

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.errors import InputError
from iv_pipeline.learn import neighbors
from iv_pipeline.learn.clustering import ALGORITHMS, Attachment, Clustering, NeighborModel, Space
from iv_pipeline.learn.labelling import (
    Labeller,
    labels_of,
    n_labels_of,
    numbers_of,
    rule_from_arrays,
    rule_of,
    rule_to_arrays,
)
from iv_pipeline.learn.novelty import fit_novelty
from iv_pipeline.learn.pca import fit_pca
from iv_pipeline.learn.representation import Reduction
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics
from iv_pipeline.learn.validity import ValidityRule

SPREAD = np.linspace(0.5, 1.5, 6)


def blobs(n_rows: int = 1500, seed: int = 2) -> np.ndarray:
    centers = make_blobs(6, centers=6, n_features=5, random_state=9)[0]
    return make_blobs(n_rows, centers=centers, cluster_std=SPREAD, random_state=seed)[0].astype(np.float32)


def density_model(X: np.ndarray, name: str) -> tuple[NeighborModel, Clustering]:
    space = Space(X)
    parameters = {"hdbscan": ALGORITHMS["hdbscan"].grid(6)[2], "dbscan": {"core_quantile": 0.7}}[name]
    clustering = ALGORITHMS[name].fit(space, parameters)
    assert clustering.attachment is not None
    core = space.hierarchy.core_distances
    return NeighborModel(X, clustering.labels, core, clustering.attachment), clustering


@pytest.mark.parametrize("name", ["hdbscan", "dbscan"])
def test_rows_of_the_fit_are_labelled_as_the_fit_did(name: str) -> None:
    X = blobs()
    model, clustering = density_model(X, name)
    labels, confidence = model.predict(X)
    assert np.mean(labels == clustering.labels) >= 0.97
    assert clustering.n_clusters >= 5
    assert ((confidence > 0) == (labels >= 0)).all()
    assert confidence.max() <= 1


def test_new_rows_are_labelled_as_the_reference_does() -> None:
    X, new = blobs(), blobs(500, seed=3)
    model, clustering = density_model(X, "hdbscan")
    reference = hdbscan.HDBSCAN(
        clustering.parameters["min_cluster_size"], min_samples=10, prediction_data=True
    ).fit(X.astype(np.float64))
    expected, _ = hdbscan.approximate_predict(reference, new.astype(np.float64))
    found, _ = model.predict(new)
    same = clustering.labels >= 0
    number = numbers_of(reference.labels_[same], clustering.labels[same], 1 + reference.labels_.max())
    assert np.mean(np.where(expected >= 0, number[expected], -1) == found) >= 0.95


@pytest.mark.parametrize("name", ["hdbscan", "dbscan"])
def test_a_row_far_from_everything_is_in_no_cluster(name: str) -> None:
    model, _ = density_model(blobs(), name)
    labels, confidence = model.predict(np.full((1, 5), 500, np.float32))
    assert labels.tolist() == [-1]
    assert confidence.tolist() == [0]


def test_cells_serve_new_rows_when_there_are_many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    X, new = blobs(6000), blobs(500, seed=3)
    exact, _ = density_model(X, "hdbscan")
    monkeypatch.setattr(neighbors, "EXACT_ROWS", 1000)
    by_cells, _ = density_model(X, "hdbscan")
    assert np.mean(exact.predict(new)[0] == by_cells.predict(new)[0]) >= 0.98


@pytest.mark.parametrize("name", ALGORITHMS)
def test_how_an_algorithm_assigns_rows_survives_storage(name: str) -> None:
    clustering = ALGORITHMS[name].fit(Space(blobs()), ALGORITHMS[name].grid(6)[0])
    rule = rule_of(clustering)
    restored = rule_from_arrays(rule_to_arrays(rule))
    assert n_labels_of(restored) == clustering.n_clusters
    assert type(restored) is type(rule)
    for field, value in vars(rule).items():
        np.testing.assert_array_equal(getattr(restored, field), value)
    if isinstance(restored, Attachment):
        assert isinstance(restored.min_samples, int)
        assert isinstance(restored.eps, float)


def labeller() -> tuple[Labeller, np.ndarray, np.ndarray]:
    X = blobs() * np.float32(100) + np.float32(7)
    statistics = compute_statistics(ArrayBatches(X))
    pca = fit_pca(statistics, fit_scaler("standard", statistics), 0.9, 4)
    clustering = ALGORITHMS["kmeans"].fit(Space(pca.transform(X)), {"n_clusters": 6})
    assert clustering.model is not None
    numbers = np.array([5, 3, 4, 0, 1, 2], np.int32)
    return Labeller(Reduction(pca), clustering.model, numbers), X, numbers[clustering.labels]


def test_raw_vectors_get_the_numbers_of_the_fit() -> None:
    fitted, X, expected = labeller()
    cluster, confidence = fitted.predict(X)
    np.testing.assert_array_equal(cluster, expected)
    np.testing.assert_array_equal(cluster, fitted.predict(ArrayBatches(X, 100))[0])
    assert confidence.dtype == np.float32


def test_rows_with_nan_or_infinity_are_in_no_cluster() -> None:
    fitted, X, expected = labeller()
    broken = X.copy()
    broken[3, 1], broken[7, 0] = np.nan, np.inf
    cluster, confidence = fitted.predict(broken)
    assert cluster[[3, 7]].tolist() == [-1, -1]
    assert confidence[[3, 7]].tolist() == [0, 0]
    assert (np.delete(cluster, [3, 7]) == np.delete(expected, [3, 7])).all()


def test_vectors_of_another_width_are_refused() -> None:
    fitted, X, _ = labeller()
    with pytest.raises(InputError, match=r"shape \(\d+, 4\) cannot be labelled: the fit had 5 features"):
        fitted.predict(X[:, :4])


@pytest.mark.parametrize(
    "held",
    [
        lambda X: X[:2].tolist(),
        lambda X: tuple(X[:2]),
        lambda X: np.array([*X[:2], None], object)[:2],
        lambda X: pd.DataFrame(X[:2], index=["a.jpg", "b.jpg"]),
        lambda X: pd.DataFrame(X[:2]).assign(path="a.jpg"),
        lambda X: pd.DataFrame(X[:2]).astype("Float32"),
    ],
)
def test_vectors_are_labelled_as_people_hold_them(held: Callable[[np.ndarray], Any]) -> None:
    fitted, X, expected = labeller()
    assert fitted.label(held(X))["cluster"].tolist() == expected[:2].tolist()


@pytest.mark.parametrize("one", [lambda x: x, lambda x: x.tolist(), pd.Series])
def test_one_vector_is_one_row(one: Callable[[np.ndarray], Any]) -> None:
    fitted, X, expected = labeller()
    assert fitted.label(one(X[3]))["cluster"].tolist() == [expected[3]]
    assert fitted.vectors(one(X[3])).shape[0] == 1


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (lambda X: X[:2, None, :], r"shape \(2, 1, 5\)"),
        (lambda X: X[0, 0], r"shape \(\)"),
        (lambda X: [X[0], X[1, :3]], "vectors of different lengths"),
        (lambda _: ["a.jpg", "b.jpg"], "values of the type str"),
        (lambda _: {"a.jpg": 1}, "something else than numbers"),
        (lambda _: None, r"shape \(\)"),
        (lambda X: X[:2] + 1j, "values of the type complex"),
        (lambda X: pd.DataFrame(X).reset_index(), r"shape \(\d+, 6\)"),
        (lambda X: ArrayBatches(X[:, :4]), r"shape \(\d+, 4\)"),
    ],
)
def test_what_is_no_vectors_gets_one_sentence_with_the_shape_that_is_needed(
    held: Callable[[np.ndarray], Any], says: str
) -> None:
    fitted, X, _ = labeller()
    with pytest.raises(InputError, match=rf"{says}.*; give an array of the shape \(n_rows, 5\)") as refused:
        fitted.predict(held(X))
    assert "\n" not in str(refused.value)


def test_no_images_have_no_labels() -> None:
    fitted, X, _ = labeller()
    assert [part.shape for part in fitted.predict(X[:0])] == [(0,), (0,)]


def test_a_label_that_no_row_of_the_fit_had_is_no_cluster() -> None:
    numbers = numbers_of(np.array([0, 2, 2, -1]), np.array([4, 1, 1, -1]), 4)
    assert numbers.tolist() == [4, -1, 1, -1]
    assert labels_of(np.array([4, 1, 1, -1]), numbers).tolist() == [0, 2, 2, -1]
    fitted, X, expected = labeller()
    without = Labeller(fitted.representation, fitted.model, np.where(fitted.numbers == 3, -1, fitted.numbers))
    cluster, confidence = without.predict(X)
    assert (cluster == np.where(expected == 3, -1, expected)).all()
    assert not confidence[cluster == -1].any()


def test_where_all_is_noise_new_rows_are_noise_too() -> None:
    X = np.random.default_rng(0).uniform(size=(300, 4)).astype(np.float32)
    rule = Attachment(np.empty(0, np.float32), np.empty(0, np.float32), 5)
    model = NeighborModel(X, np.full(300, -1, np.int32), np.ones(300, np.float32), rule)
    assert (model.predict(X[:5])[0] == -1).all()
    sparse = NeighborModel(
        X, np.full(300, -1, np.int32), np.ones(300, np.float32), Attachment(*[np.empty(0)] * 2, eps=0.1)
    )
    assert (sparse.predict(X[:5])[0] == -1).all()


def test_confidence_of_rows_of_the_fit_is_that_of_the_fit() -> None:
    rng = np.random.default_rng(0)
    clumps = [rng.normal(c, 0.05, (60, 2)) for c in ((0, 0), (2, 2))]
    X = np.vstack([*clumps, rng.normal(1, 1.5, (300, 2)), rng.normal(40, 1, (200, 2))]).astype(np.float32)
    model, clustering = density_model(X, "hdbscan")
    labels, confidence = model.predict(X)
    inside = clustering.labels >= 0
    same = inside & (labels == clustering.labels)
    assert same.sum() >= 0.97 * inside.sum() > 100
    apart = np.abs(confidence[same] - clustering.confidence[same])
    assert apart.max() < 0.1
    assert apart.mean() < 0.01


def known_labeller() -> tuple[Labeller, np.ndarray, np.ndarray]:
    fitted, X, expected = labeller()
    reduced = fitted.representation.reduce(ArrayBatches(X))
    novelty = fit_novelty(reduced, contamination=0.01, unknown=0.001)
    return replace(fitted, novelty=novelty, names={3: "vans"}), X, expected


def test_an_image_far_from_everything_known_gets_no_cluster_and_says_so() -> None:
    fitted, X, expected = known_labeller()
    strange = X.mean(axis=0) + np.array([[900, -900, 900, -900, 900]], np.float32)
    labels = fitted.label(np.vstack([X, strange]))
    last = labels.iloc[-1]
    assert (last["cluster"], last["confidence"], last["is_outlier"], last["name"]) == (-1, 0, True, "")
    assert last["status"] == "unknown: far from every image of the fit"
    assert last["outlier_score"] > 0.5
    assert np.mean(labels["cluster"].to_numpy()[:-1] == expected) >= 0.99


def test_images_are_labelled_with_all_that_a_final_csv_says() -> None:
    fitted, X, _ = known_labeller()
    X[0] = np.nan
    labels = fitted.label(X)
    assert labels.columns.tolist() == [
        "cluster",
        "confidence",
        "is_outlier",
        "outlier_score",
        "status",
        "name",
    ]
    assert labels.loc[0, "status"] == "unusable: NaN or infinite values"
    assert (labels.loc[0, "cluster"], labels.loc[0, "outlier_score"], labels.loc[0, "is_outlier"]) == (
        -1,
        1,
        True,
    )
    assert set(labels.loc[labels["cluster"] == 3, "name"]) == {"vans"}
    assert set(labels.loc[labels["cluster"] != 3, "name"]) == {""}
    assert labels["outlier_score"].between(0, 1).all()
    cluster, confidence = fitted.predict(X)
    np.testing.assert_array_equal(cluster, labels["cluster"])
    np.testing.assert_array_equal(confidence, labels["confidence"])


def test_new_images_are_held_to_the_bounds_of_the_fit() -> None:
    fitted, X, _ = known_labeller()
    held = replace(fitted, validity=ValidityRule((X.shape[1],), (1e4,)))
    X[1], X[2] = 0, 1e6
    labels = held.label(X)
    assert labels["status"][1] == "unusable: all zeros"
    assert labels["status"][2] == "unusable: values far beyond those of the other images"
    assert (labels["cluster"][[1, 2]] == -1).all()
    assert labels["is_outlier"][[1, 2]].all()
