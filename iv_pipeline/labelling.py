"""Label new images with what a finished run has learnt, from a notebook or a script.

>>> from iv_pipeline.labelling import load_labeller
>>> labeller = load_labeller("data", "vdc_type")
>>> labels = labeller.label(vectors)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.learn.clustering import Attachment, NeighborModel
from iv_pipeline.learn.labelling import Labeller, rule_from_arrays
from iv_pipeline.learn.novelty import Novelty
from iv_pipeline.learn.representation import Interpolation, Placement, Reduction, unpack_fit
from iv_pipeline.learn.validity import ValidityRule
from iv_pipeline.storage.answers import given_names
from iv_pipeline.storage.layout import MODEL, file_of
from iv_pipeline.storage.models import StoredModel, read_model
from iv_pipeline.storage.versions import known_versions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

VECTORS, NOVELTY, ROWS, REFERENCE, VALIDITY = "vectors", "novelty", "rows", "reference", "validity"
"""Arrays of a stored model under these prefixes turn raw vectors into those that were clustered, say how far out
a row lies, hold the rows of the fit that density methods attach others to, say what its images look like, to
measure the drift of later ones, and which vectors are usable. Under the name of an algorithm
lies what gives its labels, and ``numbers``: which label is which number in ``label_<algorithm>``; ``numbers``
without a prefix says the same of the column ``cluster``."""


def load_labeller(
    data_root: str | Path | UPath,
    descriptor: str,
    algorithm: str | None = None,
    version: int | None = None,
) -> Labeller:
    """What labels new images by `descriptor`, as the last fit has learnt it.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    descriptor
        Name of a descriptor or combination; new vectors of a combination are its blocks side by side.
    algorithm
        Its labels, as in the column ``label_<algorithm>`` of the clusters; None for the clusters of the Final
        CSV.
    version
        Of the set of models, as batches name it in `model_version`; None for the last fit, which is the one in
        force, unless a person has made it and `accepted_models` has not followed yet.

    Raises
    ------
    InputError
        If there is no model of that descriptor, no such version, or no such algorithm in it.
    """
    root = UPath(data_root)
    labeller = unpack_labeller(read_model(model_path(root, descriptor, version)), algorithm)
    return labeller if algorithm else labeller.named(given_names(root, descriptor))


def model_path(data_root: UPath, descriptor: str, version: int | None = None) -> UPath:
    """Where the model is that labels by `descriptor`; for `version` see `load_labeller`.

    Raises
    ------
    InputError
        If there is none.
    """
    path = data_root / file_of("model", descriptor)
    if version is not None:
        models = known_versions(data_root).get(version)
        if models is None or descriptor not in models.models:
            raise InputError(
                f"version {version} has no model of {descriptor}", fix="choose another, or leave it out"
            )
        path = data_root / MODEL.format(descriptor=descriptor, version=models.models[descriptor])
    if not path.exists():
        raise InputError("is not there", where=path, fix=f"run the pipeline for {descriptor} first")
    return path


def unpack_labeller(stored: StoredModel, algorithm: str | None = None) -> Labeller:
    """A stored model, ready to use; for `algorithm` see `load_labeller`.

    Raises
    ------
    InputError
        If there is no such algorithm.
    """
    facts, seed = stored.facts, int(stored.facts["seed"])
    name = algorithm or str(facts["algorithm"])
    if name not in facts["algorithms"]:
        known = ", ".join(facts["algorithms"])
        raise InputError(
            f"the model of {facts['descriptor']} has no clusters by {name!r}", fix=f"choose one of {known}"
        )
    arrays = arrays_of(stored.arrays, name)
    rule = rule_from_arrays(arrays)
    rows = arrays_of(stored.arrays, ROWS)
    return Labeller(
        _representation(arrays_of(stored.arrays, VECTORS), seed),
        NeighborModel(rows["vectors"], arrays["labels_of_rows"], rows["core_distances"], rule, seed)
        if isinstance(rule, Attachment)
        else rule,
        stored.arrays["numbers"] if algorithm is None else arrays["numbers"],
        Novelty.from_arrays(arrays_of(stored.arrays, NOVELTY)),
        {int(number): text for number, text in facts["names"].items()} if algorithm is None else {},
        ValidityRule.from_arrays(arrays_of(stored.arrays, VALIDITY)),
    )


def _representation(arrays: Mapping[str, NDArray[Any]], seed: int) -> Reduction | Placement:
    """What turns raw vectors of new images into the vectors that were clustered."""
    reduction, parts = unpack_fit(arrays)
    if not parts:
        return reduction
    return Placement(reduction, Interpolation(parts, arrays["source"], arrays["embedding"], seed=seed))


def arrays_of(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Those under a prefix, by their names without it."""
    return {k.removeprefix(f"{prefix}/"): v for k, v in arrays.items() if k.startswith(f"{prefix}/")}


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The inverse of `arrays_of`."""
    return {f"{prefix}/{key}": value for key, value in arrays.items()}
