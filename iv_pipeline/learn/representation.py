"""What clusters are looked for in: principal components as they are, whitened, normalized, or embedded by UMAP.

A representation is made of *blocks*, one for each descriptor that takes part: its principal components, weighted
to the same total variance or each to unit variance (whitened), and then perhaps every row of a block to unit
length (normalized). UMAP embeds the blocks side by side; or the fuzzy neighbor graphs of that and of each block
are added up first (fusion): images that several descriptors find alike are drawn together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from iv_pipeline.engine import blas_threads, map_ordered, map_rows
from iv_pipeline.learn.duplicates import distinct_rows
from iv_pipeline.learn.embedding import (
    LONG_ROWS,
    PLACED_ROWS,
    fuzzy_graph,
    geometric_median,
    lay_out,
    nearness,
    start_from,
)
from iv_pipeline.learn.neighbors import NeighborSearch, neighbor_graph
from iv_pipeline.learn.pca import PCA, fit_pca
from iv_pipeline.learn.precision import grid_step
from iv_pipeline.learn.scaling import fit_scaler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from iv_pipeline.engine import BatchedMatrix
    from iv_pipeline.learn.statistics import Statistics

Floats = TypeVar("Floats", np.float32, np.float64)

LEAST_VARIANCE = 1e-6
"""Share of a block's largest variance below which whitening would only amplify rounding."""


@dataclass(frozen=True)
class Recipe:
    """How a representation is made of principal components.

    Attributes
    ----------
    whiten
        Whether every component gets unit variance, instead of every block the same total variance.
    normalize
        Whether every row of a block gets unit length, so that only the direction counts.
    embed
        Whether UMAP embeds the rows.
    fuse
        Whether the neighbor graph of each block is added to the one of all side by side.
    """

    whiten: bool = False
    normalize: bool = False
    embed: bool = False
    fuse: bool = False

    def parts(self, widths: Sequence[int]) -> list[slice]:
        """Columns that have a neighbor graph each: none if nothing is embedded, all, and those of each block."""
        if not self.embed:
            return []
        ends = np.cumsum([0, *widths]).tolist()
        blocks = [slice(*ends_of) for ends_of in itertools.pairwise(ends)] if self.fuse else []
        return [slice(0, ends[-1]), *(blocks if len(blocks) > 1 else [])]


