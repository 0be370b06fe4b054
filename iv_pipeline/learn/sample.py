"""A sample of the rows that clusterings are tried on, and what represents it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from iv_pipeline.learn.clustering import Space
from iv_pipeline.learn.duplicates import distinct_rows
from iv_pipeline.learn.representation import RECIPES, Embedder, represent

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """Rows that clusterings are tried on, and what judges them.

    Attributes
    ----------
    components
        By scaler, principal components of the rows, shape ``(n_rows, n_components)``, float32, finite.
    blocks
        By scaler, and under `block`, components of each descriptor that takes part: what candidates without one of
        them, and other representations, are made of.
    block
        Key in `blocks` of what is whitened and embedded.
    judges
        By name, vectors that clusters are predicted from, ``(n_rows, n_features)``; rows with NaN take no part.
    leave_out
        Whether the judges are the descriptors that take part: each judges what the others make without it.
    identities
        Code of the vehicle of each row, −1 where unknown, shape ``(n_rows,)``; None without identities.
    embedder
        How rows are embedded; its seed is that of everything random.
    n_neighbors, min_samples
        Of the neighbor graph, and of core distances.
    witnesses
        What the judges know of the rows, in words.
    """

    components: Mapping[str, NDArray[np.float32]]
    blocks: Mapping[str, Mapping[str, NDArray[np.float32]]] = field(default_factory=dict)
    block: str = "block"
    judges: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    leave_out: bool = False
    identities: NDArray[np.int64] | None = None
    embedder: Embedder = field(default_factory=Embedder)
    n_neighbors: int = 50
    min_samples: int = 10
    witnesses: str = "other descriptors"

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.components.values())))

    @property
    def n_distinct(self) -> int:
        """Number of distinct rows: there are no more clusters."""
        return len(distinct_rows(next(iter(self.components.values())))[0])

    def take(self, rows: NDArray[np.int64]) -> Sample:
        """Some of the rows."""
        return replace(
            self,
            components={scaler: X[rows] for scaler, X in self.components.items()},
            blocks={key: {name: X[rows] for name, X in of.items()} for key, of in self.blocks.items()},
            judges={name: X[rows] for name, X in self.judges.items()},
            identities=None if self.identities is None else self.identities[rows],
        )

    def vectors(self, scaler: str, representation: str, left_out: str | None = None) -> NDArray[np.float32]:
        """The rows in a representation, made without one of the descriptors if `left_out` names it."""
        if representation == "pca" and left_out is None:
            return self.components[scaler]
        blocks = self.blocks[scaler if representation == "pca" else self.block]
        kept = [X for name, X in blocks.items() if name != left_out]
        return represent(kept, RECIPES[representation], self.embedder)


class Candidate:
    """Where clusters are looked for: the rows of a sample in a representation.

    Parameters
    ----------
    sample
        The rows.
    scaler, representation
        What makes the vectors.
    """

    def __init__(self, sample: Sample, scaler: str, representation: str) -> None:
        self.sample, self.scaler, self.representation = sample, scaler, representation
        self._spaces: dict[str | None, Space] = {}
        self._locks = {name: Lock() for name in (None, *sample.judges)}

    @property
    def key(self) -> tuple[str, str]:
        """Scaler and representation."""
        return self.scaler, self.representation

    @property
    def has_independent_parts(self) -> bool:
        """Whether parts of the rows are represented alike without the others: an embedding depends on all rows."""
        return not RECIPES[self.representation].embed

    def space(self, left_out: str | None = None) -> Space:
        """The vectors, made without one of the descriptors if `left_out` names it; made once."""
        with self._locks[left_out]:
            if left_out not in self._spaces:
                sample = self.sample
                X = sample.vectors(*self.key, left_out)
                self._spaces[left_out] = Space(
                    X, sample.embedder.seed, sample.n_neighbors, sample.min_samples
                )
            return self._spaces[left_out]
