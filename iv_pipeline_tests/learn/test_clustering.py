import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn import cluster, datasets
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as ReferenceMixture

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.clustering import ALGORITHMS, Space, base, fit_clusters, kmeans, mixture
from iv_pipeline.learn.clustering.base import PrototypeModel
from iv_pipeline.learn.clustering.kmeans import lloyd
from iv_pipeline.learn.clustering.leiden import divide, prototype_graph

pytestmark = pytest.mark.kernels


def blobs(n_rows: int = 1200, centers: int = 6) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(n_rows, centers=centers, n_features=5, cluster_std=0.6, random_state=2)
    return X.astype(np.float32), y


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_finds_clear_clusters_among_all_rows(name: str) -> None:
    X, y = blobs()
    space = Space(X)
    scores = []
    for parameters in ALGORITHMS[name].grid(6):
        clustering = ALGORITHMS[name].fit(space, parameters)
        assert clustering.labels.shape == clustering.confidence.shape == (len(X),)
        assert set(np.unique(clustering.labels)) - {-1} == set(range(clustering.n_clusters))
        assert clustering.confidence.min() >= 0
        assert clustering.confidence.max() <= 1
        assert not clustering.confidence[clustering.labels == -1].any()
        scores.append(adjusted_rand_score(y, clustering.labels))
    assert max(scores) > 0.9


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_seed_gives_the_same_labels(name: str) -> None:
    X, _ = blobs()
    parameters = ALGORITHMS[name].grid(6)[0]
    first, second = (ALGORITHMS[name].fit(Space(X, seed=5), parameters) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.confidence, second.confidence)


@pytest.mark.parametrize("name", ["kmeans", "minibatchkmeans", "gaussianmixture", "agglomerative", "leiden"])
def test_a_model_assigns_the_rows_of_its_fit_as_the_fit_did(name: str) -> None:
    X, _ = blobs()
    clustering = ALGORITHMS[name].fit(Space(X), ALGORITHMS[name].grid(6)[0])
    assert clustering.model is not None
    labels, confidence = clustering.model.predict(X)
    np.testing.assert_array_equal(labels, clustering.labels)
    np.testing.assert_array_equal(confidence, clustering.confidence)


def test_kmeans_is_scikit_learns() -> None:
    X, _ = blobs()
    reference = cluster.KMeans(6, n_init=4, random_state=0).fit_predict(X)
    found = ALGORITHMS["kmeans"].fit(Space(X), {"n_clusters": 6}).labels
    assert adjusted_rand_score(reference, found) > 0.999


def test_kmeans_in_batches_ends_where_scikit_learn_does_from_the_same_start() -> None:
    X, _ = make_blobs(5000, centers=15, n_features=6, cluster_std=2.5, random_state=4)
    X = X.astype(np.float32)
    start = X[:15]
    reference = cluster.KMeans(15, init=start, n_init=1, max_iter=100).fit(X)
    found = lloyd(ArrayBatches(X, 700), start)
    assert adjusted_rand_score(reference.labels_, PrototypeModel(found, np.arange(15)).predict(X)[0]) > 0.99
    np.testing.assert_array_equal(found, lloyd(ArrayBatches(X, 700), start))


def test_kmeans_of_many_rows_is_fitted_on_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = blobs(4000)
    whole = ALGORITHMS["kmeans"].fit(Space(X), {"n_clusters": 6})
    monkeypatch.setattr(kmeans, "SAMPLE_ROWS", 500)
    batched = ALGORITHMS["kmeans"].fit(Space(X), {"n_clusters": 6})
    assert adjusted_rand_score(whole.labels, batched.labels) > 0.999
    inertia = [np.sqrt(np.square(X - c.model.prototypes[c.labels]).sum()) for c in (whole, batched)]
    assert inertia[1] == pytest.approx(inertia[0], rel=1e-3)


def test_mixture_posteriors_are_scikit_learns() -> None:
    X, _ = blobs(400, 3)
    fitted = ALGORITHMS["gaussianmixture"].fit(Space(X), {"n_components": 3})
    floor = 1e-3 * float(X.var(axis=0, dtype=np.float64).mean())
    reference = ReferenceMixture(3, covariance_type="diag", reg_covar=floor, max_iter=50, random_state=0).fit(
        X
    )
    np.testing.assert_allclose(fitted.confidence, reference.predict_proba(X).max(axis=1), atol=1e-4)


