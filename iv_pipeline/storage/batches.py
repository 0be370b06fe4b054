"""Batches that came through the inbox: what each holds, and the labels that it was given."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from iv_pipeline.config import ATTRIBUTES
from iv_pipeline.errors import InputError
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.hand_off import read_csv, write_rows
from iv_pipeline.storage.layout import BATCH, BATCH_LABELS, file_of
from iv_pipeline.storage.tables import (
    IMAGE_PATH,
    VectorColumn,
    VectorTable,
    as_strings,
    as_vectors,
    read_table,
    remove,
    replacing,
    vector_type,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from upath import UPath

    from iv_pipeline.engine import BatchedMatrix
    from iv_pipeline.storage.image_store import ImageStore

DUPLICATE_OF = "duplicate_of"
"""Column with the path of the image that was known before and is the same; missing for new images."""
CONTENT = "content"
"""Column with what tells the content of an image, as its archive says."""
_INDEX, _IMAGES = "image_index.parquet", "images.zip"


@dataclass(frozen=True)
class StoredBatch:
    """One version of a batch, as it was kept when it was labelled; what lies in the inbox may go.

    Attributes
    ----------
    name
        Of its folder in the inbox.
    version
        Fingerprint of its content.
    folder
        Where its index, vectors and pictures lie.
    """

    name: str
    version: str
    folder: UPath

    @classmethod
    def of(cls, data_root: UPath, name: str, version: str) -> StoredBatch:
        """The version of a batch under `data_root`."""
        return cls(name, version, data_root / BATCH.format(batch=name, version=version))

    @cached_property
    def index(self) -> pd.DataFrame:
        """Every image, in the order of the batch, as an image index, and the column `duplicate_of`."""
        with (self.folder / _INDEX).open("rb") as source:
            return pd.read_parquet(source)

    @property
    def descriptors(self) -> list[str]:
        """Names of the descriptors that it came with."""
        return sorted(path.name.removesuffix(".arrow") for path in self.folder.glob("*.arrow"))

    def vectors(self, descriptor: str) -> VectorColumn:
        """Raw vectors of all images, in the same order."""
        return read_table(self.folder / f"{descriptor}.arrow").vectors("descriptor")

    def archive(self) -> ImageStore | None:
        """Its pictures; None if it came without."""
        path = self.folder / _IMAGES
        return ImageArchive.matching(path, self.index[IMAGE_PATH].to_list()) if path.is_file() else None

    def keep(
        self, index: pd.DataFrame, vectors: Mapping[str, BatchedMatrix], images: ImageStore | None
    ) -> None:
        """Keep what a batch in the inbox holds: its index, its vectors by descriptor and its images."""
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = as_strings(index[IMAGE_PATH])
        for name, matrix in vectors.items():
            write_table(_table(paths, matrix), self.folder / f"{name}.arrow")
        if images is not None:
            with replacing(self.folder / _IMAGES) as sink:
                images.pack(index[IMAGE_PATH], sink)
        with replacing(self.folder / _INDEX) as sink:
            index.to_parquet(sink, index=False)


def _table(paths: pa.StringArray, matrix: BatchedMatrix) -> VectorTable:
    schema = pa.schema([(IMAGE_PATH, pa.string()), ("descriptor", vector_type(matrix.shape[1]))])
    rows = VectorTable.batch_rows

    def read(i: int) -> pa.RecordBatch:
        columns = [paths.slice(i * rows, rows), as_vectors(matrix.batch(i))]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    return VectorTable(schema, len(paths), read, rows)


@dataclass(frozen=True)
class LabelledBatch:
    """Labels of a batch by each descriptor, and how they came about.

    Attributes
    ----------
    facts
        `batch`, `fingerprint` of its content, `model_version`, `descriptors` that labelled it, and what else was
        found; JSON.
    labels
        By descriptor: one row an image, as a Final CSV, and `duplicate_of`, `model_version`.
    attributes
        The answer for every image, as `Final/attributes.csv`, and the same two columns; None if the fit has no
        joint features.
    """

    facts: Mapping[str, Any]
    labels: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    attributes: pd.DataFrame | None = None

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """What is written as CSVs, by their names: labels by descriptor and the answers."""
        answers = {} if self.attributes is None else {ATTRIBUTES: self.attributes}
        return {**self.labels, **answers}


def kept_versions(data_root: UPath, name: str) -> list[str]:
    """Versions of a batch that are kept, the oldest first."""
    folder = (data_root / BATCH.format(batch=name, version="_")).parent
    kept = [path for path in folder.iterdir() if (path / _INDEX).exists()] if folder.is_dir() else []
    return [path.name for path in sorted(kept, key=_kept_at)]


def forget_contents(data_root: UPath, name: str, needed: Collection[str], keep: int) -> list[str]:
    """Remove contents that a batch had before; their versions.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    name
        Of the batch.
    needed
        Versions that stay: what the labels are of, and what has joined the fit set.
    keep
        Further ones that stay, the latest.
    """
    folder = (data_root / BATCH.format(batch=name, version="_")).parent
    others = [path for path in folder.iterdir() if path.name not in needed] if folder.is_dir() else []
    others.sort(key=_kept_at)
    forgotten = others[: max(len(others) - keep, 0)]
    for path in forgotten:
        remove(path)
    return [path.name for path in forgotten]


def _kept_at(folder: UPath) -> float:
    """When a version was kept: folders themselves have no times everywhere."""
    index = folder / _INDEX
    return float(index.stat().st_mtime) if index.exists() else 0.0


def write_labelled(batch: LabelledBatch, path: UPath) -> None:
    """Write the CSVs of a batch and its facts, which come last to `path`; files take their places together.

    CSVs that what it holds now lacks are removed: they would tell of something else.
    """
    tables = batch.tables
    with contextlib.ExitStack() as files:
        facts = files.enter_context(replacing(path))  # entered first, it takes its place last
        facts.write(json.dumps(batch.facts, indent=2, ensure_ascii=False).encode("utf-8") + b"\n")
        for name, frame in tables.items():
            sink = files.enter_context(replacing(_csv(path, name)))
            write_rows(frame, sink)
    for stale in path.parent.glob("*.csv"):
        if stale.name not in {_csv(path, name).name for name in tables}:
            stale.unlink()


def read_labelled(path: UPath) -> LabelledBatch:
    """The inverse of `write_labelled`."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    labels = {name: read_csv(_csv(path, name)) for name in facts["descriptors"]}
    has_answers = facts.get("attributes") is not None  # an earlier version wrote none
    return LabelledBatch(facts, labels, read_csv(_csv(path, ATTRIBUTES)) if has_answers else None)


def _csv(path: UPath, name: str) -> UPath:
    name = BATCH_LABELS.format(batch="", descriptor=name).rpartition("/")[2]
    return path.with_name(name)


def new_rows(index: pd.DataFrame) -> NDArray[np.bool_]:
    """Which images of a batch were not known before, shape ``(n_images,)``."""
    new: NDArray[np.bool_] = index[DUPLICATE_OF].isna().to_numpy()
    return new


def labelled_facts(data_root: UPath) -> list[dict[str, Any]]:
    """Facts of every labelled batch, in the order in which they were labelled.

    Raises
    ------
    InputError
        If those of a batch are damaged.
    """
    files = sorted((data_root / file_of("labelled_batch", "*")).parent.parent.glob("*/batch.json"))
    return sorted(map(_facts, files), key=lambda f: (f["labelled_at"], f["batch"]))


def _facts(file: UPath) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if missing := {"batch", "labelled_at", "fingerprint"} - facts.keys():
            raise ValueError(f"lacks {', '.join(sorted(missing))}")  # noqa: TRY301  (damaged all the same)
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"is damaged ({error})", where=file, fix="remove it, and its batch is labelled again"
        ) from None
    return facts
