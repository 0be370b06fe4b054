"""What clusters are looked for in: principal components as they are, whitened, or embedded by UMAP.

A representation is made of *blocks*, one for each descriptor that takes part: its principal components, weighted
to the same total variance or each to unit variance (whitened). Blocks stand side by side, or the fuzzy
neighbour graphs of each are added up (fusion): images that several descriptors find alike are drawn together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import blas_threads, map_rows
from iv_pipeline.learn.embedding import LONG_ROWS, fuzzy_graph, lay_out, start_from
from iv_pipeline.learn.neighbors import NeighborSearch, neighbor_graph
from iv_pipeline.learn.pca import PCA, fit_pca
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import finite_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from iv_pipeline.engine import BatchedMatrix
    from iv_pipeline.learn.statistics import Statistics

VOTING_ROWS = 50_000
"""Whose neighbours vote at once."""
LEAST_VARIANCE = 1e-6
"""Share of a block's largest variance below which whitening would only amplify rounding."""


@dataclass(frozen=True)
class Recipe:
    """How a representation is made of principal components.

    Attributes
    ----------
    whiten
        Whether every component gets unit variance, instead of every block the same total variance.
    embed
        Whether UMAP embeds the rows.
    fuse
        Whether blocks have a neighbour graph each, added up, instead of one graph for all side by side.
    """

    whiten: bool = False
    embed: bool = False
    fuse: bool = False


RECIPES: dict[str, Recipe] = {
    "pca": Recipe(),
    "whitened": Recipe(whiten=True),
    "umap": Recipe(embed=True),
    "whitened_umap": Recipe(whiten=True, embed=True),
    "fusion": Recipe(embed=True, fuse=True),
    "whitened_fusion": Recipe(whiten=True, embed=True, fuse=True),
}
"""By name. ``pca`` is tried with every scaler, the others with the standard scaler alone."""


