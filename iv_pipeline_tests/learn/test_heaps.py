import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iv_pipeline.learn import heaps

pytestmark = pytest.mark.kernels


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 40))
def test_heaps_hold_the_nearest_of_all_points_that_were_pushed(seed: int, k: int, n_points: int) -> None:
    squared = np.random.default_rng(seed).integers(0, 30, (3, n_points)).astype(np.float32)
    distances, positions = np.full((5, k), np.inf, np.float32), np.zeros((5, k), np.int64)
    queries = np.array([4, 0, 2])
    half = n_points // 2
    heaps.push_nearer(squared[:, :half], queries, 0, distances, positions)
    heaps.push_nearer(squared[:, half:], queries, half, distances, positions)
    nearest = np.sort(np.pad(squared, ((0, 0), (0, k)), constant_values=np.inf), axis=1)[:, :k]
    np.testing.assert_array_equal(np.sort(distances[queries], axis=1), nearest)
    for row, query in enumerate(queries):
        known = np.isfinite(distances[query])
        np.testing.assert_array_equal(squared[row, positions[query, known]], distances[query, known])
    assert np.isinf(distances[[1, 3]]).all()


def test_compiled_and_interpreted_heaps_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    squared = np.random.default_rng(0).normal(size=(4, 60)).astype(np.float32)
    made = []
    for name in (None, "_replace_first", "push_nearer"):
        if name is not None:
            monkeypatch.setattr(heaps, name, getattr(heaps, name).py_func)
        heap = np.full((4, 7), np.inf, np.float32), np.zeros((4, 7), np.int64)
        heaps.push_nearer(squared, np.arange(4), 10, *heap)
        made.append(heap)
    for distances, positions in made[1:]:
        np.testing.assert_array_equal(distances, made[0][0])
        np.testing.assert_array_equal(positions, made[0][1])
