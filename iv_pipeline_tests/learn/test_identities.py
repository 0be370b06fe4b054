import numpy as np
import pytest

from iv_pipeline.learn.identities import Closeness, Comparisons, measure_closeness, plan_comparisons

PHOTOS = 4


def photos(
    n_folders: int, *, of_vehicle: float, of_hour: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, folder and batch of photos; every ten folders share an hour, which all of their photos show."""
    rng = np.random.default_rng(0)
    folders = np.repeat(np.arange(n_folders), PHOTOS)
    batches = folders // 10
    X = rng.normal(size=(len(folders), 16))
    X += of_vehicle * rng.normal(size=(n_folders, 16))[folders]
    X += of_hour * rng.normal(size=(n_folders, 16))[batches]
    return X.astype(np.float32), folders, batches


def closeness(X: np.ndarray, folders: np.ndarray, batches: np.ndarray) -> Closeness:
    comparisons = plan_comparisons(folders, batches, 0)
    assert comparisons is not None
    return measure_closeness(X[comparisons.rows], comparisons)


@pytest.mark.parametrize("n_folders", [20, 100, 1000])
def test_folders_of_one_vehicle_each_are_identities(n_folders: int) -> None:
    assert closeness(*photos(n_folders, of_vehicle=1)).is_identity


@pytest.mark.parametrize("n_folders", [20, 100, 1000])
def test_folders_of_any_vehicles_are_none(n_folders: int) -> None:
    found = closeness(*photos(n_folders, of_vehicle=0))
    assert not found.is_identity
    assert abs(found.share - 0.5) < 4 * found.error


def test_photos_of_the_same_hour_are_no_reason() -> None:
    assert not closeness(*photos(200, of_vehicle=0, of_hour=3)).is_identity
    assert closeness(*photos(200, of_vehicle=1, of_hour=3)).is_identity


def test_features_of_any_size_and_rows_that_cannot_be_used_change_nothing() -> None:
    X, folders, batches = photos(100, of_vehicle=1)
    scaled = X * np.logspace(-6, 6, X.shape[1])
    scaled[5], scaled[77, 0] = np.nan, np.inf
    assert closeness(scaled, folders, batches).share == pytest.approx(
        closeness(X, folders, batches).share, abs=0.02
    )
    assert not closeness(np.full_like(X, np.nan), folders, batches).is_identity
    assert closeness(np.ones_like(X), folders, batches).share == 0.5


@pytest.mark.parametrize(
    ("folders", "batches"),
    [
        (np.full(100, -1), np.full(100, -1)),
        (np.zeros(100, int), np.zeros(100, int)),
        (np.arange(100), np.zeros(100, int)),  # one photo each
        (np.repeat(np.arange(12), 60), np.zeros(720, int)),  # a camera or a day each
        (np.repeat(np.arange(9), 4), np.zeros(36, int)),  # too few
        (np.repeat(np.arange(25), 4), np.repeat(np.arange(25), 4)),  # nothing to compare with
        (np.empty(0, int), np.empty(0, int)),
    ],
)
def test_folders_that_cannot_be_vehicles_are_not_compared(folders: np.ndarray, batches: np.ndarray) -> None:
    assert plan_comparisons(folders, batches, 0) is None


def test_the_comparisons_are_few_and_the_same_each_time() -> None:
    folders = np.repeat(np.arange(50_000), 8)
    first, again = (plan_comparisons(folders, folders // 100, 0) for _ in range(2))
    assert isinstance(first, Comparisons)
    assert isinstance(again, Comparisons)
    assert len(first.rows) <= 4000
    np.testing.assert_array_equal(first.rows, again.rows)
    assert (np.diff(first.rows) > 0).all()