RECIPES: dict[str, Recipe] = {
    "pca": Recipe(),
    "whitened": Recipe(whiten=True),
    "normalized": Recipe(whiten=True, normalize=True),
    "umap": Recipe(embed=True),
    "whitened_umap": Recipe(whiten=True, embed=True),
    "normalized_umap": Recipe(whiten=True, normalize=True, embed=True),
    "fusion": Recipe(embed=True, fuse=True),
    "whitened_fusion": Recipe(whiten=True, embed=True, fuse=True),
    "normalized_fusion": Recipe(whiten=True, normalize=True, embed=True, fuse=True),
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
        Rows of a neighborhood, the row itself counted.
    min_dist
        Least distance of embedded rows; 0 lets clusters be dense.
    n_epochs
        Rounds of optimization; None for 100 up to `LONG_ROWS` rows and 50 beyond, half of what a map takes:
        clusters of 4,800 labelled photos named as many rightly after 50 rounds as after 200, within one in a
        hundred.
    seed
        Of the neighbor graphs and of the layout.
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
            Each of shape ``(n_rows, n_features_of_part)``, float32, finite; the first has all columns.
        leading
            The columns that the layout starts from, shape ``(n_rows, n_leading)``.

        Returns
        -------
        numpy.ndarray
            Shape ``(n_rows, n_components)``, float32; equal rows are in one place.
        """
        rows, inverse = distinct_rows(parts[0])
        fuzzy = sum(
            fuzzy_graph(neighbor_graph(part[rows], self.n_neighbors - 1, self.seed), self.n_neighbors)
            for part in parts
        )
        start = start_from(leading[rows], self.n_components, self.seed)
        n_epochs = self.n_epochs or (100 if len(start) < LONG_ROWS else 50)
        return lay_out(fuzzy, start, min_dist=self.min_dist, n_epochs=n_epochs, seed=self.seed)[inverse]


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
    parts = [block * weights(block.var(axis=0, dtype=np.float64), recipe.whiten) for block in blocks]
    widths = [part.shape[1] for part in parts]
    joined = np.hstack(parts)
    if recipe.normalize:
        joined = _of_unit_length(joined, widths)
    source: NDArray[np.float32] = joined.astype(np.float32)
    return embed_parts(source, widths, recipe.parts(widths), embedder) if recipe.embed else source


def _of_unit_length(rows: NDArray[Floats], widths: Sequence[int]) -> NDArray[Floats]:
    """Blocks of columns, each scaled to unit length in every row; rows of zeros stay."""
    unit = rows.copy()
    for begin, end in itertools.pairwise(np.cumsum([0, *widths]).tolist()):
        length = np.linalg.norm(rows[:, begin:end], axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # infinity over infinity: not finite, as it was
            unit[:, begin:end] /= np.where(length > 0, length, 1)
    return unit


def fit_block_maps(
    statistics: Statistics, widths: Sequence[int], recipe: Recipe, variance: float, max_components: int
) -> tuple[Reduction, list[int]]:
    """Standardized principal components of every block, weighted, and of unit length if the recipe says so.

    Parameters
    ----------
    statistics
        Of the raw blocks side by side.
    widths
        Features of each block.
    recipe
        Says how components are weighted and whether they are normalized.
    variance, max_components
        Of each block, as for `iv_pipeline.learn.pca.fit_pca`.

    Returns
    -------
    Reduction
        Raw rows to those components.
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
    explained = np.concatenate([m.explained_variance for m in maps])
    joined = PCA(
        statistics.mean,
        np.concatenate([m.scale for m in maps]),
        components,
        explained,
        sum(m.total_variance for m in maps),
        grid_step(float(explained.sum())) if all(m.step for m in maps) else 0.0,
    )
    kept = [m.n_components for m in maps]
    return Reduction(joined, kept if recipe.normalize else ()), kept


def _block_map(statistics: Statistics, recipe: Recipe, variance: float, max_components: int) -> PCA:
    fitted = fit_pca(statistics, fit_scaler("standard", statistics), variance, max_components)
    weight = weights(fitted.explained_variance, recipe.whiten)
    return PCA(
        fitted.mean,
        fitted.scale,
        fitted.components * weight[:, None],
        fitted.explained_variance * weight**2,
        fitted.total_variance,
        fitted.step,
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


def embed_parts(
    source: NDArray[np.float32], widths: Sequence[int], parts: Sequence[slice], embedder: Embedder
) -> NDArray[np.float32]:
    """Embed weighted components that stand side by side.

    Parameters
    ----------
    source
        Shape ``(n_rows, sum(widths))``, finite.
    widths
        Components of each block, for the layout to start from the leading ones of each.
    parts
        Columns that have a neighbor graph each, as from `Recipe.parts`.
    embedder
        How.
    """
    return embedder(
        [np.ascontiguousarray(source[:, part]) for part in parts],
        source[:, leading_columns(widths, embedder.n_components)],
    )


class Reduction:
    """Raw rows to scaled principal components.

    Parameters
    ----------
    pca
        Scaler and components; weighted components are not orthonormal.
    unit_blocks
        Widths of blocks of components of which every row gets unit length; empty to leave lengths as they are.
    """

    def __init__(self, pca: PCA, unit_blocks: Sequence[int] = ()) -> None:
        self.pca = pca
        self.unit_blocks = tuple(unit_blocks)
        self.n_features = len(pca.mean)
        self.n_components = pca.n_components

    def __call__(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Some rows, reduced, shape ``(n_rows, n_components)``; not finite where a raw row is not."""
        return self.of_unit_length(self.pca.transform(rows))

    def reduce(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """All rows of `matrix`, reduced, shape ``(n_rows, n_components)``; not finite where a raw row is not."""
        return self._of_all(self, matrix)

    def components(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """The same with the lengths that rows have: how far out one lies cannot be told from its direction."""
        return self._of_all(self.pca.transform, matrix)

    def of_unit_length(self, components: NDArray[np.float32]) -> NDArray[np.float32]:
        """Components as they are reduced: each block of unit length, if the representation is of that kind."""
        return _of_unit_length(components, self.unit_blocks) if self.unit_blocks else components

    def _of_all(
        self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]], matrix: BatchedMatrix
    ) -> NDArray[np.float32]:
        with blas_threads(1):  # the batches run in parallel
            parts = list(map_rows(function, matrix))
        return np.concatenate(parts) if parts else np.empty((0, self.n_components), np.float32)

    def place(self, reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reduced rows as they are: they are what was clustered."""
        return reduced


class Interpolation:
    """Reduced rows to where they belong in an embedding: between their neighbors of the fit.

    A row comes to lie at the geometric median of its neighbors' places, those of all parts together, weighted by
    the inverse square of their distance (Shepard 1968); so a row of the fit comes to lie where the fit put it.

    Parameters
    ----------
    parts
        Columns of the rows whose neighbors vote, as from `Recipe.parts`.
    source
        Reduced rows of the fit, shape ``(n_points, n_components)``, float32, finite.
    embedding
        Of the rows of the fit, shape ``(n_points, n_dimensions)``, float32.
    n_neighbors
        That vote.
    seed
        Of the searches.
    """

    def __init__(
        self,
        parts: Sequence[slice],
        source: NDArray[np.float32],
        embedding: NDArray[np.float32],
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> None:
        self._parts = list(parts)
        self._searches = [NeighborSearch(np.ascontiguousarray(source[:, part]), seed) for part in self._parts]
        self._embedding = embedding
        self._n_neighbors = n_neighbors

    def __call__(self, reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reduced rows, finite, embedded, shape ``(n_rows, n_dimensions)``."""
        found = [
            search(np.ascontiguousarray(reduced[:, part]), self._n_neighbors)
            for part, search in zip(self._parts, self._searches, strict=True)
        ]
        indices = np.hstack([indices for indices, _ in found])
        weight = np.hstack([nearness(distances) for _, distances in found])

        def place_some(chunk: int) -> NDArray[np.float32]:
            rows = slice(chunk * PLACED_ROWS, (chunk + 1) * PLACED_ROWS)
            return geometric_median(self._embedding[indices[rows]], weight[rows])

        places = list(map_ordered(place_some, -(-len(reduced) // PLACED_ROWS)))
        return np.concatenate(places) if places else np.empty((0, self._embedding.shape[1]), np.float32)


class Placement:
    """Raw rows to where they belong in an embedding.

    Parameters
    ----------
    reduction
        Raw rows to reduced ones.
    place
        Reduced rows, finite, to their places, shape ``(n_rows, n_dimensions)``.
    """

    def __init__(self, reduction: Reduction, place: Interpolation) -> None:
        self._reduction = reduction
        self.n_features = reduction.n_features
        self.place = place

    def reduce(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """All rows of `matrix`, reduced; not finite where a raw row is not."""
        return self._reduction.reduce(matrix)

    def components(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """The same with the lengths that rows have."""
        return self._reduction.components(matrix)

    def of_unit_length(self, components: NDArray[np.float32]) -> NDArray[np.float32]:
        """Components as they are reduced."""
        return self._reduction.of_unit_length(components)


def pack_fit(reduction: Reduction, parts: Sequence[slice]) -> dict[str, NDArray[Any]]:
    """What turns raw rows into this representation, as plain arrays; `parts` is empty if nothing is embedded."""
    return {
        **reduction.pca.to_arrays(),
        "unit_blocks": np.array(reduction.unit_blocks, np.int64),
        "parts": np.array([(part.start, part.stop) for part in parts], np.int64).reshape(-1, 2),
    }


def unpack_fit(arrays: Mapping[str, NDArray[Any]]) -> tuple[Reduction, list[slice]]:
    """The inverse of `pack_fit`."""
    parts = [slice(begin, end) for begin, end in arrays["parts"].tolist()]
    return Reduction(PCA.from_arrays(arrays), arrays["unit_blocks"].tolist()), parts
