"""Fitted models as a folder: facts as JSON for people and programs to read, and the arrays beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.errors import InputError
from iv_pipeline.storage.tables import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from upath import UPath

FORMAT = 3
"""Raised when what is stored is read differently."""


@dataclass(frozen=True)
class StoredModel:
    """A fitted model as it is stored.

    Attributes
    ----------
    facts
        What it is, and what it was fitted on; JSON.
    arrays
        All that it takes to use it.
    fingerprint
        Of the data of the fit and of what was made of it; names the file with the arrays.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    fingerprint: str


def write_model(model: StoredModel, path: UPath) -> None:
    """Write `model`: its arrays, its facts under its version, and last the same facts to `path`.

    Until then the previous model is what `path` says; both stay, for later images may have been labelled by it.
    """
    version = version_of(model.fingerprint)
    arrays = path.with_name(f"arrays-{version}.npz")
    with replacing(arrays) as sink:
        np.savez(sink, allow_pickle=False, **model.arrays)
    facts = {"format": FORMAT, **model.facts, "fingerprint": model.fingerprint, "arrays": arrays.name}
    text = json.dumps(facts, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"
    for where in (path.with_name(f"model-{version}.json"), path):
        with replacing(where) as sink:
            sink.write(text)


def version_of(fingerprint: str) -> str:
    """What a model is called among those of its descriptor."""
    return fingerprint[:16]


def read_facts(path: UPath) -> dict[str, Any]:
    """What a model says of itself, without its arrays.

    Raises
    ------
    InputError
        If it is of another format, or damaged.
    """
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise InputError(
                f"{path} has the format {facts['format']}, this version reads {FORMAT}: materialise 'model' again"
            )
    except (KeyError, TypeError, json.JSONDecodeError, FileNotFoundError) as error:
        raise InputError(f"{path} is no model ({error}): materialise 'model' again") from error
    return facts


def read_model(path: UPath) -> StoredModel:
    """Read the model whose facts are at `path`; nothing in it is executed.

    Raises
    ------
    InputError
        If it is of another format, or damaged.
    """
    facts = read_facts(path)
    try:
        with (
            path.with_name(facts["arrays"]).open("rb") as source,
            np.load(source, allow_pickle=False) as stored,
        ):
            return StoredModel(facts, dict(stored), facts["fingerprint"])
    except (KeyError, FileNotFoundError) as error:
        raise InputError(f"{path} is no model ({error}): materialise 'model' again") from error
