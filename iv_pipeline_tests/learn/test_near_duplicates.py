from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iv_pipeline.learn.near_duplicates import near_duplicates

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_images_without_structure_join_no_group() -> None:
    assert near_duplicates(np.zeros(3, np.uint64)).tolist() == [-1, -1, -1]


def test_groups_are_numbered_by_first_appearance() -> None:
    a, b, c = 0xFFFF0000FFFF0000, 0x00FF00FF00FF00FF, 0x123456789ABCDEF0
    hashes = np.array([c, b, a, b ^ 1, a ^ (1 << 63), b ^ 3], np.uint64)
    assert near_duplicates(hashes).tolist() == [-1, 0, 1, 0, 1, 0]
    assert near_duplicates(hashes, distance=0).tolist() == [-1] * 6
    assert near_duplicates(np.array([], np.uint64)).tolist() == []


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.uint64, st.integers(1, 30), elements=st.integers(1, 2**64 - 1)),
    st.lists(st.tuples(st.integers(0, 29), st.sets(st.integers(0, 63), max_size=3)), max_size=10),
    st.integers(0, 3),
)
def test_groups_are_the_components_of_all_close_pairs(
    hashes: NDArray[np.uint64], copies: list[tuple[int, set[int]]], distance: int
) -> None:
    flipped = [int(hashes[i % len(hashes)]) ^ sum(1 << bit for bit in bits) for i, bits in copies]
    hashes = np.array([*hashes.tolist(), *flipped], np.uint64)
    group = near_duplicates(hashes, distance)
    close = np.bitwise_count(hashes[:, None] ^ hashes) <= distance
    close &= (hashes[:, None] != 0) & (hashes != 0)
    reach = close.copy()
    for _ in range(6):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    np.testing.assert_array_equal(
        (group[:, None] == group) & (group >= 0), reach & (reach.sum(1) > 1)[:, None]
    )
