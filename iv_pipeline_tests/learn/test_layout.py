import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.manifold import trustworthiness
from umap.umap_ import find_ab_params, simplicial_set_embedding
from umap.utils import tau_rand_int

from iv_pipeline.learn import layout
from iv_pipeline.learn.embedding import fuzzy_graph, lay_out, start_from
from iv_pipeline.learn.neighbors import neighbor_graph

A, B = 1.577, 0.895

pytestmark = pytest.mark.kernels


def blobs(n_rows: int = 600) -> np.ndarray:
    X, _ = make_blobs(n_rows, n_features=12, centers=12, random_state=0)
    return X.astype(np.float32)


def test_a_layout_keeps_neighbors_together_as_well_as_umaps_own() -> None:
    X = blobs()
    fuzzy = fuzzy_graph(neighbor_graph(X, 14), 15)
    start = start_from(X, 2)
    ours = layout.optimize_layout(start, fuzzy, a=A, b=B, n_epochs=200)
    theirs, _ = simplicial_set_embedding(
        start,
        fuzzy,
        n_components=2,
        initial_alpha=1.0,
        a=A,
        b=B,
        gamma=1.0,
        negative_sample_rate=5,
        n_epochs=200,
        init=start,
        random_state=np.random.RandomState(0),
        metric="euclidean",
        metric_kwds={},
        densmap=False,
        densmap_kwds={},
        output_dens=False,
    )
    assert trustworthiness(X, ours, n_neighbors=15) >= trustworthiness(X, theirs, n_neighbors=15) - 0.01


def test_compiled_and_interpreted_layouts_are_the_same_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    X = blobs(60)
    fuzzy, start = fuzzy_graph(neighbor_graph(X, 5), 6), start_from(X, 3)
    compiled = layout.optimize_layout(start, fuzzy, a=A, b=B, n_epochs=12)
    for name in ("_squared_distance", "_clip", "_draw", "_power", "_descend"):
        monkeypatch.setattr(layout, name, getattr(layout, name).py_func)
    np.testing.assert_array_equal(layout.optimize_layout(start, fuzzy, a=A, b=B, n_epochs=12), compiled)


def test_the_seed_decides_and_what_is_given_stays_as_it_was() -> None:
    X = blobs(200)
    fuzzy, start = fuzzy_graph(neighbor_graph(X, 14), 15), start_from(X, 2)
    before = start.copy(), fuzzy.data.copy()
    first, again, other = (lay_out(fuzzy, start, min_dist=0.1, n_epochs=30, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(start, before[0])
    np.testing.assert_array_equal(fuzzy.data, before[1])


def test_rounding_on_the_way_does_not_reach_a_layout() -> None:
    X = blobs(300).astype(np.float64)
    layouts, inputs = [], []
    for error in (0, 1e-8):
        near = (X + error * np.random.default_rng(0).normal(size=X.shape)).astype(np.float32)
        inputs.append(near)
        fuzzy = fuzzy_graph(neighbor_graph(near, 14), 15)
        layouts.append(lay_out(fuzzy, start_from(near, 2), min_dist=0.0, n_epochs=50))
    assert not np.array_equal(*inputs)
    np.testing.assert_array_equal(*layouts)


def test_a_graph_without_edges_leaves_rows_where_they_start() -> None:
    X = blobs(20)
    fuzzy = fuzzy_graph(neighbor_graph(X, 3), 4)
    fuzzy.data[:] = 0
    fuzzy.eliminate_zeros()
    start = start_from(X, 2)
    np.testing.assert_array_equal(layout.optimize_layout(start, fuzzy, a=A, b=B, n_epochs=5), start)


@pytest.mark.parametrize("min_dist", [0.0, 0.1, 0.5, 0.99])
def test_the_similarity_of_points_is_umaps(min_dist: float) -> None:
    assert layout.fit_similarity(min_dist) == pytest.approx(find_ab_params(1.0, min_dist), abs=1e-6)


def test_random_numbers_are_those_of_umaps_generator() -> None:
    ours = layout._generator_states(1, 0)[0]
    theirs = ours.copy()
    for _ in range(100):
        assert layout._draw(ours) & 0x7FFFFFFF == tau_rand_int(theirs) & 0x7FFFFFFF
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("exponent", [B, 0.79, 1.9])
def test_powers_that_are_looked_up_have_seven_digits(exponent: float) -> None:
    base = np.exp(np.random.default_rng(0).uniform(-40, 40, 5_000))
    tables = layout._power_tables(exponent)
    looked_up = [layout._power(x, *tables) for x in base]
    np.testing.assert_allclose(looked_up, base**exponent, rtol=3e-7)
