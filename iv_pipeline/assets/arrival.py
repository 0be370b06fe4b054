"""What a batch of the inbox holds: kept once, and compared with the images that are known."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import dagster as dg
import numpy as np
import pandas as pd
from upath import UPath

from iv_pipeline.assets.delivery import open_batch, open_delivery
from iv_pipeline.assets.identities import with_known_identity
from iv_pipeline.config import Settings
from iv_pipeline.errors import ChangedBatchError, DeliveryError, InputError
from iv_pipeline.storage.batches import (
    CONTENT,
    DUPLICATE_OF,
    StoredBatch,
    forget_contents,
    kept_versions,
    labelled_facts,
    new_rows,
)
from iv_pipeline.storage.fit_set import FitSet, FitVectors, rows_of
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.image_store import ImageStore
from iv_pipeline.storage.inbox import fingerprint_of
from iv_pipeline.storage.known import Images, duplicates
from iv_pipeline.storage.layout import CANDIDATE, file_of
from iv_pipeline.storage.tables import IMAGE_PATH, read_table
from iv_pipeline.storage.versions import accepted, known_versions

CONTENT_TAG = "iv_pipeline/content"
"""Of a run: fingerprint of the batch that it is to label."""
_NOTHING_TO_DO = "leave it alone, and it is labelled once it rests again"


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
    asked = context.run.tags.get(CONTENT_TAG)
    is_there = folder.is_dir()
    version = fingerprint_of(folder, settings.config.inbox.marker) if is_there else last
    if version is None:
        raise DeliveryError(f"there is no batch {folder}", fix="copy it there, and it is noticed")
    if asked not in (None, version):
        raise ChangedBatchError(
            "has changed since it was complete", where=f"batch {folder}", fix=_NOTHING_TO_DO
        )
    batch = StoredBatch.of(root, name, version)
    # what has been labelled or has joined keeps its rows: they were compared with what was known then
    if is_there and version != last and (name, version) not in joined_contents(settings):
        _keep(context, settings, batch)
    return batch


def _keep(context: dg.AssetExecutionContext, settings: Settings, batch: StoredBatch) -> None:
    """Keep index, vectors and pictures, and say which of the images are known already."""
    delivery = with_known_identity(settings, open_batch(settings, batch.name))
    try:
        descriptors = [d for d in settings.config.descriptors if delivery.has(d)]
        if not descriptors:
            files = ", ".join(delivery.files.values())
            raise DeliveryError(
                f"has none of {files}", where=f"batch {delivery.folder}", fix="deliver at least one of them"
            )
        came = FitSet(delivery)
        index, archive = came.image_index(), came.archive()
        for notice in [*came.notices(descriptors), *came.archive_notices()]:
            context.log.warning(str(notice))
        vectors = {d: came.vectors(d) for d in descriptors}
        new = Images(
            index, {d: partial(vectors.__getitem__, d) for d in descriptors}, _reader(lambda: archive)
        )
        index = index.assign(**{DUPLICATE_OF: duplicates(new, _known(settings, batch.name))})
        batch.keep(index, vectors, archive)
    except InputError as error:
        _require_unchanged(settings, batch, error)
        raise
    _require_unchanged(settings, batch)


def _require_unchanged(settings: Settings, batch: StoredBatch, error: InputError | None = None) -> None:
    folder = settings.inbox / batch.name
    try:
        unchanged = fingerprint_of(folder, settings.config.inbox.marker) == batch.version
    except InputError:  # it went away, or its disk did
        unchanged = False
    if not unchanged:
        raise ChangedBatchError(
            "changed while it was read", where=f"batch {folder}", fix=_NOTHING_TO_DO
        ) from error


def _known(settings: Settings, name: str) -> list[Images]:
    """The images of the fit set, and the new ones of other batches that have not joined it."""
    root = settings.data_root
    models = accepted(root)  # first: what joins while this reads is counted among those that have not
    joined = set() if models is None else set(models.batches)
    index = read_parquet(root / file_of("image_index"))
    if CONTENT not in index:
        index = index.assign(**{CONTENT: None})  # it was made by an earlier version
    read = _reader(lambda: _archive(settings))
    known = [Images(index, {}, read), *_with_vectors(settings, index, read)]
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
    """The images of the index by the rows of Init, which may be of another fit, made anew or rolled back."""
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
    known = []
    for rows, names in by_rows.items():
        there = pd.Index(rows).isin(content.index)
        of_index = [path for path, is_there in zip(rows, there, strict=True) if is_there]
        came = {name: partial(rows_of, tables[name].vectors("descriptor"), there) for name in names}
        frame = pd.DataFrame({IMAGE_PATH: of_index, CONTENT: content.reindex(of_index).to_numpy()})
        known.append(Images(frame, came, read))
    return known


def joined_contents(settings: Settings) -> set[tuple[str, str]]:
    """Name and version of every batch that has joined a fit set that can be put back, or joins one now."""
    root = settings.data_root
    sets = [*known_versions(root).values(), accepted(root / CANDIDATE)]
    return {pair for models in sets if models is not None for pair in models.batches}


def forget_earlier(context: dg.AssetExecutionContext, settings: Settings, batch: StoredBatch) -> None:
    """Remove what the batch held before, but for what its labels are of and what has joined a fit set."""
    root = settings.data_root
    needed = {batch.version, *(version for name, version in joined_contents(settings) if name == batch.name)}
    labelled = labelled_facts(root)
    needed |= {facts["fingerprint"] for facts in labelled if facts["batch"] == batch.name}
    needed |= _referred_to(root, batch.name, labelled)
    for forgotten in forget_contents(root, batch.name, needed, settings.config.retention.contents):
        context.log.info("no longer needed, removed: what batch %s held as %s", batch.name, forgotten)


def _referred_to(root: UPath, name: str, labelled: Sequence[Mapping[str, str]]) -> set[str]:
    """Versions of a batch with images that labels of other batches call the same as theirs."""
    others = [StoredBatch.of(root, f["batch"], f["fingerprint"]) for f in labelled if f["batch"] != name]
    named = {path for other in others for path in other.index[DUPLICATE_OF].dropna()}
    kept = [StoredBatch.of(root, name, version) for version in kept_versions(root, name)]
    return {batch.version for batch in kept if batch.index[IMAGE_PATH].isin(named).any()}


def _archive(settings: Settings) -> ImageStore | None:
    """The pictures of the fit set, if they are still there."""
    return open_delivery(settings).archive() if settings.delivery.is_dir() else None


def _reader(open_archive: Callable[[], ImageStore | None]) -> Callable[[str], bytes | None]:
    """Reads pictures of an archive that is opened once somebody asks for one: its directory may be long."""
    opened = cache(open_archive)

    def read(path: str) -> bytes | None:
        archive = opened()
        return None if archive is None else archive.glimpse(path) or None  # empty tells nothing

    return read
