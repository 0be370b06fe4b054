import numpy as np
import pytest
from sklearn import decomposition
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.errors import InputError
from iv_pipeline.learn.pca import PCA, Projection, fit_pca
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import compute_statistics

pytestmark = pytest.mark.kernels

REFERENCE = {"standard": StandardScaler, "minmax": MinMaxScaler, "robust": RobustScaler}


def correlated(n_rows: int = 600, n_features: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spectrum = np.exp(-np.arange(n_features) / 6)
    X = rng.normal(size=(n_rows, n_features)) * spectrum @ rng.normal(size=(n_features, n_features))
    return (np.maximum(X, -1) * rng.uniform(0.5, 20, n_features) + 30).astype(np.float32)


@pytest.mark.parametrize("kind", REFERENCE)
def test_pca_of_each_scaler_matches_scikit_learn(kind: str) -> None:
    X = correlated()
    scaled = REFERENCE[kind]().fit_transform(X.astype(np.float64))
    reference = decomposition.PCA(0.9, svd_solver="full").fit(scaled)
    statistics = compute_statistics(ArrayBatches(X, 100))
    found = fit_pca(statistics, fit_scaler(kind, statistics), 0.9, 200)
    assert found.n_components == reference.n_components_
    np.testing.assert_allclose(
        found.explained_variance_ratio, reference.explained_variance_ratio_, rtol=1e-4, atol=1e-8
    )
    expected = reference.transform(scaled)
    signs = np.sign((expected * found.transform(X)).sum(axis=0))
    error = np.abs(found.transform(X) * signs - expected).max() / np.abs(expected).max()
    assert error <= 1e-4


def test_several_maps_at_once_equal_each_alone() -> None:
    X = correlated()
    statistics = compute_statistics(ArrayBatches(X))
    maps = [fit_pca(statistics, fit_scaler(kind, statistics), 0.8, 10) for kind in REFERENCE]
    for together, one in zip(Projection(maps)(X), maps, strict=True):
        np.testing.assert_allclose(together, one.transform(X), atol=1e-4)


def test_components_are_never_more_than_allowed() -> None:
    statistics = compute_statistics(ArrayBatches(correlated()))
    found = fit_pca(statistics, fit_scaler("standard", statistics), 1.0, 5)
    assert found.n_components == 5
    assert found.explained_variance_ratio.sum() < 1


def test_unusable_rows_stay_unusable() -> None:
    X = correlated()
    X[3, 4], X[5, 0] = np.nan, np.inf
    statistics = compute_statistics(ArrayBatches(X))
    reduced = fit_pca(statistics, fit_scaler("robust", statistics), 0.9, 200).transform(X)
    assert not np.isfinite(reduced[[3, 5]]).all(axis=1).any()
    assert np.isfinite(np.delete(reduced, [3, 5], axis=0)).all()


def test_constant_features_take_no_part() -> None:
    X = correlated()
    X[:, 7] = 1
    statistics = compute_statistics(ArrayBatches(X))
    found = fit_pca(statistics, fit_scaler("standard", statistics), 0.99, 200)
    assert np.abs(found.components[:, 7]).max() < 1e-9


def test_a_descriptor_of_constants_is_refused() -> None:
    statistics = compute_statistics(ArrayBatches(np.ones((20, 3), np.float32)))
    with pytest.raises(InputError, match="every feature is constant"):
        fit_pca(statistics, fit_scaler("standard", statistics), 0.9, 200)


def test_maps_survive_storage() -> None:
    X = correlated()
    statistics = compute_statistics(ArrayBatches(X))
    fitted = fit_pca(statistics, fit_scaler("minmax", statistics), 0.9, 200)
    np.testing.assert_array_equal(PCA.from_arrays(fitted.to_arrays()).transform(X), fitted.transform(X))
