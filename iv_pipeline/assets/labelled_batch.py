"""Stage `labelled_batch`: what the accepted models say of a batch that came through the inbox."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial

import dagster as dg
import pandas as pd
from upath import UPath

from iv_pipeline.assets.delivery import open_batch, open_delivery
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import SideBySide
from iv_pipeline.errors import DeliveryError, InputError
from iv_pipeline.labelling import unpack_labeller
from iv_pipeline.learn.labelling import Labeller
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.batches import (
    CONTENT,
    DUPLICATE_OF,
    LabelledBatch,
    StoredBatch,
    forget_contents,
    labelled_facts,
)
from iv_pipeline.storage.fit_set import FitSet, FitVectors, first_rows
from iv_pipeline.storage.formats import read_json, read_parquet
from iv_pipeline.storage.inbox import fingerprint_of
from iv_pipeline.storage.known import Images, duplicates
from iv_pipeline.storage.layout import MODEL, file_of
from iv_pipeline.storage.models import read_model
from iv_pipeline.storage.tables import IMAGE_PATH, read_table
from iv_pipeline.storage.versions import ModelSet, accepted, known_versions

CONTENT_TAG = "iv_pipeline/content"
"""Of a run: fingerprint of the batch that it is to label."""


@stage(
    group="batches",
    kinds=("csv",),
    by_batch=True,
    checks={"every_image_labelled_once": "Is every image of the batch in every CSV once, in its order?"},
)
def labelled_batch(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    accepted_models: dict[str, object],
) -> Result:
    """Cluster, name, confidence and outlier verdict of each image of a batch, by each descriptor that came."""
    name, models = context.partition_key, ModelSet.from_facts(accepted_models)
    batch, descriptors = _came(context, settings, name)
    vectors = {d: batch.vectors(d) for d in descriptors}
    labels: dict[str, pd.DataFrame] = {}
    for partition in settings.config.partitions:
        blocks = settings.config.blocks(partition)
        if partition not in models.models or not set(blocks) <= set(descriptors):
            continue
        path = MODEL.format(descriptor=partition, version=models.models[partition])
        labeller = unpack_labeller(read_model(settings.data_root / path))
        rows = SideBySide([vectors[block] for block in blocks])
        labels[partition] = _labelled(batch.index, labeller, rows, name, partition).assign(
            model_version=models.version
        )
        context.log.info(
            "labelled · %s · %d images by version %d", partition, len(batch.index), models.version
        )
    if not labels:
        raise InputError(
            f"batch {name} has {', '.join(descriptors)}, and no accepted model labels by any of them: run the "
            "pipeline for one of them first"
        )
    _forget(context, settings, batch)
    n_known = int(batch.index[DUPLICATE_OF].notna().sum())
    facts = {
        "batch": name,
        "fingerprint": batch.version,
        "model_version": models.version,
        "came": descriptors,
        "descriptors": list(labels),
        "left_out": [d for d in models.models if d not in labels],
        "images": len(batch.index),
        "known_before": n_known,
        "labelled_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Result(
        LabelledBatch(facts, labels),
        lambda: {
            **{key: facts[key] for key in ("images", "known_before", "model_version")},
            **{f"refused_{d}": _share(frame, "unknown") for d, frame in labels.items()},
            **{f"outliers_{d}": float(frame["is_outlier"].mean()) for d, frame in labels.items()},
            "labelled": dg.MetadataValue.md(_describe(labels)),
        },
        lambda: [_complete(batch.index, labels)],
    )


def _came(context: dg.AssetExecutionContext, settings: Settings, name: str) -> tuple[StoredBatch, list[str]]:
    """What lies in the inbox, or what was kept of it before it was cleared away; and its descriptors."""
    folder = settings.inbox / name
    if not folder.is_dir():
        record = settings.data_root / file_of("labelled_batch", name)
        if not record.exists():
            raise DeliveryError(f"there is no batch {folder}: copy it there, and it is noticed")
        facts = read_json(record)
        return StoredBatch.of(settings.data_root, name, facts["fingerprint"]), facts["came"]
    version = fingerprint_of(folder, settings.config.inbox.marker)
    wanted = context.run.tags.get(CONTENT_TAG, version)
    if version != wanted:
        raise DeliveryError(
            f"batch {folder} has changed since it was complete: nothing to do, it is labelled once it rests again"
        )
    return _keep(settings, name, version)


def _keep(settings: Settings, name: str, version: str) -> tuple[StoredBatch, list[str]]:
    """Keep what the inbox holds, and say which of it is known already."""
    delivery = open_batch(settings, name)
    descriptors = [d for d in settings.config.descriptors if delivery.has(d)]
    if not descriptors:
        files = ", ".join(delivery.files.values())
        raise DeliveryError(f"batch {delivery.folder} has none of {files}: deliver at least one of them")
    came = FitSet(delivery)
    index, archive = came.image_index(), came.archive()
    vectors = {d: came.vectors(d) for d in descriptors}
    new = Images(index, {d: partial(vectors.__getitem__, d) for d in descriptors}, _reader(lambda: archive))
    index = index.assign(**{DUPLICATE_OF: duplicates(new, _known(settings, name))})
    batch = StoredBatch.of(settings.data_root, name, version)
    batch.keep(index, vectors, delivery.archive_file())
    if fingerprint_of(settings.inbox / name, settings.config.inbox.marker) != version:
        raise DeliveryError(
            f"batch {delivery.folder} changed while it was read: it is labelled once it rests again"
        )
    return batch, descriptors


def _known(settings: Settings, name: str) -> list[Images]:
    """The images of the fit set, and those of other batches that have not joined it."""
    root = settings.data_root
    index = read_parquet(root / file_of("image_index"))
    if CONTENT not in index:
        index = index.assign(**{CONTENT: None})  # it was made by an earlier version
    tables = {d: root / file_of("init", d) for d in settings.config.descriptors}
    vectors = {d: partial(_first_rows, path, len(index)) for d, path in tables.items() if path.exists()}
    known = [Images(index, vectors, _reader(lambda: _archive(settings)))]
    models = accepted(root)
    joined = set() if models is None else set(models.batches)
    for facts in labelled_facts(root):
        if facts["batch"] != name and (facts["batch"], facts["fingerprint"]) not in joined:
            batch = StoredBatch.of(root, facts["batch"], facts["fingerprint"])
            columns = {d: partial(batch.vectors, d) for d in facts["came"]}
            known.append(Images(batch.index, columns, _reader(batch.archive)))
    return known


def _forget(context: dg.AssetExecutionContext, settings: Settings, batch: StoredBatch) -> None:
    """Remove what the batch held before, but for what its labels are of and what has joined the fit set."""
    root = settings.data_root
    joined = {pair for models in known_versions(root).values() for pair in models.batches}
    needed = {batch.version, *(version for name, version in joined if name == batch.name)}
    needed |= {facts["fingerprint"] for facts in labelled_facts(root) if facts["batch"] == batch.name}
    for version in forget_contents(root, batch.name, needed, settings.config.retention.contents):
        context.log.info("no longer needed, removed: what batch %s held as %s", batch.name, version)


def _first_rows(path: UPath, n_rows: int) -> FitVectors:
    """Vectors of Init by the index: behind them there may be those of batches that were rolled back."""
    table = read_table(path)
    if table.n_rows < n_rows:
        raise InputError(
            f"{path} has {table.n_rows:,} rows and the image index {n_rows:,}: materialise 'init' again"
        )
    return first_rows(table.vectors("descriptor"), n_rows)


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


def _labelled(
    index: pd.DataFrame, labeller: Labeller, vectors: SideBySide, batch: str, by: str
) -> pd.DataFrame:
    n_features = labeller.representation.n_features
    if vectors.shape[1] != n_features:
        raise DeliveryError(
            f"batch {batch} has {vectors.shape[1]:,} features of {by} and the fit had {n_features:,}: "
            "deliver the descriptor of the same network"
        )
    labels = labeller.label(vectors)
    return pd.concat([index[[IMAGE_PATH]], labels, index[[DUPLICATE_OF]]], axis=1)


def _share(frame: pd.DataFrame, status: str) -> float:
    return float(frame["status"].str.startswith(status).mean())


def _describe(labels: Mapping[str, pd.DataFrame]) -> str:
    rows = [
        {
            "descriptor": name,
            "clusters": int(frame["cluster"][frame["cluster"] >= 0].nunique()),
            "mean confidence": frame["confidence"].mean(),
            "outliers": frame["is_outlier"].mean(),
            "refused": _share(frame, "unknown"),
            "unusable": _share(frame, "unusable"),
        }
        for name, frame in labels.items()
    ]
    return str(pd.DataFrame(rows).round(3).to_markdown(index=False))


def _complete(index: pd.DataFrame, labels: Mapping[str, pd.DataFrame]) -> Check:
    paths = index[IMAGE_PATH].to_list()
    incomplete = [name for name, frame in labels.items() if frame[IMAGE_PATH].to_list() != paths]
    return Check(
        "every_image_labelled_once", not incomplete, {"images": len(paths), "incomplete": incomplete}
    )
