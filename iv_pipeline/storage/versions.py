"""Sets of models that were accepted: one is in force, and earlier ones can be put back with their results.

The file ``Models/accepted.json`` names the version in force, its model of each descriptor, and the batches that
had joined the fit set. It is replaced as a whole: whoever reads it once has models that belong together.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iv_pipeline.errors import InputError
from iv_pipeline.storage.formats import read_json, write_json
from iv_pipeline.storage.layout import BATCH, CANDIDATE, FILES, MODEL, MODEL_SET, NAMES, file_of
from iv_pipeline.storage.tables import is_local, remove, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from upath import UPath

REBUILT = ("init", "scaled", "scaled_pca", "neighbors", "hierarchy", "clustered", "report")
"""Stages whose files are large or follow from others: versions do not keep them."""
_NOT_OF_A_FIT = ("accepted_models", "labelled_batch", "drift", "refits")
KEPT = tuple(stage for stage in FILES if stage not in (*REBUILT, *_NOT_OF_A_FIT))
"""Stages whose files every version keeps."""
_SET = "set.json"
_PROMOTED = "promoted.json"
"""Is in the candidate's folder from when it was accepted until all of its files have taken their places."""
_ROLLBACK = "Models/rollback.json"
"""Is there until a rollback is done."""
_LINKED = tuple(path.partition("{")[0] for path in (NAMES, BATCH))
"""What a candidate only reads: it stays where it is."""


@dataclass(frozen=True)
class ModelSet:
    """Models that were accepted together.

    Attributes
    ----------
    version
        Counted from 1.
    models
        Version of the model of each descriptor.
    batches
        Name and version of each batch that had joined the fit set, in the order in which they joined.
    """

    version: int
    models: Mapping[str, str]
    batches: tuple[tuple[str, str], ...] = ()

    def to_facts(self) -> dict[str, Any]:
        """As JSON has it."""
        batches = [{"batch": name, "version": version} for name, version in self.batches]
        return {"version": self.version, "models": dict(sorted(self.models.items())), "batches": batches}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> ModelSet:
        """The inverse of `to_facts`."""
        batches = tuple((batch["batch"], batch["version"]) for batch in facts["batches"])
        return cls(facts["version"], facts["models"], batches)

    def says_the_same(self, other: ModelSet) -> bool:
        """Whether it is the same fit, whatever its version."""
        return dict(self.models) == dict(other.models) and self.batches == other.batches


def accepted(data_root: UPath) -> ModelSet | None:
    """The set in force; None if none has been accepted yet.

    Raises
    ------
    InputError
        If the file that names it is damaged.
    """
    return _read(data_root / file_of("accepted_models"))


def known_versions(data_root: UPath) -> dict[int, ModelSet]:
    """Every set that was ever accepted and is still known, by its version."""
    folder = (data_root / MODEL_SET.format(version=0)).parent
    found = [_read(path) for path in folder.glob(f"*/{_SET}")] if folder.is_dir() else []
    return {known.version: known for known in sorted(filter(None, found), key=lambda known: known.version)}


def next_version(data_root: UPath) -> int:
    """The version that a set will have that is accepted now."""
    return max(known_versions(data_root), default=0) + 1


def accept(data_root: UPath, models: ModelSet) -> None:
    """Keep the results of the fit under its version, and last put its set in force."""
    remember(data_root, models)
    write_json(models.to_facts(), data_root / file_of("accepted_models"))


def remember(data_root: UPath, models: ModelSet) -> None:
    """Keep the results of the fit that lies under `data_root` as those of a version."""
    folder = data_root / MODEL_SET.format(version=models.version)
    folder.mkdir(parents=True, exist_ok=True)
    for relative in results(models.models):
        if (data_root / relative).exists():
            link(data_root / relative, folder / relative)
    write_json(models.to_facts(), folder / _SET)


def results(descriptors: Iterable[str]) -> list[str]:
    """The files of a fit that versions keep, relative to the data root."""
    names = list(descriptors)
    files = [file_of(stage, name) for stage in KEPT for name in names]
    return list(dict.fromkeys(files))  # stages without partitions have one file for all


def roll_back(data_root: UPath, version: int) -> ModelSet:
    """Put an earlier version back in force, with the results of its fit.

    Raises
    ------
    InputError
        If there is no such version, or its results are not kept any more.
    """
    known = known_versions(data_root)
    kept = [n for n in known if results_kept(data_root, n)]
    if version not in kept:
        what = "results are not kept any more" if version in known else "set of models does not exist"
        there = ", ".join(map(str, kept)) or "none"
        raise InputError(
            f"version {version} cannot be put back, its {what}", fix=f"choose one of those kept, {there}"
        )
    write_json({"version": version}, data_root / _ROLLBACK)
    settle(data_root)
    return known[version]


def promote(data_root: UPath, models: ModelSet) -> None:
    """Let the files of the candidate take the places of the old ones, and last put `models` in force."""
    write_json(models.to_facts(), data_root / CANDIDATE / _PROMOTED)
    settle(data_root)


def settle(data_root: UPath) -> str:
    """Finish a promotion or a rollback that a process did not live to finish; what it was, empty if none was.

    Not while a refit or a rollback runs: it would be theirs.
    """
    if (data_root / CANDIDATE / _PROMOTED).exists():
        _finish_promotion(data_root)
        return "a refit that was accepted"
    if (data_root / _ROLLBACK).exists():
        _finish_rollback(data_root, int(read_json(data_root / _ROLLBACK)["version"]))
        return "a rollback"
    return ""


