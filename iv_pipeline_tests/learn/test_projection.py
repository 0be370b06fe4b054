import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.manifold import trustworthiness

from iv_pipeline.learn import projection
from iv_pipeline.learn.neighbors import neighbor_graph
from iv_pipeline.learn.projection import umap_layouts


def test_maps_keep_neighbours_together_and_repeat_with_their_seed() -> None:
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
    monkeypatch.setattr(projection, "PARALLEL_ROWS", 100)
    for one, other in zip(alone, umap_layouts(X, graph, n_epochs=20), strict=True):
        np.testing.assert_array_equal(one, other)
