import hdbscan
import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

from iv_pipeline.learn import hierarchy, neighbors
from iv_pipeline.learn.hierarchy import build_hierarchy, extract_dbscan, extract_hdbscan
from iv_pipeline.learn.neighbors import neighbor_graph

pytestmark = pytest.mark.kernels

SHAPES = {
    "blobs": make_blobs(1500, centers=7, n_features=6, cluster_std=np.linspace(0.5, 2, 7), random_state=1)[0],
    "moons": make_moons(1200, noise=0.07, random_state=0)[0],
    "far apart": np.concatenate([make_blobs(300, centers=1, random_state=s)[0] + 1e3 * s for s in range(4)]),
    "with noise": np.vstack(
        [
            make_blobs(1000, centers=5, n_features=4, random_state=3)[0],
            np.random.default_rng(0).uniform(-12, 12, (150, 4)),
        ]
    ),
    "stretched": make_blobs(1200, centers=5, n_features=3, random_state=8)[0]
    @ np.array([[0.6, -0.6, 0.1], [-0.4, 0.8, 0.3], [0.1, 0.2, 1.5]]),
    "few": make_blobs(250, centers=3, n_features=2, cluster_std=0.6, random_state=5)[0],
    "many": make_blobs(6000, centers=12, n_features=10, cluster_std=1.5, random_state=6)[0],
    "unequal": make_blobs([2000, 300, 120, 60], n_features=8, random_state=7)[0],
}


@pytest.mark.parametrize("min_cluster_size", [10, 25, 50])
@pytest.mark.parametrize("shape", SHAPES)
def test_clusters_from_the_graph_agree_with_exact_hdbscan(shape: str, min_cluster_size: int) -> None:
    X = SHAPES[shape].astype(np.float32)
    found, _ = extract_hdbscan(build_hierarchy(X, neighbor_graph(X, 50), 10), min_cluster_size)
    reference = hdbscan.HDBSCAN(min_cluster_size, min_samples=10, approx_min_span_tree=False).fit(
        X.astype(np.float64)
    )
    assert adjusted_rand_score(found.labels, reference.labels_) >= 0.95
    assert np.mean((found.labels == -1) == (reference.labels_ == -1)) >= 0.97


def test_clusters_from_cells_agree_with_exact_hdbscan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "EXACT_ROWS", 1000)
    X = SHAPES["many"].astype(np.float32)
    graph = neighbor_graph(X, 50)
    assert graph.n_probes < graph.n_cells
    found, _ = extract_hdbscan(build_hierarchy(X, graph, 10), 40)
    reference = hdbscan.HDBSCAN(40, min_samples=10, approx_min_span_tree=False).fit(X.astype(np.float64))
    assert adjusted_rand_score(found.labels, reference.labels_) >= 0.95
    assert np.mean((found.labels == -1) == (reference.labels_ == -1)) >= 0.97


def test_glosh_scores_follow_the_reference() -> None:
    X = SHAPES["with noise"].astype(np.float32)
    _, scores = extract_hdbscan(build_hierarchy(X, neighbor_graph(X, 50), 10), 15)
    reference = hdbscan.HDBSCAN(15, min_samples=10, approx_min_span_tree=False).fit(X.astype(np.float64))
    assert np.corrcoef(scores, reference.outlier_scores_)[0, 1] >= 0.98
    assert scores.min() >= 0
    assert scores.max() <= 1


@pytest.mark.parametrize("shape", ["blobs", "moons", "with noise"])
@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_the_cut_of_the_hierarchy_is_dbscan(shape: str, quantile: float) -> None:
    X = SHAPES[shape].astype(np.float32)
    graph = neighbor_graph(X, 50)
    hierarchy = build_hierarchy(X, graph, 10)
    eps = float(np.quantile(hierarchy.core_distances, quantile))
    found = extract_dbscan(hierarchy, graph, eps, 1)
    # scikit-learn counts the point itself among its neighbors
    reference = DBSCAN(eps=eps * (1 + 1e-6), min_samples=11).fit(X.astype(np.float64))
    assert adjusted_rand_score(found.labels, reference.labels_) >= 0.98
    assert set(np.unique(found.labels)) - {-1} == set(range(found.labels.max() + 1))


def test_duplicates_and_disconnected_parts_still_make_one_tree() -> None:
    X = np.repeat(np.array([[0, 0], [100, 0], [0, 100]], np.float32), 20, axis=0)
    hierarchy = build_hierarchy(X, neighbor_graph(X, 5), 5)
    assert hierarchy.linkage.shape == (59, 4)
    assert hierarchy.linkage[-1, 3] == 60
    assert sorted(hierarchy.linkage[-2:, 2]) == [100, 100]


@pytest.mark.parametrize("at_once", [1, 7, 50])
def test_a_forest_of_some_neighbors_at_a_time_is_as_short_as_that_of_all(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = SHAPES["unequal"].astype(np.float32)
    graph = neighbor_graph(X, 50)
    whole = build_hierarchy(X, graph, 10)
    monkeypatch.setattr(hierarchy, "NEIGHBORS_AT_ONCE", at_once)
    np.testing.assert_array_equal(build_hierarchy(X, graph, 10).linkage[:, 2], whole.linkage[:, 2])
