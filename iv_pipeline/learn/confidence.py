"""How sure it is that an image belongs to its cluster, on one scale for all algorithms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iv_pipeline.learn.groups import GroupTree


def cluster_confidence(cluster: NDArray[np.int32], tree: GroupTree) -> NDArray[np.float32]:
    """Mean similarity of each row to the others of its cluster, on the tree over all descriptors.

    The similarity of two rows is the information content of the smallest node that holds both, ``-log`` of its
    share of the rows (Resnik 1995), over that of the row's own leaf. So 1 means that the whole cluster is in one
    leaf, and 0 that only the root holds the row and any other of its cluster.

    Parameters
    ----------
    cluster
        Cluster of each row by whatever algorithm, −1 for none, shape ``(n_rows,)``.
    tree
        Of the same rows.

    Returns
    -------
    numpy.ndarray
        In [0, 1], shape ``(n_rows,)``, float32; 0 for rows without a cluster or a leaf, alone in their cluster, or
        whose leaf has all rows.

    Raises
    ------
    ValueError
        If the tree is of another number of rows.
    """
    if len(cluster) != tree.n_rows:
        raise ValueError(f"cluster has {len(cluster)} rows, but the tree {tree.n_rows}")
    confidence = np.zeros(len(cluster), np.float32)
    judged = np.flatnonzero((cluster >= 0) & (tree.leaf >= 0))
    if not len(judged):
        return confidence
    number, leaf = cluster[judged], tree.leaf[judged]
    counts = np.zeros((int(number.max()) + 1, tree.n_leaves))
    np.add.at(counts, (number, leaf), 1)
    information = np.log(tree.sizes[-1] / tree.common_sizes)
    own = information[leaf, leaf]
    others = counts.sum(axis=1)[number] - 1
    total = (counts @ information)[number, leaf] - own
    most = others * own
    known = most > 0
    confidence[judged[known]] = (total[known] / most[known]).clip(0, 1)
    return confidence
