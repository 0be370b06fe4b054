import numpy as np
import pytest

from iv_pipeline.learn.embedding import geometric_median, nearness


def test_nearer_neighbours_weigh_more_and_a_point_itself_weighs_all() -> None:
    weight = nearness(np.array([[1, 2, 4], [0, 1, 1], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(weight[0], np.array([16, 4, 1]) / 21, rtol=1e-6)
    np.testing.assert_allclose(weight[1], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(weight.sum(axis=1), 1, rtol=1e-6)


def test_the_geometric_median_is_where_distances_add_up_to_least() -> None:
    rng = np.random.default_rng(0)
    points, weight = (
        rng.normal(size=(20, 7, 3)).astype(np.float32),
        rng.uniform(0.1, 1, (20, 7)).astype(np.float32),
    )
    found = geometric_median(points, weight)

    def cost(place: np.ndarray) -> np.ndarray:
        return np.asarray((weight * np.linalg.norm(points - place[:, None], axis=2)).sum(axis=1))

    for _ in range(20):
        assert (cost(found) <= cost(found + rng.normal(scale=0.05, size=found.shape)) + 1e-4).all()


def test_a_row_between_two_clusters_is_placed_in_the_one_of_most_neighbours() -> None:
    places = np.array([[[0, 0]] * 9 + [[10, 0]] * 6], np.float32)
    assert geometric_median(places, np.ones((1, 15), np.float32))[0, 0] == pytest.approx(0, abs=0.01)
