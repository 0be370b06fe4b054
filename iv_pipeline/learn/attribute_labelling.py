"""What people taught about images as something that labels new ones, by several descriptors at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from iv_pipeline.errors import InputError
from iv_pipeline.learn.attributes import predict_values
from iv_pipeline.learn.rows import as_matrix
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.learn.verdict import NO_VECTOR, UNUSUAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from iv_pipeline.engine import BatchedMatrix
    from iv_pipeline.learn.attribute_classifier import AttributeClassifier
    from iv_pipeline.learn.joint_features import JointFeatures
    from iv_pipeline.learn.labelling import Labeller
    from iv_pipeline.learn.rows import Vectors

UNUSABLE = "unusable: no descriptor has a usable vector"
UNKNOWN = "unknown: far from every image of the fit in every descriptor"


@dataclass(frozen=True)
class AttributeModel:
    """Attributes of images by the joint features of their vectors.

    Attributes
    ----------
    joint
        Turns raw vectors of several descriptors into joint features.
    classifiers
        Classifier of each attribute; None before any answer.
    """

    joint: JointFeatures
    classifiers: Mapping[str, AttributeClassifier | None]

    def label(
        self, matrices: Mapping[str, BatchedMatrix], labels: Mapping[str, pd.DataFrame]
    ) -> pd.DataFrame:
        """Attributes, verdict and status of images whose descriptors have been labelled each by itself.

        Parameters
        ----------
        matrices
            Raw vectors by descriptor, each ``(n_rows, n_features_of_descriptor)``; descriptors of the fit that
            are missing say nothing.
        labels
            What the labeller of each of these descriptors says of the same rows (`Labeller.label`).

        Returns
        -------
        pandas.DataFrame
            See `AttributeLabeller.label`.

        Raises
        ------
        InputError
            If a descriptor has no joint features, or other vectors than those of the fit.
        """
        self.require(matrices)
        for name, matrix in matrices.items():
            if not self.takes(name, matrix.shape[1]):
                raise InputError(
                    f"the joint features are not of vectors of {name} with {matrix.shape[1]:,} features",
                    fix="materialize 'joint_features' and 'groups' again",
                )
        components = {}
        for name, matrix in matrices.items():
            components[name] = self.joint.reductions[name].components(matrix)
            components[name][_says(labels[name], "unusable")] = np.nan
        X = self.joint.join(components)
        usable = finite_rows(X)
        refused = [_says(frame, "unknown") | _says(frame, "unusable") for frame in labels.values()]
        known = usable & ~np.logical_and.reduce(refused)
        columns: dict[str, Any] = {}
        for name, classifier in self.classifiers.items():
            value, confidence = predict_values(classifier, X, known)
            columns |= {name: value, f"{name}_confidence": confidence}
        columns |= {
            "is_outlier": np.logical_or.reduce([frame["is_outlier"].to_numpy() for frame in labels.values()]),
            "outlier_score": np.maximum.reduce([f["outlier_score"].to_numpy() for f in labels.values()]),
            "reasons": _reasons(labels),
            "status": np.select([~usable, ~known], [UNUSABLE, UNKNOWN], "ok").astype(object),
        }
        return pd.DataFrame(columns)

    def takes(self, descriptor: str, n_features: int) -> bool:
        """Whether the joint features are of that descriptor, with vectors of that length."""
        reduction = self.joint.reductions.get(descriptor)
        return reduction is not None and reduction.n_features == n_features

    def require(self, descriptors: Iterable[str]) -> None:
        """Refuse descriptors that the joint features are not of.

        Raises
        ------
        InputError
            If there are any.
        """
        if others := [name for name in descriptors if name not in self.joint.reductions]:
            raise InputError(
                f"{others[0]} has no joint features, as combinations have none",
                fix=f"choose some of {', '.join(self.joint.reductions)}",
            )


@dataclass(frozen=True)
class AttributeLabeller:
    """Labels images by the raw vectors of several descriptors with what people taught about others.

    Attributes
    ----------
    labellers
        Labeller of each descriptor, which judges its vectors.
    model
        Attributes by all of them.
    """

    labellers: Mapping[str, Labeller]
    model: AttributeModel

    def label(self, X: Mapping[str, Vectors]) -> pd.DataFrame:
        """The answer for each image: the columns of `Final/attributes.csv`.

        Parameters
        ----------
        X
            Raw vectors by descriptor, of the same images in the same order; as for `Labeller.label`. Descriptors
            may be left out, but not all of them.

        Returns
        -------
        pandas.DataFrame
            One row per image: every attribute and its confidence; `is_outlier`, if the vector of one descriptor
            is unusual or unusable; `outlier_score`, the largest of the descriptors; `reasons` in words;
            `status`: ``ok``, ``unknown: ...`` if every descriptor says so, or ``unusable: ...``.

        Raises
        ------
        InputError
            If a descriptor is not one of these, none is there, or they have different numbers of rows.
        """
        names = ", ".join(self.labellers)
        if not X or (others := [name for name in X if name not in self.labellers]):
            what = f"{others[0]!r} is none of the descriptors" if X else "there are no vectors"
            raise InputError(what, fix=f"give vectors of some of {names}")
        matrices = {
            name: as_matrix(vectors, self.labellers[name].representation.n_features)
            for name, vectors in X.items()
        }
        if len({matrix.shape[0] for matrix in matrices.values()}) > 1:
            rows = ", ".join(f"{matrix.shape[0]:,} of {name}" for name, matrix in matrices.items())
            raise InputError(
                f"descriptors have different numbers of vectors: {rows}", fix="give one per image"
            )
        labels = {name: self.labellers[name].label(matrix) for name, matrix in matrices.items()}
        return self.model.label(matrices, labels)


def _says(labels: pd.DataFrame, status: str) -> NDArray[np.bool_]:
    """Rows whose status begins with a word, shape ``(n_rows,)``."""
    says: NDArray[np.bool_] = labels["status"].str.startswith(status).to_numpy(bool)
    return says


def _reasons(labels: Mapping[str, pd.DataFrame]) -> NDArray[np.object_]:
    """Why each row is an outlier, empty if it is none, shape ``(n_rows,)``."""
    unusable = {name: _says(frame, "unusable") for name, frame in labels.items()}
    unusual = {name: frame["is_outlier"].to_numpy() & ~unusable[name] for name, frame in labels.items()}
    reasons = np.full(len(next(iter(labels.values()))), "", object)
    for row in np.flatnonzero(np.logical_or.reduce([*unusable.values(), *unusual.values()])):
        kinds = {NO_VECTOR: unusable, UNUSUAL: unusual}
        found = {kind: [name for name in labels if is_so[name][row]] for kind, is_so in kinds.items()}
        reasons[row] = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items() if names)
    return reasons
