"""Equal rows: what is learned from one of them holds for all.

UMAP moves every point by a random push of its own, and other methods break ties between equal rows by their order.
Equal rows are found by their hashes; UMAP embeds one of each kind, and clusters are those of the first of a kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.engine import ArrayBatches, row_hashes

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from iv_pipeline.engine import BatchedMatrix


def first_equal(matrix: NDArray[np.floating[Any]] | BatchedMatrix) -> NDArray[np.int64]:
    """Index of the first row that equals each row, its own where no earlier one does; shape ``(n_rows,)``, int64.

    Parameters
    ----------
    matrix
        Shape ``(n_rows, n_features)``; compared as float32.
    """
    hashes = row_hashes(ArrayBatches(matrix) if isinstance(matrix, np.ndarray) else matrix)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def distinct_rows(X: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct rows in the order of their first appearance, and which of them each row is.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``.

    Returns
    -------
    rows
        Index of the first row of each kind, ascending, shape ``(n_distinct,)``.
    inverse
        Position in `rows` of the row that equals each row, shape ``(n_rows,)``.
    """
    rows, inverse = np.unique(first_equal(X), return_inverse=True)
    return rows, inverse.astype(np.int64)
