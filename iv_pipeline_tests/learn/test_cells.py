import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from iv_pipeline.learn import cells
from iv_pipeline.learn.cells import Reach, fit_cells


def blobs(n_rows: int, n_features: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(scale=3, size=(9, n_features))
    return (centers[rng.integers(9, size=n_rows)] + rng.normal(size=(n_rows, n_features))).astype(np.float32)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a few hundred rows pass through every branch."""
    monkeypatch.setattr(cells, "CELL_ROWS", 20)
    monkeypatch.setattr(cells, "GROUP_ROWS", 100)
    monkeypatch.setattr(cells, "TRAINING_ROWS", 50)
    monkeypatch.setattr(cells, "BLOCK_QUERIES", 16)
    monkeypatch.setattr(cells, "FIRST_POINTS", 30)


@given(
    n_rows=st.integers(60, 400), k=st.integers(1, 50), seed=st.integers(0, 50), offset=st.floats(-1e4, 1e4)
)
@settings(max_examples=30, deadline=None)
def test_looking_into_all_cells_is_exact_search(n_rows: int, k: int, seed: int, offset: float) -> None:
    X = blobs(n_rows, seed=seed) + np.float32(offset)
    queries = blobs(37, seed=seed + 1) + np.float32(offset)
    found = fit_cells(X, seed)
    indices, distances = found.search(queries, k, Reach(found.n_cells, found.n_cells))
    expected, _ = NearestNeighbors(n_neighbors=k).fit(X.astype(np.float64)).kneighbors(queries)
    np.testing.assert_allclose(distances, expected, rtol=1e-3, atol=1e-3)
    of_indices = np.linalg.norm(X[indices].astype(np.float64) - queries[:, None], axis=2)
    np.testing.assert_allclose(of_indices, distances, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("share", [0.8, 0.9, 1.0])
def test_as_many_cells_are_probed_as_the_share_of_true_neighbors_takes(share: float) -> None:
    X = blobs(2000)
    found = fit_cells(X)
    truth = NearestNeighbors(n_neighbors=3).fit(X).kneighbors(return_distance=False)
    reach = found.reach_for(X, truth, share)
    indices, _ = found.search(X, 4, reach)
    recall = np.mean([np.isin(t, f).mean() for t, f in zip(truth, indices, strict=True)])
    assert share - 0.01 <= recall
    assert 1 <= reach.n_probes <= reach.horizon <= found.n_cells
    if share < 1:
        assert reach.n_probes < found.n_cells / 3


def test_cells_with_too_few_points_are_not_the_only_ones_looked_into() -> None:
    X = blobs(200)
    found = fit_cells(X)
    indices, distances = found.search(X[:5], 120, Reach(1, 1))
    assert np.isfinite(distances).all()
    assert all(len(set(row)) == 120 for row in indices.tolist())


def test_equal_points_are_exactly_zero_apart() -> None:
    X = np.repeat(blobs(40) + 1000, 10, axis=0)
    _, distances = fit_cells(X).search(X, 10, Reach(3, 5))
    assert not distances.any()


def test_a_cell_of_equal_points_of_any_size_is_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "PRODUCT_ENTRIES", 500)
    X = np.vstack([np.repeat(blobs(1), 300, axis=0), blobs(300, seed=4)])
    found = fit_cells(X)
    indices, distances = found.search(X, 20, Reach(found.n_cells, found.n_cells))
    expected, _ = NearestNeighbors(n_neighbors=20).fit(X.astype(np.float64)).kneighbors(X)
    np.testing.assert_allclose(distances, expected, rtol=1e-3, atol=1e-3)
    assert all(len(set(row)) == 20 for row in indices.tolist())


def test_one_seed_gives_the_same_neighbors_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    X = blobs(600)
    first = fit_cells(X, 3).search(X, 7, Reach(4, 9))
    monkeypatch.setenv("IV_THREADS", "1")
    second = fit_cells(X, 3).search(X, 7, Reach(4, 9))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_queries_have_no_neighbors() -> None:
    indices, distances = fit_cells(blobs(100)).search(np.empty((0, 6), np.float32), 3, Reach(2, 2))
    assert indices.shape == distances.shape == (0, 3)
