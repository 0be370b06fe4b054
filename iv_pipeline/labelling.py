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
from iv_pipeline.learn.labelling import Labeller, rule_from_arrays
from iv_pipeline.learn.pca import unpack_maps
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.formats import read_arrays
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import VectorTable, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MODEL_KEY = b"iv_pipeline.model"
"""Under which the table of clusters keeps the rule that made them, as an ``npz`` file."""


def pack_model(rule: Mapping[str, NDArray[Any]], numbers: NDArray[np.int32]) -> dict[bytes, bytes]:
    """Metadata for the table of clusters: `iv_pipeline.learn.labelling.rule_to_arrays`, and the numbers."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, numbers=numbers, **rule)
    return {MODEL_KEY: file.getvalue()}


def load_labeller(data_root: str | Path | UPath, descriptor: str, seed: int = 0) -> Labeller:
    """What labels new images by `descriptor`, from the files of the last run.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    descriptor
        Name of a descriptor or combination; new vectors of a combination are its blocks side by side.
    seed
        Of the search for neighbours, where the clusters are those of a density method.

    Raises
    ------
    InputError
        If that descriptor has not been clustered there.
    """
    root = UPath(data_root)
    path = root / file_of("clusters", descriptor)
    if not path.exists():
        raise InputError(f"{path} is not there: run the pipeline for {descriptor} first")
    table = read_table(path)
    metadata = table.schema.metadata or {}
    if MODEL_KEY not in metadata:
        raise InputError(
            f"{path} was written by an earlier version: materialise clusters of {descriptor} again"
        )
    with np.load(io.BytesIO(metadata[MODEL_KEY]), allow_pickle=False) as stored:
        arrays = dict(stored)
    rule = rule_from_arrays(arrays)
    scaler = table.vector_columns[0]
    pca = unpack_maps(read_arrays(root / file_of("pca", descriptor)))[scaler]
    if not isinstance(rule, Attachment):
        return Labeller(pca, rule, arrays["numbers"])
    core = read_arrays(root / file_of("hierarchy", descriptor))["core_distances"]
    return Labeller(pca, *_neighbor_model(table, rule, arrays["numbers"], core, seed))


def _neighbor_model(
    table: VectorTable,
    rule: Attachment,
    numbers: NDArray[np.int32],
    core: NDArray[np.float32],
    seed: int,
) -> tuple[NeighborModel, NDArray[np.int32]]:
    """The points of the fit with their clusters, as a model, and the numbers of its labels."""
    X = table.vectors(table.vector_columns[0]).to_array()
    usable = finite_rows(X)
    cluster = table.column("cluster").to_numpy()[usable]
    label = np.full(int(cluster.max(initial=-1)) + 2, -1, np.int32)  # the last one answers for noise, −1
    label[numbers] = np.arange(len(numbers))
    return NeighborModel(X[usable], label[cluster], core, rule, seed), numbers
