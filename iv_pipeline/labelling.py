"""Label new images with what a finished run has learnt, from a notebook or a script.

>>> from iv_pipeline.labelling import load_labeller
>>> labeller = load_labeller("data", "vdc_type")
>>> labels = labeller.label(vectors)
>>> labeller = load_labeller("data", ["vdc_type", "vdc_color"])
>>> answers = labeller.label({"vdc_type": types, "vdc_color": colors})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from upath import UPath

from iv_pipeline.answering import fit_answers, fit_of_joint, read_asked, read_fit_tables
from iv_pipeline.errors import InputError
from iv_pipeline.learn.attribute_labelling import AttributeLabeller, AttributeModel
from iv_pipeline.learn.clustering import Attachment, NeighborModel
from iv_pipeline.learn.labelling import Labeller, rule_from_arrays
from iv_pipeline.learn.novelty import Novelty
from iv_pipeline.learn.representation import Interpolation, Placement, Reduction, unpack_fit
from iv_pipeline.learn.validity import ValidityRule
from iv_pipeline.storage.answers import given_names
from iv_pipeline.storage.hand_off import attributes_in
from iv_pipeline.storage.layout import MODEL, file_of
from iv_pipeline.storage.models import StoredModel, read_model
from iv_pipeline.storage.versions import known_versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from iv_pipeline.storage.answers import Values

VECTORS, NOVELTY, ROWS, REFERENCE, VALIDITY = "vectors", "novelty", "rows", "reference", "validity"
"""Arrays of a stored model under these prefixes turn raw vectors into those that were clustered, say how far out
a row lies, hold the rows of the fit that density methods attach others to, say what its images look like, to
measure the drift of later ones, and which vectors are usable. Under the name of an algorithm
lies what gives its labels, and ``numbers``: which label is which number in ``label_<algorithm>``; ``numbers``
without a prefix says the same of the column ``cluster``."""


@overload
def load_labeller(
    data_root: str | Path | UPath,
    descriptor: str,
    algorithm: str | None = None,
    version: int | None = None,
) -> Labeller: ...


@overload
def load_labeller(
    data_root: str | Path | UPath,
    descriptor: list[str] | tuple[str, ...],
    *,
    version: int | None = None,
) -> AttributeLabeller: ...


def load_labeller(
    data_root: str | Path | UPath,
    descriptor: str | list[str] | tuple[str, ...],
    algorithm: str | None = None,
    version: int | None = None,
) -> Labeller | AttributeLabeller:
    """What labels new images by one descriptor, or answers about them by several, as the last fit has learnt it.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    descriptor
        Name of a descriptor or combination; new vectors of a combination are its blocks side by side. A list of
        descriptors for attributes and one verdict by all of them, learned from the answers in `Names`.
    algorithm
        Its labels, as in the column ``label_<algorithm>`` of the clusters; None for the clusters of the Final
        CSV. Of a single descriptor.
    version
        Of the set of models, as batches name it in `model_version`; None for the last fit, which is the one in
        force, unless a person has made it and `accepted_models` has not followed yet. Attributes are always
        learned from the last fit, to whose clusters and groups `Names` refers.

    Raises
    ------
    InputError
        If there is no model of that descriptor, no such version, or no such algorithm in it; for several, also
        if there is none in the list, or there are no joint features or attributes yet.
    """
    root = UPath(data_root)
    if not isinstance(descriptor, str):
        if not descriptor or algorithm is not None:
            what = "algorithms are of a single descriptor" if descriptor else "there are no descriptors"
            raise InputError(what, fix="name one descriptor, or several and no algorithm")
        return _load_attribute_labeller(root, descriptor, version)
    labeller = unpack_labeller(read_model(model_path(root, descriptor, version)), algorithm)
    return labeller if algorithm else labeller.named(given_names(root, descriptor))


def _load_attribute_labeller(
    root: UPath, descriptors: list[str] | tuple[str, ...], version: int | None
) -> AttributeLabeller:
    stored = {name: read_model(model_path(root, name, version)) for name in descriptors}
    attributes = dict.fromkeys(attributes_in(root / file_of("attributes")))
    with_models = sorted(path.parent.name for path in root.glob(file_of("model", "*")))
    model = load_attribute_model(root, attributes, with_models, int(stored[descriptors[0]].facts["seed"]))
    if model is None:
        raise InputError(
            "is not there, or made by an earlier version",
            where=root / file_of("joint_features"),
            fix="materialize 'joint_features' and 'groups'",
        )
    model.require(descriptors)
    return AttributeLabeller({name: unpack_labeller(of_one) for name, of_one in stored.items()}, model)


def load_attribute_model(
    data_root: UPath, attributes: Values, descriptors: Iterable[str], seed: int
) -> AttributeModel | None:
    """Attributes by joint features, learned from the answers so far; None if the fit has no joint features.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    attributes
        Attributes, and the values that each may have; None for any.
    descriptors
        Descriptors and combinations whose clusters answers may be about.
    seed
        Seed of the fit.

    Raises
    ------
    InputError
        If a file of answers is wrong.
    """
    fit = read_fit_tables(data_root, descriptors)
    if fit is None:
        return None
    asked = read_asked(data_root, attributes, fit, seed)
    return AttributeModel(fit_of_joint(fit.joint_features), fit_answers(asked, fit.joint_features))


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