@dataclass(frozen=True)
class Embedder:
    """How rows are embedded.

    Attributes
    ----------
    n_components
        Dimensions of the embedding.
    n_neighbors
        Rows of a neighbourhood, the row itself counted.
    min_dist
        Least distance of embedded rows; 0 lets clusters be dense.
    n_epochs
        Rounds of optimisation; None for 100 up to `LONG_ROWS` rows and 50 beyond, half of what a map takes:
        clusters of 4,800 labelled photos named as many rightly after 50 rounds as after 200, within one in a
        hundred.
    seed
        Of the neighbour graphs and of the layout.
    """

    n_components: int = 10
    n_neighbors: int = 15
    min_dist: float = 0.0
    n_epochs: int | None = None
    seed: int = 0

    def __call__(
        self, parts: Sequence[NDArray[np.float32]], leading: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Embed rows by the sum of the fuzzy graphs of several parts of their vectors.

        Parameters
        ----------
        parts
            Each of shape ``(n_rows, n_features_of_part)``, float32, finite.
        leading
            The columns that the layout starts from, shape ``(n_rows, n_leading)``.

        Returns
        -------
        numpy.ndarray
            Shape ``(n_rows, n_components)``, float32.
        """
        fuzzy = sum(
            fuzzy_graph(part, neighbor_graph(part, self.n_neighbors - 1, self.seed), self.n_neighbors)
            for part in parts
        )
        start = start_from(leading, self.n_components, self.seed)
        n_epochs = self.n_epochs or (100 if len(start) < LONG_ROWS else 50)
        return lay_out(fuzzy, start, min_dist=self.min_dist, n_epochs=n_epochs, seed=self.seed)


def weights(variance: NDArray[np.floating[Any]], whiten: bool) -> NDArray[np.float64]:
    """What to multiply the components of a block by.

    Parameters
    ----------
    variance
        Of each component, shape ``(n_components,)``.
    whiten
        Give each unit variance; otherwise give them all together variance 1.
    """
    variance = np.asarray(variance, np.float64)
    if not whiten:
        return np.full(len(variance), 1 / np.sqrt(variance.sum() or 1))
    kept = variance > LEAST_VARIANCE * variance.max(initial=0)
    return np.where(kept, 1 / np.sqrt(np.where(kept, variance, 1)), 0)


def represent(
    blocks: Sequence[NDArray[np.float32]], recipe: Recipe, embedder: Embedder
) -> NDArray[np.float32]:
    """Rows of a sample in a representation.

    Parameters
    ----------
    blocks
        Principal components of the rows in each descriptor, ``(n_rows, n_components_of_block)``.
    recipe
        What to make of them.
    embedder
        How, if the recipe embeds.
    """
    parts = [
        (block * weights(block.var(axis=0, dtype=np.float64), recipe.whiten)).astype(np.float32)
        for block in blocks
    ]
    joined = np.hstack(parts)
    if not recipe.embed:
        return joined
    leading = joined[:, leading_columns([part.shape[1] for part in parts], embedder.n_components)]
    return embedder(parts if recipe.fuse else [joined], leading)


def fit_block_maps(
    statistics: Statistics, widths: Sequence[int], recipe: Recipe, variance: float, max_components: int
) -> tuple[PCA, list[int]]:
    """Standardised principal components of every block, weighted, as one affine map.

    Parameters
    ----------
    statistics
        Of the raw blocks side by side.
    widths
        Features of each block.
    recipe
        Says how components are weighted.
    variance, max_components
        Of each block, as for `iv_pipeline.learn.pca.fit_pca`.

    Returns
    -------
    PCA
        Its components are weighted, so not orthonormal.
    list of int
        How many components come from each block.
    """
    ends = np.cumsum([0, *widths])
    maps = [
        _block_map(statistics.select(slice(begin, end)), recipe, variance, max_components)
        for begin, end in itertools.pairwise(ends)
    ]
    components = np.zeros((sum(m.n_components for m in maps), statistics.n_features))
    row = 0
    for m, begin in zip(maps, ends[:-1], strict=True):
        components[row : row + m.n_components, begin : begin + m.components.shape[1]] = m.components
        row += m.n_components
    return (
        PCA(
            statistics.mean,
            np.concatenate([m.scale for m in maps]),
            components,
            np.concatenate([m.explained_variance for m in maps]),
            sum(m.total_variance for m in maps),
        ),
        [m.n_components for m in maps],
    )


def _block_map(statistics: Statistics, recipe: Recipe, variance: float, max_components: int) -> PCA:
    fitted = fit_pca(statistics, fit_scaler("standard", statistics), variance, max_components)
    weight = weights(fitted.explained_variance, recipe.whiten)
    return PCA(
        fitted.mean,
        fitted.scale,
        fitted.components * weight[:, None],
        fitted.explained_variance * weight**2,
        fitted.total_variance,
    )


def leading_columns(widths: Sequence[int], n: int) -> list[int]:
    """Columns of the first component of each block, then of the second of each, up to `n`.

    Parameters
    ----------
    widths
        Components of each block, which stand side by side.
    n
        Columns wanted; fewer if there are not as many.
    """
    begins = np.cumsum([0, *widths[:-1]])
    ranked = sorted(
        (rank, begin + rank) for begin, width in zip(begins, widths, strict=True) for rank in range(width)
    )
    return [int(column) for _, column in ranked[:n]]


class Affine:
    """Raw rows to scaled principal components.

    Parameters
    ----------
    pca
        Scaler and components.
    """

    def __init__(self, pca: PCA) -> None:
        self._pca = pca
        self.n_features = len(pca.mean)

    def transform(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """All rows of `matrix`, reduced, shape ``(n_rows, n_components)``."""
        with blas_threads(1):  # the batches run in parallel
            parts = list(map_rows(self._pca.transform, matrix))
        return np.concatenate(parts) if parts else np.empty((0, self._pca.n_components), np.float32)


class Placement:
    """Raw rows to where they belong in an embedding: between their neighbours of the fit.

    Each part of a row's vector has its neighbours vote with the inverse square of their distance (Shepard 1968),
    so that a row of the fit comes to lie where the fit put it.

    Parameters
    ----------
    pca
        Raw rows to the parts side by side.
    parts
        Width of each part.
    source
        The parts of the rows of the fit, shape ``(n_points, sum(parts))``, float32, finite.
    embedding
        Of the rows of the fit, shape ``(n_points, n_components)``, float32.
    n_neighbors
        That vote.
    seed
        Of the searches.
    """

    def __init__(
        self,
        pca: PCA,
        parts: Sequence[int],
        source: NDArray[np.float32],
        embedding: NDArray[np.float32],
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> None:
        self._affine = Affine(pca)
        self.n_features = self._affine.n_features
        self._columns = [slice(end - width, end) for width, end in zip(parts, np.cumsum(parts), strict=True)]
        self._searches = [NeighborSearch(np.ascontiguousarray(source[:, c]), seed) for c in self._columns]
        self._embedding = embedding
        self._n_neighbors = n_neighbors

    def transform(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """All rows of `matrix`, embedded, shape ``(n_rows, n_components)``; NaN for rows that are not finite."""
        reduced = self._affine.transform(matrix)
        usable = finite_rows(reduced)
        placed = np.full((len(reduced), self._embedding.shape[1]), np.nan, np.float32)
        if usable.any():
            placed[usable] = self.place(reduced[usable])
        return placed

    def place(self, parts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows given by their parts side by side, finite, embedded, shape ``(n_rows, n_components)``."""
        places = np.zeros((len(parts), self._embedding.shape[1]), np.float32)
        for columns, search in zip(self._columns, self._searches, strict=True):
            indices, distances = search(np.ascontiguousarray(parts[:, columns]), self._n_neighbors)
            for begin in range(0, len(parts), VOTING_ROWS):
                rows = slice(begin, begin + VOTING_ROWS)
                places[rows] += self._vote(indices[rows], distances[rows])
        places /= len(self._columns)
        return places

    def _vote(self, indices: NDArray[np.int32], distances: NDArray[np.float32]) -> NDArray[np.float64]:
        """The mean place of the neighbours of each row, the nearer the heavier."""
        nearness = distances.astype(np.float64)
        scale = nearness.mean(axis=1, keepdims=True)
        nearness /= np.where(scale > 0, scale, 1)
        weight = 1 / np.maximum(np.square(nearness), 1e-12)
        weight /= weight.sum(axis=1, keepdims=True)
        place: NDArray[np.float64] = np.einsum("nk,nkd->nd", weight, self._embedding[indices])
        return place


def pack_fit(pca: PCA, parts: Sequence[int]) -> dict[str, NDArray[Any]]:
    """What turns raw rows into this representation, as plain arrays; `parts` is empty if nothing is embedded."""
    return {**pca.to_arrays(), "parts": np.asarray(parts, np.int64)}


def unpack_fit(arrays: Mapping[str, NDArray[Any]]) -> tuple[PCA, list[int]]:
    """The inverse of `pack_fit`."""
    return PCA.from_arrays({k: v for k, v in arrays.items() if k != "parts"}), arrays["parts"].tolist()
