import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from iv_pipeline.errors import InputError
from iv_pipeline.learn import neighbors
from iv_pipeline.learn.neighbors import neighbor_graph

pytestmark = pytest.mark.kernels


def blobs(n_rows: int, n_features: int = 8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(scale=3, size=(12, n_features))
    return (centers[rng.integers(12, size=n_rows)] + rng.normal(size=(n_rows, n_features))).astype(np.float32)


@given(n_rows=st.integers(2, 200), k=st.integers(1, 20), seed=st.integers(0, 50), offset=st.floats(-1e4, 1e4))
@settings(max_examples=40, deadline=None)
def test_exact_search_agrees_with_scikit_learn(n_rows: int, k: int, seed: int, offset: float) -> None:
    X = blobs(n_rows, seed=seed) + np.float32(offset)
    graph = neighbor_graph(X, k)
    k = min(k, n_rows - 1)
    expected, _ = NearestNeighbors(n_neighbors=k).fit(X.astype(np.float64)).kneighbors()
    assert graph.indices.shape == (n_rows, k)
    np.testing.assert_allclose(graph.distances, expected, rtol=1e-3, atol=1e-3)


def test_no_row_is_its_own_neighbor_even_among_duplicates() -> None:
    X = np.repeat(blobs(5), 30, axis=0)
    graph = neighbor_graph(X, 10)
    assert not (graph.indices == np.arange(150)[:, None]).any()
    assert not graph.distances.any()


def test_cells_reach_the_recall_that_was_aimed_at_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    X = blobs(6000, 16)
    exact = neighbor_graph(X, 15)
    monkeypatch.setattr(neighbors, "EXACT_ROWS", 1000)
    found = neighbor_graph(X, 15)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact.indices, found.indices, strict=True)])
    assert found.recall >= 0.95
    assert abs(recall - found.recall) < 0.03
    assert 1 <= found.n_probes < found.n_cells


def test_cells_find_the_same_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "EXACT_ROWS", 1000)
    X = blobs(3000)
    np.testing.assert_array_equal(neighbor_graph(X, 15, 3).indices, neighbor_graph(X, 15, 3).indices)


def test_a_single_row_has_no_neighbors() -> None:
    with pytest.raises(InputError, match="two usable rows"):
        neighbor_graph(np.zeros((1, 3), np.float32), 5)
