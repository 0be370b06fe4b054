"""Label new images with what a finished run has learnt, from a notebook or a script.

>>> from iv_pipeline.labelling import load_labeller
>>> labeller = load_labeller("data", "vdc_type")
>>> cluster, confidence = labeller.predict(vectors)
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.learn.clustering import Attachment, NeighborModel
from iv_pipeline.learn.labelling import Labeller, labels_of, rule_from_arrays
from iv_pipeline.learn.representation import Affine, Placement, pack_fit, unpack_fit
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import VectorTable, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from iv_pipeline.learn.pca import PCA

VECTORS = "vectors"
MODELS_KEY = b"iv_pipeline.models"
"""Under which the table of clusters keeps what made them, as an ``npz`` file.

``vectors/<array>`` turns raw vectors into those that were clustered, ``<algorithm>/<array>`` gives them labels,
and ``<algorithm>/numbers`` says which label is which number in the column ``label_<algorithm>``; ``winner`` names
the algorithm behind the column ``cluster``, and ``numbers`` those of its labels there, which a refit takes over
from the fit before.
"""
REPRESENTATION = "representation"
"""Column of the vectors that were clustered, where they are not the scaled principal components themselves."""
SOURCE = "source"
"""Column of what landmarks were embedded from: other images are placed between their neighbours in it."""
CORE_DISTANCE = "core_distance"
"""Column of the table of clusters that density methods attach new images by."""


@dataclass(frozen=True)
class FittedAlgorithm:
    """What one algorithm made of the rows of a fit.

    Attributes
    ----------
    rule
        As made by `iv_pipeline.learn.labelling.rule_to_arrays`.
    numbers
        Number in the column ``label_<algorithm>`` of each of its labels, shape ``(n_labels,)``, int32.
    """

    rule: Mapping[str, NDArray[Any]]
    numbers: NDArray[np.int32]


def pack_models(
    fit: tuple[PCA, list[int]], fitted: Mapping[str, FittedAlgorithm], winner: str, numbers: NDArray[np.int32]
) -> dict[bytes, bytes]:
    """Metadata for the table of clusters, which so holds all that it takes to label other images.

    Parameters
    ----------
    fit
        What turns raw vectors into those that were clustered, as for `iv_pipeline.learn.representation.pack_fit`.
    fitted
        By algorithm.
    winner
        The algorithm behind the column `cluster`.
    numbers
        Number in that column of each of its labels.
    """
    arrays = {f"{VECTORS}/{key}": value for key, value in pack_fit(*fit).items()}
    for name, algorithm in fitted.items():
        arrays |= {f"{name}/{key}": value for key, value in algorithm.rule.items()}
        arrays[f"{name}/numbers"] = algorithm.numbers
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, winner=np.array(winner), numbers=numbers, **arrays)
    return {MODELS_KEY: file.getvalue()}


def load_labeller(
    data_root: str | Path | UPath, descriptor: str, algorithm: str | None = None, seed: int = 0
) -> Labeller:
    """What labels new images by `descriptor`, from the clusters of the last run.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    descriptor
        Name of a descriptor or combination; new vectors of a combination are its blocks side by side.
    algorithm
        Its labels, as in the column ``label_<algorithm>`` of the clusters; None for the clusters of the Final
        CSV.
    seed
        Of the search for neighbours, where the clusters are those of a density method.

    Raises
    ------
    InputError
        If that descriptor has not been clustered there, or not by that algorithm.
    """
    path = UPath(data_root) / file_of("clusters", descriptor)
    if not path.exists():
        raise InputError(f"{path} is not there: run the pipeline for {descriptor} first")
    table = read_table(path)
    models = _unpack(table, path, descriptor)
    name = algorithm or str(models["winner"])
    arrays = _of(models, name)
    if not arrays or name == VECTORS:
        known = ", ".join(sorted({key.partition("/")[0] for key in models if "/" in key} - {VECTORS}))
        raise InputError(f"{path} has no clusters by {name!r}, only by {known}")
    rule = rule_from_arrays(arrays)
    model = _attaching(table, name, rule, arrays["numbers"], seed) if isinstance(rule, Attachment) else rule
    return Labeller(
        _representation(table, *unpack_fit(_of(models, VECTORS)), seed),
        model,
        models["numbers"] if algorithm is None else arrays["numbers"],
    )


def _unpack(table: VectorTable, path: UPath, descriptor: str) -> dict[str, NDArray[Any]]:
    metadata = table.schema.metadata or {}
    if MODELS_KEY not in metadata:
        raise InputError(
            f"{path} was written by an earlier version: materialise clusters of {descriptor} again"
        )
    with np.load(io.BytesIO(metadata[MODELS_KEY]), allow_pickle=False) as stored:
        return dict(stored)


def _of(models: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in models.items() if key.startswith(prefix)}


def _clustered_column(table: VectorTable) -> str:
    return REPRESENTATION if REPRESENTATION in table.vector_columns else table.vector_columns[0]


def _representation(table: VectorTable, pca: PCA, parts: list[int], seed: int) -> Affine | Placement:
    """What turns raw vectors of new images into the vectors that were clustered."""
    if not parts:
        return Affine(pca)
    embedding, source = (table.vectors(name).to_array() for name in (_clustered_column(table), SOURCE))
    landmarks = finite_rows(source)
    return Placement(pca, parts, source[landmarks], embedding[landmarks], seed=seed)


def _attaching(
    table: VectorTable, algorithm: str, rule: Attachment, numbers: NDArray[np.int32], seed: int
) -> NeighborModel:
    """The rows of the fit with their labels, as a model."""
    X = table.vectors(_clustered_column(table)).to_array()
    usable = finite_rows(X)
    labels = labels_of(table.column(f"label_{algorithm}").to_numpy()[usable], numbers)
    return NeighborModel(X[usable], labels, table.column(CORE_DISTANCE).to_numpy()[usable], rule, seed)
