import numpy as np
import pytest
from sklearn.datasets import make_blobs
from umap.umap_ import fuzzy_simplicial_set

from iv_pipeline.learn.embedding import COARSE, fuzzy_graph, geometric_median, nearness
from iv_pipeline.learn.neighbors import neighbor_graph

pytestmark = pytest.mark.kernels


def test_nearer_neighbors_weigh_more_and_a_point_itself_weighs_all() -> None:
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


def test_a_row_between_two_clusters_is_placed_in_the_one_of_most_neighbors() -> None:
    places = np.array([[[0, 0]] * 9 + [[10, 0]] * 6], np.float32)
    assert geometric_median(places, np.ones((1, 15), np.float32))[0, 0] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("copies", [0, 30])
def test_the_fuzzy_graph_is_umaps(copies: int) -> None:
    X, _ = make_blobs(400, n_features=8, centers=5, random_state=0)
    X[:copies] = X[0]
    graph = neighbor_graph(X.astype(np.float32), 14)
    own = np.arange(len(X), dtype=np.int32)[:, None]
    theirs, _, _ = fuzzy_simplicial_set(
        X,
        15,
        np.random.RandomState(0),
        "euclidean",
        knn_indices=np.hstack([own, graph.indices]),
        knn_dists=np.hstack([np.zeros_like(own, np.float32), graph.distances]),
    )
    ours = fuzzy_graph(graph, 15).toarray()
    np.testing.assert_allclose(ours, theirs.toarray(), atol=COARSE)
    np.testing.assert_array_equal(ours, ours.T)
    assert (ours.diagonal() == 0).all()


def test_rows_in_one_place_are_sure_neighbors() -> None:
    graph = neighbor_graph(np.zeros((6, 2), np.float32), 3)
    assert set(fuzzy_graph(graph, 4).data.tolist()) == {1.0}
