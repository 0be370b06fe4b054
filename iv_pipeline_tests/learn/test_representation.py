import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.representation import (
    RECIPES,
    Embedder,
    Interpolation,
    Placement,
    embed_parts,
    fit_block_maps,
    leading_columns,
    pack_fit,
    represent,
    unpack_fit,
    weights,
)
from iv_pipeline.learn.statistics import compute_statistics

pytestmark = pytest.mark.kernels

EMBEDDER = Embedder(n_components=3, n_epochs=100)


def two_blocks(n_rows: int = 600, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Kinds of rows, and two descriptors of them, each with noise of its own and in units of its own."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(4, size=n_rows)
    blocks = [rng.normal(size=(4, 6))[kind] * 2 + rng.normal(size=(n_rows, 6)) for _ in range(2)]
    return kind, [blocks[0].astype(np.float32), (100 * blocks[1] + 7).astype(np.float32)]


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20), st.booleans())
def test_components_have_unit_variance_when_whitened_and_together_otherwise(
    variance: list[float], whiten: bool
) -> None:
    weighted = np.array(variance) * weights(np.array(variance), whiten) ** 2
    if whiten:
        kept = np.array(variance) > 1e-6 * max(variance)
        np.testing.assert_allclose(weighted, kept.astype(float))
    else:
        assert weighted.sum() == pytest.approx(1)


def test_constant_components_stay_constant() -> None:
    assert weights(np.zeros(3), True).tolist() == [0, 0, 0]
    assert np.isfinite(weights(np.zeros(3), False)).all()


def test_leading_columns_take_turns_over_the_blocks() -> None:
    assert leading_columns([3, 1, 2], 4) == [0, 3, 4, 1]
    assert leading_columns([2], 10) == [0, 1]


@pytest.mark.parametrize("name", ["pca", "whitened", "normalized"])
def test_the_map_of_all_rows_is_the_representation_of_the_sample(name: str) -> None:
    _, blocks = two_blocks()
    raw = np.hstack(blocks)
    statistics = compute_statistics(ArrayBatches(raw))
    reduction, widths = fit_block_maps(statistics, [6, 6], RECIPES[name], 1.0, 6)
    components = [
        fit_block_maps(statistics.select(columns), [6], RECIPES["pca"], 1.0, 6)[0].reduce(
            ArrayBatches(np.ascontiguousarray(raw[:, columns]))
        )
        for columns in (slice(0, 6), slice(6, 12))
    ]
    sampled = represent(components, RECIPES[name], EMBEDDER)
    assert widths == [6, 6]
    np.testing.assert_allclose(reduction.reduce(ArrayBatches(raw)), sampled, atol=1e-4)
    if name == "whitened":
        np.testing.assert_allclose(sampled.var(axis=0), 1, rtol=1e-3)
    if name == "normalized":
        for block in (sampled[:, :6], sampled[:, 6:]):
            np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, rtol=1e-5)


def test_fused_graphs_show_more_than_each_block_alone() -> None:
    kind, blocks = two_blocks()

    def found(of: list[np.ndarray], name: str) -> float:
        X = represent(of, RECIPES[name], EMBEDDER)
        assert X.shape == (len(kind), 3)
        return float(adjusted_rand_score(kind, KMeans(4, n_init=4, random_state=0).fit_predict(X)))

    alone = [found([block], "umap") for block in blocks]
    assert max(alone) < found(blocks, "fusion")
    assert found(blocks, "fusion") > 0.9


def test_equal_rows_are_embedded_in_one_place() -> None:
    _, blocks = two_blocks()
    repeated = [np.concatenate([block, np.repeat(block[:3], 71, axis=0)]) for block in blocks]
    vectors = represent(repeated, RECIPES["fusion"], Embedder(n_components=2, n_epochs=10))
    assert (vectors[len(blocks[0]) :].reshape(3, 71, 2) == vectors[:3, None]).all()


@pytest.mark.parametrize("n_distinct", [2, 3, 5])
def test_few_distinct_rows_are_embedded_apart(n_distinct: int) -> None:
    rows = np.arange(60) % n_distinct
    vectors = represent(
        [np.eye(n_distinct, 4, dtype=np.float32)[rows]], RECIPES["umap"], Embedder(n_epochs=10)
    )
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == n_distinct


def test_one_seed_makes_one_embedding() -> None:
    _, blocks = two_blocks(300)
    first, second = (represent(blocks, RECIPES["fusion"], EMBEDDER) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["whitened_umap", "fusion"])
def test_rows_of_the_fit_are_placed_where_the_fit_put_them_and_others_between_them(name: str) -> None:
    kind, blocks = two_blocks(900)
    raw = np.hstack(blocks)
    recipe = RECIPES[name]
    known, new = raw[:600], raw[600:]
    reduction, widths = fit_block_maps(compute_statistics(ArrayBatches(known)), [6, 6], recipe, 1.0, 6)
    parts = recipe.parts(widths)
    source = reduction.reduce(ArrayBatches(known))
    embedding = embed_parts(source, widths, parts, EMBEDDER)
    placement = Placement(reduction, Interpolation(parts, source, embedding))
    np.testing.assert_allclose(placement.place(source), embedding, atol=1e-3)
    model = KMeans(4, n_init=4, random_state=0).fit(embedding)
    assert (
        adjusted_rand_score(kind[600:], model.predict(placement.place(placement.reduce(ArrayBatches(new)))))
        > 0.9
    )


def test_rows_that_cannot_be_used_are_not_finite_and_no_rows_have_no_place() -> None:
    _, blocks = two_blocks(300)
    raw = np.hstack(blocks)
    reduction, widths = fit_block_maps(
        compute_statistics(ArrayBatches(raw)), [6, 6], RECIPES["fusion"], 1.0, 6
    )
    source = reduction.reduce(ArrayBatches(raw))
    placement = Placement(reduction, Interpolation(RECIPES["fusion"].parts(widths), source, source[:, :3]))
    raw[5, 2] = np.nan
    reduced = placement.reduce(ArrayBatches(raw))
    assert np.flatnonzero(np.isnan(reduced).any(axis=1)).tolist() == [5]
    assert placement.place(reduced[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", ["whitened", "fusion", "normalized_fusion"])
def test_what_makes_a_representation_survives_storage(name: str) -> None:
    _, blocks = two_blocks(300)
    recipe = RECIPES[name]
    statistics = compute_statistics(ArrayBatches(np.hstack(blocks)))
    reduction, widths = fit_block_maps(statistics, [6, 6], recipe, 0.9, 6)
    restored, parts = unpack_fit(pack_fit(reduction, recipe.parts(widths)))
    assert parts == recipe.parts(widths)
    assert restored.unit_blocks == reduction.unit_blocks
    for field, value in vars(reduction.pca).items():
        np.testing.assert_array_equal(getattr(restored.pca, field), value)


def test_fusion_adds_the_graph_of_each_block_to_the_one_of_all() -> None:
    whole, first, second = slice(0, 5), slice(0, 2), slice(2, 5)
    assert RECIPES["normalized_fusion"].parts([2, 3]) == [whole, first, second]
    assert RECIPES["normalized_umap"].parts([2, 3]) == [whole]
    assert RECIPES["fusion"].parts([5]) == [whole]
    assert RECIPES["normalized"].parts([2, 3]) == []


def test_rows_without_length_are_not_divided() -> None:
    _, blocks = two_blocks(50)
    blocks[0][:] = 1
    assert np.isfinite(represent(blocks, RECIPES["normalized"], EMBEDDER)).all()
