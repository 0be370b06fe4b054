"""Which images of a batch are known already: the same path, or the same content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from iv_pipeline.engine import BATCH_ROWS, row_hashes
from iv_pipeline.storage.batches import CONTENT
from iv_pipeline.storage.tables import IMAGE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray


class Vectors(Protocol):
    """Vectors that are read in batches, or by their rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_features)``."""
        ...

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        ...

    def batch(self, index: int) -> NDArray[Any]:
        """Rows of batch `index`."""
        ...

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The vectors of `rows`, ascending and each once."""
        ...


@dataclass(frozen=True)
class Images:
    """Images by path and content.

    Attributes
    ----------
    index
        Columns `image_path` and `content`.
    vectors
        Opens the raw vectors of each descriptor, in the order of the index.
    read
        The bytes of an image by its path, None where it has none.
    """

    index: pd.DataFrame
    vectors: Mapping[str, Callable[[], Vectors]] = field(default_factory=dict)
    read: Callable[[str], bytes | None] = lambda _: None


def duplicates(batch: Images, known: Sequence[Images]) -> pd.Series[str]:
    """For each image of `batch` the path of the known image that it is, missing for new ones.

    An image is known if one of `known` has its path; or if one of them, or an earlier one of the batch, has its
    content: the bytes of the picture where both have one, all vectors of the shared descriptors otherwise.

    Returns
    -------
    pandas.Series
        Text, aligned with ``batch.index``.
    """
    paths = batch.index[IMAGE_PATH].to_list()
    found: dict[int, str] = {}
    known_paths: set[str] = set().union(*(images.index[IMAGE_PATH] for images in known))
    found.update({row: path for row, path in enumerate(paths) if path in known_paths})
    for others in (*known, batch):
        for matches in (_same_picture, _same_vectors):
            for row, path in matches(batch, others, set(range(len(paths))) - found.keys()):
                if path != paths[row]:  # the batch itself holds every image once
                    found.setdefault(row, path)
    return pd.Series([found.get(row) for row in range(len(paths))], index=batch.index.index, dtype="str")


def _same_picture(batch: Images, others: Images, rows: set[int]) -> list[tuple[int, str]]:
    """Rows whose picture another image has, and that image: the first with the content."""
    if CONTENT not in others.index:
        return []
    first = others.index.dropna(subset=CONTENT).drop_duplicates(CONTENT).set_index(CONTENT)[IMAGE_PATH]
    content, paths = batch.index[CONTENT], batch.index[IMAGE_PATH]
    wanted = [row for row in sorted(rows) if content.iloc[row] in first.index]
    pairs = [(row, str(first[content.iloc[row]])) for row in wanted]
    return [
        (row, path)
        for row, path in pairs
        if path != paths.iloc[row] and _same_bytes(batch.read(paths.iloc[row]), others.read(path))
    ]


def _same_bytes(picture: bytes | None, known: bytes | None) -> bool:
    """Whether the pictures are the same; where one cannot be read any more, checksum and size have to do."""
    return picture is None or known is None or picture == known


def _same_vectors(batch: Images, others: Images, rows: set[int]) -> list[tuple[int, str]]:
    """Rows whose vectors another image has, where not both have a picture that tells more."""
    shared = [name for name in batch.vectors if name in others.vectors]
    has_picture, have_pictures = (images.index[CONTENT].notna().to_numpy() for images in (batch, others))
    if not shared or (has_picture.all() and have_pictures.all()):
        return []
    opened = {name: (batch.vectors[name](), others.vectors[name]()) for name in shared}
    # the narrowest tells them apart as well as any, and is read fastest
    mine, theirs = (row_hashes(m) for m in min(opened.values(), key=lambda pair: pair[0].shape[1]))
    candidates = np.array(sorted(rows), np.int64)
    candidates = candidates[np.isin(mine[candidates], theirs)]
    values, first = np.unique(theirs, return_index=True)
    same = first[np.searchsorted(values, mine[candidates])]
    apart = ~(has_picture[candidates] & have_pictures[same])
    candidates, same = candidates[apart], same[apart]
    for pair in opened.values():
        equal = _equal_rows(*pair, candidates, same)
        candidates, same = candidates[equal], same[equal]
    return list(zip(candidates.tolist(), others.index[IMAGE_PATH].iloc[same].astype(str), strict=True))


def _equal_rows(
    mine: Vectors, theirs: Vectors, rows: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which of the pairs are equal bit by bit, and finite: of broken vectors nothing is known."""
    if not len(rows):
        return np.empty(0, bool)
    parts = range(0, len(rows), BATCH_ROWS)
    return np.concatenate(
        [_equal_some(mine, theirs, rows[i : i + BATCH_ROWS], others[i : i + BATCH_ROWS]) for i in parts]
    )


def _equal_some(
    mine: Vectors, theirs: Vectors, rows: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.bool_]:
    unique, inverse = np.unique(others, return_inverse=True)
    a, b = np.ascontiguousarray(mine.take(rows)), np.ascontiguousarray(theirs.take(unique)[inverse])
    same: NDArray[np.bool_] = (a.view(np.uint32) == b.view(np.uint32)).all(axis=1)
    same &= np.isfinite(a).all(axis=1)
    return same
