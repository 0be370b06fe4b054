"""What a batch of the inbox holds: kept once, and compared with the images that are known."""

from collections.abc import Callable
from functools import cache, partial

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import open_batch, open_delivery
from iv_pipeline.config import Settings
from iv_pipeline.errors import ChangedBatchError, DeliveryError, InputError
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.batches import (
    CONTENT,
    DUPLICATE_OF,
    StoredBatch,
    forget_contents,
    labelled_facts,
    new_rows,
)
from iv_pipeline.storage.fit_set import FitSet, FitVectors, rows_of
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.inbox import fingerprint_of
from iv_pipeline.storage.known import Images, duplicates
from iv_pipeline.storage.layout import CANDIDATE, file_of
from iv_pipeline.storage.tables import IMAGE_PATH, read_table
from iv_pipeline.storage.versions import accepted, known_versions

CONTENT_TAG = "iv_pipeline/content"
"""Of a run: fingerprint of the batch that it is to label."""


def take_in(context: dg.AssetExecutionContext, settings: Settings, name: str) -> StoredBatch:
    """Keep what lies in the inbox, if it has not been kept; or what was kept, if the inbox has been cleared.

    Raises
    ------
    ChangedBatchError
        If it is not what the run is for, or changes while it is read.
    DeliveryError
        If there is nothing, or it cannot be used.
    """
    root, folder = settings.data_root, settings.inbox / name
    last = next((facts["fingerprint"] for facts in labelled_facts(root) if facts["batch"] == name), None)
    if not folder.is_dir():
        if last is None:
            raise DeliveryError(f"there is no batch {folder}: copy it there, and it is noticed")
        return StoredBatch.of(root, name, last)
    version = fingerprint_of(folder, settings.config.inbox.marker)
    if version != context.run.tags.get(CONTENT_TAG, version):
        raise ChangedBatchError(
            f"batch {folder} has changed since it was complete: nothing to do, it is labelled once it rests again"
        )
    batch = StoredBatch.of(root, name, version)
    # what has been labelled or has joined keeps its rows: they were compared with what was known then
    if version != last and (name, version) not in joined_contents(settings):
        _keep(settings, batch)
    return batch


def _keep(settings: Settings, batch: StoredBatch) -> None:
    """Keep index, vectors and pictures, and say which of the images are known already."""
    delivery = open_batch(settings, batch.name)
    try:
        descriptors = [d for d in settings.config.descriptors if delivery.has(d)]
        if not descriptors:
            files = ", ".join(delivery.files.values())
            raise DeliveryError(f"batch {delivery.folder} has none of {files}: deliver at least one of them")
        came = FitSet(delivery)
        index, archive = came.image_index(), came.archive()
        vectors = {d: came.vectors(d) for d in descriptors}
        new = Images(
            index, {d: partial(vectors.__getitem__, d) for d in descriptors}, _reader(lambda: archive)
        )
        index = index.assign(**{DUPLICATE_OF: duplicates(new, _known(settings, batch.name))})
        batch.keep(index, vectors, delivery.archive_file())
    except InputError as error:
        _require_unchanged(settings, batch, error)
        raise
    _require_unchanged(settings, batch)


def _require_unchanged(settings: Settings, batch: StoredBatch, error: InputError | None = None) -> None:
    folder = settings.inbox / batch.name
    if fingerprint_of(folder, settings.config.inbox.marker) != batch.version:
        raise ChangedBatchError(
            f"batch {folder} changed while it was read: it is labelled once it rests again"
        ) from error


def _known(settings: Settings, name: str) -> list[Images]:
    """The images of the fit set, and the new ones of other batches that have not joined it."""
    root = settings.data_root
    index = read_parquet(root / file_of("image_index"))
    if CONTENT not in index:
        index = index.assign(**{CONTENT: None})  # it was made by an earlier version
    read = _reader(lambda: _archive(settings))
    known = [Images(index, {}, read), *_with_vectors(settings, index, read)]
    models = accepted(root)
    joined = set() if models is None else set(models.batches)
    for facts in labelled_facts(root):
        if facts["batch"] != name and (facts["batch"], facts["fingerprint"]) not in joined:
            batch = StoredBatch.of(root, facts["batch"], facts["fingerprint"])
            rows = new_rows(batch.index)
            came = {d: partial(_of_rows, batch, d, rows) for d in batch.descriptors}
            known.append(Images(batch.index[rows], came, _reader(batch.archive)))
    return known


def _of_rows(batch: StoredBatch, descriptor: str, rows: np.ndarray) -> FitVectors:
    return rows_of(batch.vectors(descriptor), rows)


def _with_vectors(
    settings: Settings, index: pd.DataFrame, read: Callable[[str], bytes | None]
) -> list[Images]:
    """The images of Init, by its own paths: the index may be of another fit, made anew or rolled back."""
    paths = [settings.data_root / file_of("init", d) for d in settings.config.descriptors]
    tables = {
        d: read_table(path)
        for d, path in zip(settings.config.descriptors, paths, strict=True)
        if path.exists()
    }
    content = index.set_index(IMAGE_PATH)[CONTENT]
    by_rows: dict[tuple[str, ...], list[str]] = {}
    for name, table in tables.items():
        by_rows.setdefault(tuple(table.column(IMAGE_PATH).to_pylist()), []).append(name)
    return [
        Images(
            pd.DataFrame({IMAGE_PATH: rows, CONTENT: content.reindex(rows).to_numpy()}),
            {name: partial(tables[name].vectors, "descriptor") for name in names},
            read,
        )
        for rows, names in by_rows.items()
    ]


def joined_contents(settings: Settings) -> set[tuple[str, str]]:
    """Name and version of every batch that has joined a fit set that can be put back, or joins one now."""
    root = settings.data_root
    sets = [*known_versions(root).values(), accepted(root / CANDIDATE)]
    return {pair for models in sets if models is not None for pair in models.batches}


def forget_earlier(context: dg.AssetExecutionContext, settings: Settings, batch: StoredBatch) -> None:
    """Remove what the batch held before, but for what its labels are of and what has joined a fit set."""
    root = settings.data_root
    needed = {batch.version, *(version for name, version in joined_contents(settings) if name == batch.name)}
    needed |= {facts["fingerprint"] for facts in labelled_facts(root) if facts["batch"] == batch.name}
    for version in forget_contents(root, batch.name, needed, settings.config.retention.contents):
        context.log.info("no longer needed, removed: what batch %s held as %s", batch.name, version)


def _archive(settings: Settings) -> ImageArchive | None:
    """The pictures of the fit set, if they are still there."""
    return open_delivery(settings).archive() if settings.delivery.is_dir() else None


def _reader(open_archive: Callable[[], ImageArchive | None]) -> Callable[[str], bytes | None]:
    """Reads pictures of an archive that is opened once somebody asks for one: its directory may be long."""
    opened = cache(open_archive)

    def read(path: str) -> bytes | None:
        archive = opened()
        return None if archive is None else archive.glimpse(path)

    return read
