import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs

from iv_pipeline.learn.attribute_classifier import AttributeClassifier
from iv_pipeline.learn.attributes import MEMBER_WEIGHT


def noisy_answers(n_answers: int, seed: int) -> tuple[np.ndarray, ...]:
    """Rows of overlapping classes, and sheets of nine that each give the class of their majority."""
    X, y = make_blobs(3_000, centers=5, n_features=12, cluster_std=4.0, random_state=seed)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    shown = np.concatenate(
        [rng.choice(np.flatnonzero(y == i % 5), 9, replace=False) for i in range(n_answers)]
    )
    return X, y, shown, np.repeat(np.arange(n_answers), 9)


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_match_the_share_that_is_right(seed: int) -> None:
    X, y, shown, groups = noisy_answers(40, seed)
    model = AttributeClassifier().fit(X[shown], y[shown], groups=groups)
    p = model.predict_proba(X).max(axis=1)
    right = model.predict(X) == y
    bins = np.clip((p * 10).astype(int), 0, 9)
    gaps = [abs(right[bins == b].mean() - p[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert right.mean() > 0.7
    assert sum(gaps) < 0.06


@given(n_classes=st.integers(1, 4), n_rows=st.integers(1, 30), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_probabilities_are_a_distribution_over_the_values_seen(
    n_classes: int, n_rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n_rows, 3)), rng.integers(0, n_classes, n_rows).astype(str)
    model = AttributeClassifier().fit(X, y, rng.random(n_rows) + 0.1, rng.integers(0, 8, n_rows))
    p = model.predict_proba(X)
    assert model.classes_.tolist() == sorted(set(y.tolist()))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (model.predict(X) == model.classes_[p.argmax(axis=1)]).all()


def test_a_fit_keeps_the_images_that_were_looked_at_and_can_be_repeated() -> None:
    X, y, shown, groups = noisy_answers(10, 0)
    everything = np.concatenate([shown, np.arange(3_000)])
    weights = np.repeat([1.0, MEMBER_WEIGHT], [len(shown), 3_000])
    answers = np.concatenate([groups, y])
    labels = np.concatenate([y[shown], (y + 1) % 5])  # the members' labels are all wrong
    capped = AttributeClassifier(max_rows=len(shown)).fit(X[everything], labels, weights, answers)
    alone = AttributeClassifier().fit(X[shown], y[shown], groups=groups)
    np.testing.assert_allclose(capped.coef_, alone.coef_)
    again = AttributeClassifier(max_rows=len(shown)).fit(X[everything], labels, weights, answers)
    np.testing.assert_array_equal(capped.coef_, again.coef_)


def test_nothing_can_be_learned_without_labels() -> None:
    with pytest.raises(ValueError, match="y is empty"):
        AttributeClassifier().fit(np.empty((0, 3)), np.empty(0))
