"""All descriptors of an image side by side, each with the same say.

What `sklearn.pipeline.FeatureUnion` does for transformers: principal components of every descriptor, whitened,
every row at unit length, stand beside each other. So the distance of two images counts every descriptor alike,
however many features it has and however far apart its vectors lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.learn.representation import (
    RECIPES,
    Embedder,
    Interpolation,
    Reduction,
    embed_parts,
    fit_block_maps,
    pack_fit,
    unpack_fit,
)
from iv_pipeline.learn.statistics import compute_statistics, finite_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from iv_pipeline.engine import BatchedMatrix

RECIPE = RECIPES["normalized"]


@dataclass(frozen=True)
class JointFeatures:
    """What turns raw vectors of several descriptors into joint features.

    Attributes
    ----------
    reductions
        By descriptor, in the order in which they stand.
    """

    reductions: Mapping[str, Reduction]

    @property
    def widths(self) -> list[int]:
        """Components of each descriptor."""
        return [reduction.n_components for reduction in self.reductions.values()]

    def transform(self, matrices: Mapping[str, BatchedMatrix]) -> NDArray[np.float32]:
        """Joint features of images.

        Parameters
        ----------
        matrices
            Raw vectors by descriptor, each ``(n_rows, n_features_of_descriptor)``, not finite where unusable. A
            descriptor that is missing says nothing of any image.

        Returns
        -------
        numpy.ndarray
            Shape ``(n_rows, sum(widths))``, float32; zeros where a descriptor has no usable vector, NaN where none
            has.
        """
        return self.join({name: self.reductions[name].components(X) for name, X in matrices.items()})

    def join(self, components: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Joint features of whitened components by descriptor, as `transform` makes them of raw vectors."""
        n_rows = len(next(iter(components.values())))
        joint = np.zeros((n_rows, sum(self.widths)), np.float32)
        is_known = np.zeros(n_rows, bool)
        begin = 0
        for name, reduction in self.reductions.items():
            if name in components:
                block = reduction.of_unit_length(components[name])
                usable = finite_rows(block)
                joint[usable, begin : begin + block.shape[1]] = block[usable]
                is_known |= usable
            begin += reduction.n_components
        joint[~is_known] = np.nan
        return joint

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The same as plain arrays."""
        return {
            f"{name}/{key}": value
            for name, reduction in self.reductions.items()
            for key, value in pack_fit(reduction, []).items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> JointFeatures:
        """The inverse of `to_arrays`."""
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for key, value in arrays.items():
            name, _, part = key.rpartition("/")
            parts.setdefault(name, {})[part] = value
        return cls({name: unpack_fit(part)[0] for name, part in parts.items()})


def fit_joint_features(
    matrices: Mapping[str, BatchedMatrix], *, variance: float = 0.95, max_components: int = 100
) -> JointFeatures:
    """Fit the components of every descriptor.

    Parameters
    ----------
    matrices
        Raw vectors by descriptor, not finite where unusable.
    variance
        Share of each descriptor's variance to keep.
    max_components
        Of each descriptor.

    Raises
    ------
    InputError
        If every feature of a descriptor is constant.
    """
    return JointFeatures(
        {
            name: fit_block_maps(
                compute_statistics(matrix), [matrix.shape[1]], RECIPE, variance, max_components
            )[0]
            for name, matrix in matrices.items()
        }
    )


def embed_rows(
    X: NDArray[np.float32], widths: Sequence[int], embedder: Embedder, landmarks: int
) -> NDArray[np.float32]:
    """UMAP's embedding of joint features.

    Parameters
    ----------
    X
        Shape ``(n_rows, sum(widths))``, NaN for rows without features.
    widths
        Components of each descriptor.
    embedder
        How.
    landmarks
        Rows that are laid out; where there are more, the others are placed between them.

    Returns
    -------
    numpy.ndarray
        Shape ``(n_rows, embedder.n_components)``, float32, NaN for rows without features.
    """
    usable = np.flatnonzero(finite_rows(X))
    laid_out = np.sort(np.random.default_rng(embedder.seed).permutation(usable)[:landmarks])
    everything = [slice(0, X.shape[1])]
    embedding = np.full((len(X), embedder.n_components), np.nan, np.float32)
    embedding[laid_out] = embed_parts(X[laid_out], widths, everything, embedder)
    others = np.setdiff1d(usable, laid_out, assume_unique=True)
    if len(others):
        place = Interpolation(everything, X[laid_out], embedding[laid_out], seed=embedder.seed)
        embedding[others] = place(X[others])
    return embedding
