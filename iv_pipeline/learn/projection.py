"""2-D and 3-D maps: UMAP's layout of the shared neighbour graph."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from joblib import Parallel, delayed

from iv_pipeline.engine import n_workers
from iv_pipeline.learn.embedding import fuzzy_graph, lay_out, start_from

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iv_pipeline.learn.neighbors import NeighborGraph


PARALLEL_ROWS = 50_000
"""From here on the maps are laid out side by side: a seed keeps each on one core, and a process costs seconds."""


def umap_layouts(
    X: NDArray[np.float32],
    graph: NeighborGraph,
    dimensions: tuple[int, ...] = (2, 3),
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    n_epochs: int | None = None,
    seed: int = 0,
) -> list[NDArray[np.float32]]:
    """Coordinates of all rows, once for each number of dimensions, from one fuzzy graph.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``; its first columns, the leading components, start the layout.
    graph
        Neighbours of the rows of `X`.
    dimensions
        Of the maps.
    n_neighbors
        Neighbours that the map keeps together; the nearest of the graph.
    min_dist
        Least distance of points on the map.
    n_epochs
        Rounds of optimisation; None as in `iv_pipeline.learn.embedding.lay_out`.
    seed
        Of the optimisation.

    Returns
    -------
    list of numpy.ndarray
        Shape ``(n_rows, d)``, float32, for each `d` in `dimensions`.
    """
    fuzzy = fuzzy_graph(X, graph, n_neighbors)
    starts = [start_from(X, d, seed) for d in dimensions]
    draw = partial(lay_out, fuzzy, min_dist=min_dist, n_epochs=n_epochs, seed=seed)
    if len(X) < PARALLEL_ROWS or n_workers() < 2:
        return [draw(start) for start in starts]
    return list(Parallel(min(len(starts), n_workers()), max_nbytes=None)(delayed(draw)(s) for s in starts))
