import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.neighbors import neighbor_graph
from iv_pipeline.learn.pca import Projection, fit_pca
from iv_pipeline.learn.precision import GRID_BITS, REPRODUCIBLE_ROWS, grid_step, to_grid
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics

pytestmark = pytest.mark.kernels


@given(st.floats(1e-30, 1e30))
def test_a_step_is_a_power_of_two_and_a_fixed_share_of_the_spread(variance: float) -> None:
    step = grid_step(variance)
    assert math.frexp(step)[0] == 0.5
    assert 0.5 <= step * 2**GRID_BITS / math.sqrt(variance) <= 2


@given(st.integers(1, 20_000), st.floats(-1e-9, 1e-9))
def test_rounding_does_not_move_the_grid_of_standardized_data(n_features: int, error: float) -> None:
    assert grid_step(n_features * (1 + error)) == grid_step(n_features)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan])
def test_without_variance_there_is_no_grid(variance: float) -> None:
    assert grid_step(variance) == 0
    np.testing.assert_array_equal(to_grid(np.array([0.1]), grid_step(variance)), np.array([0.1], np.float32))


def test_values_on_the_grid_are_exact_and_others_go_to_the_nearest() -> None:
    step = 2.0**-4
    np.testing.assert_array_equal(
        to_grid(np.array([0.5, 0.51, -0.49, np.nan, np.inf, 1e300]), step),
        [0.5, 0.5, -0.5, np.nan, np.inf, np.inf],
    )


def drawn(n_rows: int, n_features: int = 60, seed: int = 0) -> np.ndarray:
    """Rows whose features have a spectrum that falls, like descriptors."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_features, n_features)) / np.arange(1, n_features + 1)[:, None]
    return np.asarray(rng.normal(size=(n_rows, n_features)) @ mixing + 5, np.float32)


def test_components_of_small_fits_do_not_depend_on_the_order_of_sums() -> None:
    """Permuted features and rows are added in another order, as another processor would."""
    X = drawn(500)
    order = np.random.default_rng(1).permutation(X.shape[1])
    rows = np.random.default_rng(2).permutation(len(X))
    reduced = {}
    for name, Y in {"as it is": X, "permuted": X[rows][:, order]}.items():
        statistics = compute_statistics(ArrayBatches(Y))
        pca = fit_pca(statistics, fit_scaler("standard", statistics), 0.9, 200)
        (reduced[name],) = Projection([pca])(Y)
        assert pca.step > 0
    expected, found = reduced["as it is"][rows], reduced["permuted"]
    signs = np.sign((expected * found).sum(axis=0))  # the largest entry, which decides, may be another one
    np.testing.assert_array_equal(found * signs, expected)


def test_large_fits_are_reduced_in_float32() -> None:
    X = np.tile(drawn(1000, 4), (REPRODUCIBLE_ROWS // 1000 + 1, 1))
    statistics = compute_statistics(ArrayBatches(X))
    assert fit_pca(statistics, fit_scaler("standard", statistics), 0.9, 200).step == 0


def test_equally_near_neighbors_come_in_the_order_of_their_numbers() -> None:
    grid = (
        np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)
    )
    graph = neighbor_graph(grid, 6)
    for row, indices in enumerate(graph.indices):
        apart = np.linalg.norm(grid - grid[row], axis=1)
        apart[row] = np.inf
        np.testing.assert_array_equal(indices, np.lexsort((np.arange(len(grid)), apart))[:6])


@pytest.mark.parametrize("seed", range(5))
def test_features_of_equal_weight_decide_on_no_sign(seed: int) -> None:
    """A feature beside its negation has a loading of the same size: rounding must not choose between them."""
    half = drawn(300, 8, seed)
    X = np.hstack([half, -half])
    order = np.random.default_rng(seed).permutation(len(X))
    components = []
    for rows in (X, X[order]):
        statistics = compute_statistics(ArrayBatches(rows))
        components.append(fit_pca(statistics, fit_scaler("standard", statistics), 0.9, 200).components)
    np.testing.assert_allclose(*components, atol=1e-6)


def test_components_without_variance_are_not_counted() -> None:
    X = np.hstack([drawn(200, 5), drawn(200, 5)])  # of rank 5
    statistics = compute_statistics(ArrayBatches(X))
    assert fit_pca(statistics, fit_scaler("standard", statistics), 1.0, 200).n_components == 5