def test_a_mixture_fitted_in_batches_is_the_one_fitted_at_once() -> None:
    X, _ = blobs(3000)
    start = PrototypeModel(X[:6], np.arange(6, dtype=np.int32))
    whole, batched = (mixture.fit_mixture(ArrayBatches(X, rows), start, 1e-3) for rows in (3000, 170))
    np.testing.assert_allclose(batched.means, whole.means, rtol=1e-9)
    np.testing.assert_allclose(batched.variances, whole.variances, rtol=1e-9)


def test_a_mixture_of_many_rows_is_fitted_on_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = blobs(4000)
    whole = ALGORITHMS["gaussianmixture"].fit(Space(X), {"n_components": 6})
    monkeypatch.setattr(kmeans, "SAMPLE_ROWS", 300)
    sampled = ALGORITHMS["gaussianmixture"].fit(Space(X), {"n_components": 6})
    assert adjusted_rand_score(whole.labels, sampled.labels) > 0.999
    assert np.exp(sampled.model.log_weights).sum() == pytest.approx(1)


def test_agglomerative_of_few_rows_is_scikit_learns() -> None:
    X, _ = blobs(500)
    reference = AgglomerativeClustering(9).fit_predict(X.astype(np.float64))
    found = ALGORITHMS["agglomerative"].fit(Space(X), {"n_clusters": 9}).labels
    assert adjusted_rand_score(reference, found) == 1


def test_agglomerative_on_prototypes_comes_close_to_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = blobs(3000, 12)
    reference = AgglomerativeClustering(12).fit_predict(X.astype(np.float64))
    monkeypatch.setattr(base, "N_PROTOTYPES", 300)
    found = ALGORITHMS["agglomerative"].fit(Space(X), {"n_clusters": 12})
    assert found.parameters["n_prototypes"] <= 300
    assert adjusted_rand_score(reference, found.labels) > 0.95


@pytest.mark.parametrize("n_clusters", [2, 7, 40])
def test_leiden_finds_just_as_many_communities_as_are_asked_for(n_clusters: int) -> None:
    X, _ = blobs(2500, 12)
    found = ALGORITHMS["leiden"].fit(Space(X), {"n_clusters": n_clusters})
    assert len(np.unique(found.labels)) == found.n_clusters == n_clusters


def test_rows_in_one_place_do_not_cost_leiden_a_community() -> None:
    X, _ = blobs(400, 12)
    found = ALGORITHMS["leiden"].fit(Space(np.vstack([X, X[:150], X[:50]])), {"n_clusters": 20})
    assert found.n_clusters == len(np.unique(found.labels)) == 20
    np.testing.assert_array_equal(found.labels[400:550], found.labels[:150])


def test_leiden_follows_neighbors_where_k_means_cuts_through() -> None:
    X, truth = datasets.make_moons(1500, noise=0.06, random_state=0)
    X = X.astype(np.float32)
    assert adjusted_rand_score(truth, ALGORITHMS["leiden"].fit(Space(X), {"n_clusters": 2}).labels) > 0.9
    assert adjusted_rand_score(truth, ALGORITHMS["kmeans"].fit(Space(X), {"n_clusters": 2}).labels) < 0.5


def test_leiden_on_prototypes_comes_close_to_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    X, truth = blobs(3000, 12)
    monkeypatch.setattr(base, "N_PROTOTYPES", 300)
    found = ALGORITHMS["leiden"].fit(Space(X), {"n_clusters": 12})
    assert found.parameters["n_prototypes"] <= 300
    assert adjusted_rand_score(truth, found.labels) > 0.95


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 99))
def test_any_graph_is_divided_into_as_many_parts_as_asked_for(
    n_parts: int, n_clusters: int, seed: int
) -> None:
    """Also one of several parts that nothing ties, or of nodes that are tied to nothing."""
    rng = np.random.default_rng(seed)
    part = rng.integers(n_parts, size=30)
    ties = rng.integers(0, 4, (30, 30)) * (part[:, None] == part) * (rng.random((30, 30)) < 0.3)
    points = rng.normal(size=(30, 2)).astype(np.float32)
    graph = csr_matrix((ties + ties.T).astype(float))
    labels, _ = divide(graph, points, n_clusters, seed)
    np.testing.assert_array_equal(divide(graph, points, n_clusters, seed)[0], labels)
    np.testing.assert_array_equal(np.unique(labels), np.arange(n_clusters))


