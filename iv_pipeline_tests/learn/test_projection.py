import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from sklearn.manifold import trustworthiness
from sklearn.metrics import silhouette_score

from iv_pipeline.learn import projection
from iv_pipeline.learn.neighbors import NeighborGraph, neighbor_graph
from iv_pipeline.learn.projection import (
    choose_landmarks,
    nearest_landmarks,
    place_between,
    umap_layouts,
)


def test_maps_keep_neighbors_together_and_repeat_with_their_seed() -> None:
    X, _ = make_blobs(400, centers=6, n_features=10, random_state=0)
    X = X.astype(np.float32)
    graph = neighbor_graph(X, 20)
    flat, solid = umap_layouts(X, graph, n_epochs=100, seed=1)
    assert flat.shape == (400, 2)
    assert solid.shape == (400, 3)
    assert trustworthiness(X, flat, n_neighbors=10) > 0.9
    (again,) = umap_layouts(X, graph, (2,), n_epochs=100, seed=1)
    np.testing.assert_array_equal(flat, again)


def test_maps_laid_out_side_by_side_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    X = make_blobs(200, centers=4, n_features=5, random_state=0)[0].astype(np.float32)
    graph = neighbor_graph(X, 15)
    alone = umap_layouts(X, graph, n_epochs=20)
    monkeypatch.setenv("IV_THREADS", "1")
    for one, other in zip(alone, umap_layouts(X, graph, n_epochs=20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_placed_between_landmarks_are_as_near_their_neighbors_as_laid_out_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, kind = make_blobs(3000, centers=12, n_features=10, random_state=0)
    X = X.astype(np.float32)
    graph = neighbor_graph(X, 50)
    (whole,) = umap_layouts(X, graph, (2,), n_epochs=100)
    monkeypatch.setattr(projection, "LEAST_LANDMARKS", 100)
    (placed,) = umap_layouts(X, graph, (2,), n_epochs=100)
    assert placed.shape == (3000, 2)
    kept, placed_kept = (trustworthiness(X, layout, n_neighbors=10) for layout in (whole, placed))
    assert placed_kept > kept - 0.02
    assert silhouette_score(placed, kind) > 0.5


def test_landmarks_are_a_share_of_many_rows_and_all_of_few() -> None:
    assert len(choose_landmarks(90_000)) == 90_000
    assert len(choose_landmarks(120_000)) == 100_000
    many = choose_landmarks(1_000_000)
    assert len(many) == 250_000
    assert (np.diff(many) > 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_nearest_landmarks_are_the_first_landmarks_among_the_neighbors(seed: int, n_neighbors: int) -> None:
    rng = np.random.default_rng(seed)
    graph = neighbor_graph(rng.normal(size=(40, 3)).astype(np.float32), 8)
    landmarks = np.sort(rng.choice(40, rng.integers(1, 40), replace=False))
    indices, distances = nearest_landmarks(graph, landmarks, n_neighbors)
    for row in range(40):
        wanted = [n for n in graph.indices[row].tolist() if n in set(landmarks.tolist())][:n_neighbors]
        found = indices[row][indices[row] >= 0]
        assert landmarks[found].tolist() == wanted
        assert (np.diff(distances[row]) >= 0).all()


def test_a_row_that_knows_no_landmark_goes_where_its_neighbors_are() -> None:
    graph = NeighborGraph(
        np.array([[1], [0], [1], [2], [5], [4]], np.int32), np.ones((6, 1), np.float32), 1.0
    )
    landmarks = np.array([0, 1])
    indices, distances = nearest_landmarks(graph, landmarks, 1)
    layout = np.array([[5, 5], [7, 7]], np.float32)
    places = place_between(layout, landmarks, indices, distances, graph)
    np.testing.assert_allclose(places, [[5, 5], [7, 7], [7, 7], [7, 7], [6, 6], [6, 6]], atol=1e-3)
