"""Label new images with what a finished run has learnt, from a notebook or a script.

>>> from iv_pipeline.labelling import load_labeller
>>> labeller = load_labeller("data", "vdc_type")
>>> cluster, confidence = labeller.predict(vectors)
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.learn.clustering import Attachment, NeighborModel
from iv_pipeline.learn.labelling import Labeller, labels_of, rule_from_arrays
from iv_pipeline.learn.pca import unpack_maps
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.formats import read_arrays
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import VectorTable, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MODELS_KEY = b"iv_pipeline.models"
"""Under which the table of clusters keeps what made them, as an ``npz`` file: ``<algorithm>/<array>``."""


def pack_models(
    rules: Mapping[str, Mapping[str, NDArray[Any]]], numbers: Mapping[str, NDArray[np.int32]], winner: str
) -> dict[bytes, bytes]:
    """Metadata for the table of clusters.

    Parameters
    ----------
    rules
        Of each algorithm, as made by `iv_pipeline.learn.labelling.rule_to_arrays`.
    numbers
        Of each algorithm, the cluster behind each of its labels.
    winner
        The algorithm behind the column `cluster`.
    """
    arrays = {f"{name}/{key}": value for name, rule in rules.items() for key, value in rule.items()}
    arrays |= {f"{name}/numbers": value for name, value in numbers.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, winner=np.array(winner), **arrays)
    return {MODELS_KEY: file.getvalue()}


def load_labeller(
    data_root: str | Path | UPath, descriptor: str, algorithm: str | None = None, seed: int = 0
) -> Labeller:
    """What labels new images by `descriptor`, from the files of the last run.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    descriptor
        Name of a descriptor or combination; new vectors of a combination are its blocks side by side.
    algorithm
        Its labels, as in the column ``label_<algorithm>`` of the clusters; None for those of the winner, which
        are the clusters of the Final CSV.
    seed
        Of the search for neighbours, where the clusters are those of a density method.

    Raises
    ------
    InputError
        If that descriptor has not been clustered there, or not by that algorithm.
    """
    root = UPath(data_root)
    path = root / file_of("clusters", descriptor)
    if not path.exists():
        raise InputError(f"{path} is not there: run the pipeline for {descriptor} first")
    table = read_table(path)
    models = _unpack(table, path, descriptor)
    name = algorithm or str(models["winner"])
    prefix = f"{name}/"
    arrays = {key.removeprefix(prefix): value for key, value in models.items() if key.startswith(prefix)}
    if not arrays:
        known = ", ".join(sorted({key.partition("/")[0] for key in models if "/" in key}))
        raise InputError(f"{path} has no clusters by {name!r}, only by {known}")
    rule, numbers = rule_from_arrays(arrays), arrays["numbers"]
    pca = unpack_maps(read_arrays(root / file_of("pca", descriptor)))[table.vector_columns[0]]
    if not isinstance(rule, Attachment):
        return Labeller(pca, rule, numbers)
    core = read_arrays(root / file_of("hierarchy", descriptor))["core_distances"]
    X = table.vectors(table.vector_columns[0]).to_array()
    usable = finite_rows(X)
    cluster = table.column("cluster" if algorithm is None else f"label_{algorithm}").to_numpy()[usable]
    model = NeighborModel(X[usable], labels_of(cluster, numbers), core, rule, seed)
    return Labeller(pca, model, numbers)


def _unpack(table: VectorTable, path: UPath, descriptor: str) -> dict[str, NDArray[Any]]:
    metadata = table.schema.metadata or {}
    if MODELS_KEY not in metadata:
        raise InputError(
            f"{path} was written by an earlier version: materialise clusters of {descriptor} again"
        )
    with np.load(io.BytesIO(metadata[MODELS_KEY]), allow_pickle=False) as stored:
        return dict(stored)