def test_communities_that_nothing_ties_are_joined_with_the_closest() -> None:
    points = np.array([0, 1, 10, 11, 14, 15], np.float32)[:, None]
    graph = csr_matrix(np.kron(np.eye(3), [[0, 1], [1, 0]]))
    labels, _ = divide(graph, points, 2)
    assert adjusted_rand_score(labels, [0, 0, 1, 1, 1, 1]) == 1


def test_ties_between_prototypes_are_symmetric_and_count_neighbors_both_ways() -> None:
    X = np.array([0, 1, 3, 103], np.float32)[:, None]
    graph = prototype_graph(Space(X, n_neighbors=1), np.arange(4)).toarray()
    np.testing.assert_array_equal(graph, [[0, 2, 0, 0], [2, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]])


@pytest.mark.parametrize("name", ["kmeans", "minibatchkmeans", "gaussianmixture", "agglomerative", "leiden"])
def test_a_fit_that_starts_from_an_earlier_one_keeps_its_clusters(name: str) -> None:
    X = np.random.default_rng(0).uniform(size=(3000, 4)).astype(np.float32)  # no clusters: any twelve will do
    (parameters,) = ALGORITHMS[name].grid(12)
    earlier = ALGORITHMS[name].fit(Space(X, seed=1), parameters).labels
    kept = np.random.default_rng(2).random(len(X)) < 0.9

    def agreement(previous: np.ndarray | None) -> float:
        found = ALGORITHMS[name].fit(Space(X[kept], seed=3, previous=previous), parameters).labels
        return float(adjusted_rand_score(found, earlier[kept]))

    assert agreement(earlier[kept]) > 0.75
    assert agreement(None) < agreement(earlier[kept])


def test_clusters_start_from_earlier_ones_only_if_these_are_as_many() -> None:
    X = np.arange(12, dtype=np.float32)[:, None]
    space = Space(X, previous=np.repeat([7, 2, -1], 4).astype(np.int32))
    start = space.start(2)
    assert start is not None
    assert start.tolist() == [[5.5], [1.5]]
    assert space.start(3) is None
    assert Space(X).start(2) is None


def test_repeated_rows_leave_as_many_prototypes_as_there_are_places() -> None:
    places = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    X = np.concatenate([places, np.repeat(places[:1], 4000, axis=0)])
    prototypes, counts = Space(X).prototypes
    assert len(prototypes) >= 400
    assert counts.sum() == len(X)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("n_distinct", [3, 5])
def test_few_distinct_rows_get_a_cluster_each_and_equal_rows_the_same(name: str, n_distinct: int) -> None:
    kinds = np.random.default_rng(0).normal(0, 4, (n_distinct, 8)).astype(np.float32)
    X = kinds[np.arange(240) % n_distinct]
    for parameters in ALGORITHMS[name].grid(10):
        clustering = fit_clusters(ALGORITHMS[name], Space(X), parameters)
        assert np.isfinite(clustering.confidence).all()
        labels = clustering.labels.reshape(-1, n_distinct)
        assert (labels == labels[0]).all()
        assert sorted(labels[0]) == list(range(n_distinct))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_equal_rows_among_others_get_one_cluster(name: str) -> None:
    X, _ = blobs(600)
    repeated = np.concatenate([X, np.repeat(X[:5], 71, axis=0)])
    for parameters in ALGORITHMS[name].grid(10):
        labels = fit_clusters(ALGORITHMS[name], Space(repeated), parameters).labels
        assert (labels[len(X) :].reshape(5, 71) == labels[:5, None]).all()


def test_no_more_clusters_than_rows_are_made() -> None:
    X, _ = blobs(20)
    assert fit_clusters(ALGORITHMS["kmeans"], Space(X), {"n_clusters": 50}).n_clusters == 20


def test_confidence_is_the_simplified_silhouette() -> None:
    model = PrototypeModel(np.array([[0.0], [1.0], [5.0]], np.float32), np.array([0, 0, 1], np.int32))
    labels, confidence = model.predict(np.array([[2.0], [5.0], [3.0]], np.float32))
    assert labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(confidence, [1 - 1 / 3, 1, 0], atol=1e-6)


def test_a_single_cluster_is_certain() -> None:
    model = PrototypeModel(np.zeros((1, 2), np.float32), np.zeros(1, np.int32))
    labels, confidence = model.predict(np.ones((3, 2), np.float32))
    assert labels.tolist() == [0, 0, 0]
    assert np.isfinite(confidence).all()
