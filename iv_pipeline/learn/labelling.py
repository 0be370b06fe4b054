"""A fitted descriptor as something that labels new images: raw vectors in, clusters and confidence out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from iv_pipeline.engine import ArrayBatches, BatchedMatrix, blas_threads, map_rows
from iv_pipeline.learn.clustering import (
    NOISE,
    Attachment,
    Clustering,
    MixtureModel,
    NeighborModel,
    PrototypeModel,
)
from iv_pipeline.learn.statistics import finite_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iv_pipeline.learn.clustering import Model

RULES: dict[str, type[Any]] = {
    "prototypes": PrototypeModel,
    "mixture": MixtureModel,
    "attachment": Attachment,
}
"""What assigns rows to clusters, by the name that it is stored under."""


def rule_of(clustering: Clustering) -> PrototypeModel | MixtureModel | Attachment:
    """How `clustering` assigns other rows."""
    rule = clustering.model or clustering.attachment
    if not isinstance(rule, PrototypeModel | MixtureModel | Attachment):
        raise TypeError(f"no way to store {type(rule).__name__}: add it to RULES")
    return rule


def rule_to_arrays(rule: PrototypeModel | MixtureModel | Attachment) -> dict[str, NDArray[Any]]:
    """A rule as plain arrays; `kind` says which of `RULES` it is."""
    kind = next(name for name, of in RULES.items() if isinstance(rule, of))
    return {"kind": np.array(kind), **{f.name: np.asarray(getattr(rule, f.name)) for f in fields(rule)}}


def rule_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> PrototypeModel | MixtureModel | Attachment:
    """The inverse of `rule_to_arrays`."""
    of = RULES[str(arrays["kind"])]
    values = {f.name: arrays[f.name] for f in fields(of)}
    rule: PrototypeModel | MixtureModel | Attachment = of(
        **{k: v if v.ndim else v.item() for k, v in values.items()}
    )
    return rule


def n_labels_of(rule: PrototypeModel | MixtureModel | Attachment) -> int:
    """How many labels a rule may give, whether or not a row of the fit got each."""
    if isinstance(rule, PrototypeModel):
        return int(rule.labels.max(initial=NOISE)) + 1
    return len(rule.means if isinstance(rule, MixtureModel) else rule.reach)


def numbers_of(
    labels: NDArray[np.integer[Any]], clusters: NDArray[np.integer[Any]], n_labels: int
) -> NDArray[np.int32]:
    """The number that each of an algorithm's labels was given, −1 for labels that no row of the fit had.

    Parameters
    ----------
    labels, clusters
        Of the same rows, shape ``(n_rows,)``: as the algorithm counts them, and as they were numbered.
    n_labels
        Labels that there may be.
    """
    numbers = np.full(n_labels, NOISE, np.int32)
    inside = labels != NOISE
    numbers[labels[inside]] = clusters[inside]
    return numbers


def labels_of(clusters: NDArray[np.integer[Any]], numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """The inverse of `numbers_of`: the label behind the number of each row; noise stays −1."""
    labels = np.full(int(clusters.max(initial=NOISE)) + 2, NOISE, np.int32)  # the last answers for noise, −1
    used = numbers != NOISE
    labels[numbers[used]] = np.flatnonzero(used)
    behind: NDArray[np.int32] = labels[clusters]
    return behind


class Representation(Protocol):
    """What turns raw vectors into those that were clustered."""

    n_features: int

    def transform(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """All rows of `matrix`; not finite where a raw row is not."""
        ...


@dataclass(frozen=True)
class Labeller:
    """Labels images by their raw descriptors, with what was learnt on others.

    Attributes
    ----------
    representation
        Turns raw vectors into those that were clustered.
    model
        Assigns those.
    numbers
        Number of the cluster behind each label of `model`, shape ``(n_labels,)``, int32.
    """

    representation: Representation
    model: Model
    numbers: NDArray[np.int32]

    def predict(
        self, X: NDArray[np.floating[Any]] | BatchedMatrix
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster and confidence of each image.

        Parameters
        ----------
        X
            Raw descriptors, shape ``(n_rows, n_features)``; an array, which may be a memory map, or anything
            that is read batch by batch.

        Returns
        -------
        cluster
            Shape ``(n_rows,)``, int32; −1 for noise, for rows with NaN or infinite values, and for rows whose
            nearest cluster has no row of the fit.
        confidence
            Shape ``(n_rows,)``, float32, in [0, 1]; 0 where the cluster is −1.

        Raises
        ------
        ValueError
            If the descriptors are not as wide as those of the fit.
        """
        matrix = ArrayBatches(X) if isinstance(X, np.ndarray) else X
        n_features = self.representation.n_features
        if matrix.shape[1] != n_features:
            raise ValueError(f"descriptors of {matrix.shape[1]} features: the fit had {n_features}")
        reduced = self.representation.transform(matrix)
        usable = finite_rows(reduced)
        labels, sure = self._assign(reduced if usable.all() else reduced[usable])
        cluster = np.full(len(reduced), NOISE, np.int32)
        confidence = np.zeros(len(reduced), np.float32)
        cluster[usable] = np.append(self.numbers, np.int32(NOISE))[labels]  # the last answers for noise, −1
        confidence[usable] = np.where(cluster[usable] == NOISE, 0, sure)
        return cluster, confidence

    def _assign(self, reduced: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if isinstance(self.model, NeighborModel):
            return self.model.predict(reduced)  # it groups rows that lie close, and works side by side itself
        with blas_threads(1):
            parts = list(map_rows(self.model.predict, ArrayBatches(reduced)))
        if not parts:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        labels, confidence = zip(*parts, strict=True)
        return np.concatenate(labels), np.concatenate(confidence)
