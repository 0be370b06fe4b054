from __future__ import annotations

import numpy as np
import pytest

from iv_pipeline.engine import ArrayBatches
from iv_pipeline.learn.joint_features import JointFeatures, embed_rows, fit_joint_features
from iv_pipeline.learn.representation import Embedder


@pytest.fixture
def blocks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    group = rng.integers(3, size=300)
    return {
        name: (rng.normal(size=(3, n))[group] * 3 + rng.normal(size=(300, n))).astype(np.float32) * scale
        for name, n, scale in (("small", 6, 1e-3), ("large", 20, 1e3))
    }


def matrices(blocks: dict[str, np.ndarray]) -> dict[str, ArrayBatches]:
    return {name: ArrayBatches(X) for name, X in blocks.items()}


def test_every_descriptor_has_the_same_say(blocks: dict[str, np.ndarray]) -> None:
    fitted = fit_joint_features(matrices(blocks))
    X = fitted.transform(matrices(blocks))
    for block in np.split(X, np.cumsum(fitted.widths)[:-1], axis=1):
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, rtol=1e-5)


def test_a_row_that_one_descriptor_lacks_is_told_by_the_others(blocks: dict[str, np.ndarray]) -> None:
    blocks["small"][:2] = np.nan
    blocks["large"][1] = np.inf
    fitted = fit_joint_features(matrices(blocks))
    X = fitted.transform(matrices(blocks))
    assert (X[0, : fitted.widths[0]] == 0).all()
    assert np.linalg.norm(X[0]) == pytest.approx(1)
    assert np.isnan(X[1]).all()
    assert np.isfinite(X[2:]).all()


def test_a_descriptor_that_did_not_come_says_nothing(blocks: dict[str, np.ndarray]) -> None:
    fitted = fit_joint_features(matrices(blocks))
    X = fitted.transform({"large": ArrayBatches(blocks["large"])})
    assert (X[:, : fitted.widths[0]] == 0).all()
    np.testing.assert_array_equal(
        X[:, fitted.widths[0] :], fitted.transform(matrices(blocks))[:, fitted.widths[0] :]
    )


def test_stored_joint_features_are_the_same(blocks: dict[str, np.ndarray]) -> None:
    fitted = fit_joint_features(matrices(blocks))
    stored = JointFeatures.from_arrays(fitted.to_arrays())
    assert list(stored.reductions) == ["small", "large"]
    np.testing.assert_array_equal(stored.transform(matrices(blocks)), fitted.transform(matrices(blocks)))


def test_rows_that_are_not_laid_out_are_placed_between_the_others(blocks: dict[str, np.ndarray]) -> None:
    fitted = fit_joint_features(matrices(blocks))
    X = fitted.transform(matrices(blocks))
    X[7] = np.nan
    embedding = embed_rows(X, fitted.widths, Embedder(2, 10, n_epochs=20), landmarks=200)
    assert np.isnan(embedding[7]).all()
    others = np.delete(np.arange(300), 7)
    assert np.isfinite(embedding[others]).all()
    near = [np.argsort(np.square(embedding[others] - embedding[i]).sum(axis=1))[1] for i in others[:50]]
    far = [np.square(X[others[j]] - X[i]).sum() for i, j in zip(others[:50], near, strict=True)]
    assert np.mean(far) < np.square(X[others][:, None] - X[others]).sum(axis=2).mean() / 2
