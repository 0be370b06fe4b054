"""Which images of a batch are known: by path, by picture, by vectors."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from iv_pipeline.engine import row_hashes
from iv_pipeline.storage.fit_set import FitVectors, rows_of
from iv_pipeline.storage.known import Images, duplicates
from iv_pipeline.storage.tables import table_from_arrays


def column(X: np.ndarray) -> FitVectors:
    table = table_from_arrays({"descriptor": np.asarray(X, np.float32)})
    return rows_of(table.vectors("descriptor"), np.ones(len(X), bool))


def images(
    paths: Sequence[str],
    X: np.ndarray | None = None,
    content: Sequence[str | None] | None = None,
    **read: bytes,
) -> Images:
    index = pd.DataFrame({"image_path": paths})
    index["content"] = pd.Series(list(content or [None] * len(paths)), dtype="str")
    vectors = {} if X is None else {"d": lambda: column(X)}
    return Images(index, vectors, read.get)


def found(batch: Images, *known: Images) -> list[str | None]:
    return [None if pd.isna(path) else path for path in duplicates(batch, known)]


@given(seed=st.integers(0, 1000), n=st.integers(1, 60), width=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_rows_have_the_same_hash_if_they_are_equal_bit_by_bit_and_hardly_ever_else(
    seed: int, n: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, (n, width)).astype(np.float32)
    of_row = row_hashes(column(X))
    same = (X[:, None, :] == X[None, :, :]).all(axis=2)
    np.testing.assert_array_equal(of_row[:, None] == of_row[None, :], same)


def test_a_path_that_is_known_is_known_whatever_the_image() -> None:
    assert found(images(["a", "b"]), images(["b", "c"])) == [None, "b"]


def test_equal_vectors_are_the_same_image_and_close_ones_are_not() -> None:
    X = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    batch = images(["x", "y", "z"], np.vstack([X[2], np.nextafter(X[1], 9), X[0]]))
    assert found(batch, images(["a", "b", "c", "d"], X)) == ["c", None, "a"]


def test_broken_vectors_are_not_each_other() -> None:
    X = np.full((2, 8), np.nan, np.float32)
    assert found(images(["x"], X[:1]), images(["a"], X[1:])) == [None]


def test_an_image_that_a_batch_holds_twice_is_counted_once() -> None:
    X = np.ones((3, 8), np.float32)
    assert found(images(["x", "y", "z"], X)) == [None, "x", "x"]


def test_the_picture_decides_where_both_have_one() -> None:
    X = np.ones((1, 8), np.float32)
    known = images(["a"], X, ["c1"], a=b"picture")
    assert found(images(["x"], X, ["c2"], x=b"other"), known) == [None]
    assert found(images(["x"], X + 1, ["c1"], x=b"picture"), known) == ["a"]


def test_a_checksum_that_another_picture_has_is_no_proof() -> None:
    known = images(["a"], content=["c1"], a=b"picture")
    assert found(images(["x"], content=["c1"], x=b"another"), known) == [None]


def test_a_picture_that_cannot_be_read_any_more_is_known_by_its_checksum() -> None:
    assert found(images(["x"], content=["c1"], x=b"picture"), images(["a"], content=["c1"])) == ["a"]


def test_more_pairs_than_fit_into_a_batch_are_compared() -> None:
    X = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    names, others = ([f"{letter}{i}" for i in range(len(X))] for letter in "ax")
    assert found(images(others, X), images(names, X)) == names