def _finish_promotion(data_root: UPath) -> None:
    root = data_root / CANDIDATE
    models = ModelSet.from_facts(read_json(root / _PROMOTED))
    stay = {_PROMOTED, file_of("accepted_models")}
    # the index last: who reads it meanwhile finds at least as many rows in the tables as it has
    for relative in sorted(files_below(root), key=lambda file: (file == file_of("image_index"), file)):
        if relative not in stay and not relative.startswith(_LINKED):
            _move(root / relative, data_root / relative)
    accept(data_root, models)
    (root / _PROMOTED).unlink()  # from here on it is done, whatever becomes of the rest
    remove(root)


def _finish_rollback(data_root: UPath, version: int) -> None:
    folder, models = data_root / MODEL_SET.format(version=version), known_versions(data_root)[version]
    before = accepted(data_root)
    for relative in results({*models.models, *(before.models if before else ())}):
        if (folder / relative).exists():
            link(folder / relative, data_root / relative)
        else:
            (data_root / relative).unlink(missing_ok=True)  # this fit had not made it
    write_json(models.to_facts(), data_root / file_of("accepted_models"))
    (data_root / _ROLLBACK).unlink(missing_ok=True)  # the sensor may have finished it meanwhile


def files_below(folder: UPath, prefix: str = "") -> Iterator[str]:
    """Files in a folder and the folders in it, relative to it."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files_below(path, f"{prefix}{path.name}/")
        else:
            yield f"{prefix}{path.name}"


def _move(source: UPath, target: UPath) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(source):
        source.fs.mv(source.path, target.path)
        return
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        link(source, target)  # a folder of the data root lies on another disk: a copy, as a whole
        source.unlink()


def results_kept(data_root: UPath, version: int) -> bool:
    """Whether a version can be put back."""
    folder = data_root / MODEL_SET.format(version=version)
    return read_json(folder / _SET).get("results_kept", True) and _has_results(folder)


def _has_results(folder: UPath) -> bool:
    return any(path.name != _SET for path in folder.iterdir())


def _close(folder: UPath) -> None:
    """Say that a version cannot be put back any more."""
    write_json({**read_json(folder / _SET), "results_kept": False}, folder / _SET)


def clean(
    data_root: UPath, current: ModelSet, before: ModelSet | None, keep: int, referred: Iterable[int]
) -> list[str]:
    """Remove what nothing needs any more; what it was, relative to the data root.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    current
        The set in force.
    before
        The one that was in force before it: batches are being labelled by its models still, and a person may want
        it back; its models stay in any case, its results if any do.
    keep
        Versions besides the one in force whose results stay, the latest ones and `before`.
    referred
        Versions that labelled batches: their models stay, whatever their age.
    """
    known = known_versions(data_root)
    last = [] if before is None else [before.version]
    earlier = [*(v for v in sorted(known) if v not in (current.version, *last)), *last]
    with_results = {current.version, *earlier[max(len(earlier) - keep, 0) :]}
    removed: list[str] = []
    for version in known:
        folder = data_root / MODEL_SET.format(version=version)
        if version not in with_results and _has_results(folder):
            _close(folder)  # first: with some of its files it would put back half a fit
            for path in [p for p in folder.iterdir() if p.name != _SET]:
                remove(path)
            removed.append(MODEL_SET.format(version=version))
    needed = [known[v] for v in known if v in {*with_results, *referred, *last}] + [current]
    for name in {name for models in known.values() for name in models.models}:
        kept = {models.models[name] for models in needed if name in models.models}
        folder = (data_root / file_of("model", name)).parent
        fitted = _read_fingerprint(folder)
        for path in sorted(folder.glob("model-*.json")):
            version_of_model = path.name.removeprefix("model-").removesuffix(".json")
            if version_of_model not in kept | {fitted}:
                for file in (path, path.with_name(f"arrays-{version_of_model}.npz")):
                    file.unlink(missing_ok=True)
                removed.append(MODEL.format(descriptor=name, version=version_of_model))
    return removed


def _read_fingerprint(folder: UPath) -> str:
    """Version of the model that was fitted last, whether accepted or not."""
    path = folder / "model.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["fingerprint"])[:16] if path.exists() else ""


def link(source: UPath, target: UPath) -> None:
    """Let `target` have the content of `source`, which takes no room on the same disk; it appears as a whole.

    Files are only ever replaced, never written into, so that neither changes with the other.
    """
    if is_local(source) and is_local(target):
        if target.exists() and Path(str(target)).samefile(str(source)):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.link")
        temporary.unlink(missing_ok=True)
        try:
            os.link(str(source), str(temporary))
        except OSError:  # another disk, or one that knows no links
            shutil.copyfile(str(source), str(temporary))
        temporary.replace(target)
        return
    with source.open("rb") as content, replacing(target) as sink:
        shutil.copyfileobj(content, sink)


def _read(path: UPath) -> ModelSet | None:
    if not path.exists():
        return None
    try:
        return ModelSet.from_facts(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"is damaged ({error})", where=path, fix="materialize 'accepted_models' again"
        ) from error
