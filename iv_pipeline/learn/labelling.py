"""A fitted descriptor as something that labels new images: raw vectors in, clusters and confidence out."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from iv_pipeline.engine import ArrayBatches, BatchedMatrix, blas_threads, map_rows
from iv_pipeline.learn.clustering import (
    NOISE,
    Attachment,
    Clustering,
    MixtureModel,
    NeighborModel,
    PrototypeModel,
)
from iv_pipeline.learn.rows import Vectors, as_matrix
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.learn.validity import NOT_FINITE, REASONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iv_pipeline.learn.clustering import Model
    from iv_pipeline.learn.novelty import Novelty
    from iv_pipeline.learn.validity import ValidityRule

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


def _named(cluster: NDArray[np.int32], names: Mapping[int, str]) -> NDArray[np.object_]:
    numbers, inverse = np.unique(cluster, return_inverse=True)
    return np.array([names.get(number, "") for number in numbers.tolist()], object)[inverse]


def status_of(
    cluster: NDArray[np.int32], reasons: NDArray[np.object_], known: NDArray[np.bool_] | None = None
) -> NDArray[np.object_]:
    """Words for why an image has its cluster or has none, shape ``(n_rows,)``.

    Parameters
    ----------
    cluster
        −1 for none, shape ``(n_rows,)``.
    reasons
        Why the vector of each row is unusable, one of `iv_pipeline.learn.validity.REASONS`; empty if it is usable.
    known
        Whether each row is like rows of the fit; None if all are rows of the fit themselves.
    """
    status = np.where(cluster == NOISE, "noise", "ok").astype(object)
    if known is not None:
        status[~known] = "unknown: far from every image of the fit"
    unusable = reasons != ""
    status[unusable] = "unusable: " + reasons[unusable]
    return status


class Representation(Protocol):
    """What turns raw vectors into those that were clustered, in two steps."""

    n_features: int

    def reduce(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """All rows of `matrix`, reduced; not finite where a raw row is not."""
        ...

    def components(self, matrix: BatchedMatrix) -> NDArray[np.float32]:
        """The same with the lengths that rows have."""
        ...

    def of_unit_length(self, components: NDArray[np.float32]) -> NDArray[np.float32]:
        """Components as they are reduced."""
        ...

    def place(self, reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reduced rows, which are finite, where the clusters are."""
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
    novelty
        Of components: says which rows are outliers, and which are like nothing in the fit; None to label all rows.
    names
        Of the clusters, by number.
    validity
        Says which raw vectors are usable; None for all that are finite.
    """

    representation: Representation
    model: Model
    numbers: NDArray[np.int32]
    novelty: Novelty | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    validity: ValidityRule | None = None

    def named(self, names: Mapping[int, str]) -> Labeller:
        """The same, with names that people have given since to some of its clusters."""
        return replace(
            self, names={**self.names, **{n: name for n, name in names.items() if n in self.names}}
        )

    def predict(self, X: Vectors) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster and confidence of each image.

        Parameters
        ----------
        X
            Raw descriptors, shape ``(n_rows, n_features)``; an array, which may be a memory map, one vector, a
            list of vectors, a frame, or anything that is read batch by batch.

        Returns
        -------
        cluster
            Shape ``(n_rows,)``, int32; −1 for noise, for unusable rows, for rows that lie far
            from all rows of the fit, and for rows whose nearest cluster has no row of the fit.
        confidence
            Shape ``(n_rows,)``, float32, in [0, 1]; 0 where the cluster is −1.

        Raises
        ------
        InputError
            If these are no vectors as wide as those of the fit.
        """
        labels = self.label(X)
        return labels["cluster"].to_numpy(), labels["confidence"].to_numpy()

    def label(self, X: Vectors) -> pd.DataFrame:
        """All that is known of each image: the columns of a Final CSV.

        Parameters
        ----------
        X
            As for `predict`.

        Returns
        -------
        pandas.DataFrame
            A row an image: `cluster` and `confidence` as from `predict`; `is_outlier` and `outlier_score` in
            [0, 1], by the distance to rows of the fit; `status`: ``ok``, ``noise``, ``unknown: ...`` or
            ``unusable: ...``; `name` of the cluster, empty where there is none.

        Raises
        ------
        InputError
            If these are no vectors as wide as those of the fit.
        """
        matrix = as_matrix(X, self.representation.n_features)
        reasons = self._unusable(matrix)
        components = self.representation.components(matrix)
        reasons[(reasons == "") & ~finite_rows(components)] = REASONS[NOT_FINITE]
        usable = reasons == ""
        rows = components if usable.all() else components[usable]
        score = np.ones(len(components), np.float32)  # what cannot be read should not be trained on
        score[usable] = self.novelty.score(rows) if self.novelty else 0
        outlier, known = ~usable, usable.copy()
        if self.novelty:
            outlier |= score > self.novelty.outlier_above
            known &= score <= self.novelty.unknown_above
        reduced = self.representation.of_unit_length(rows)
        labels, sure = self._assign(self.representation.place(reduced))
        cluster = np.full(len(components), NOISE, np.int32)
        cluster[usable] = np.append(self.numbers, np.int32(NOISE))[labels]  # the last answers for noise, −1
        cluster[~known] = NOISE
        confidence = np.zeros(len(components), np.float32)
        confidence[usable] = sure
        confidence[cluster == NOISE] = 0
        return pd.DataFrame(
            {
                "cluster": cluster,
                "confidence": confidence,
                "is_outlier": outlier,
                "outlier_score": score,
                "status": status_of(cluster, reasons, known),
                "name": _named(cluster, self.names),
            }
        )

    def _unusable(self, matrix: BatchedMatrix) -> NDArray[np.object_]:
        """Why each raw vector is unusable, empty for usable ones, shape ``(n_rows,)``."""
        if self.validity is None:
            return np.full(matrix.shape[0], "", object)
        codes = [np.empty(0, np.uint8), *map_rows(self.validity.codes, matrix)]
        return np.array(REASONS, object)[np.concatenate(codes)]

    def _assign(self, reduced: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if isinstance(self.model, NeighborModel):
            return self.model.predict(reduced)  # it groups rows that lie close, and works side by side itself
        with blas_threads(1):
            parts = list(map_rows(self.model.predict, ArrayBatches(reduced)))
        if not parts:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        labels, confidence = zip(*parts, strict=True)
        return np.concatenate(labels), np.concatenate(confidence)

    def vectors(self, X: Vectors) -> NDArray[np.float32]:
        """Raw descriptors, finite, where the clusters are, shape ``(n_rows, n_components)``."""
        return self.representation.place(
            self.representation.reduce(as_matrix(X, self.representation.n_features))
        )
