"""The delivery that the settings name, what came later, and images to look at."""

from collections.abc import Iterable

import dagster as dg

from iv_pipeline.config import Settings, delivery_of
from iv_pipeline.report.contact_sheet import contact_sheet
from iv_pipeline.report.plots import inline
from iv_pipeline.storage.batches import StoredBatch
from iv_pipeline.storage.delivery import Delivery
from iv_pipeline.storage.fit_set import FitSet
from iv_pipeline.storage.image_store import ImageStore
from iv_pipeline.storage.versions import ModelSet, accepted


def open_delivery(settings: Settings) -> FitSet:
    """The delivery and what has joined it since; files are opened when they are asked for."""
    batches = joined_batches(settings, accepted(settings.data_root))
    return FitSet(
        Delivery(settings.delivery, settings.config.delivery, files_of(settings)),
        [StoredBatch.of(settings.data_root, *batch) for batch in batches],
    )


def joined_batches(settings: Settings, models: ModelSet | None) -> tuple[tuple[str, str], ...]:
    """Name and version of each batch that has joined a fit, but for those that are excluded by now."""
    excluded = settings.config.refit.exclude
    return () if models is None else tuple(batch for batch in models.batches if batch[0] not in excluded)


def open_batch(settings: Settings, batch: str) -> Delivery:
    """A batch in the inbox, laid out as the configuration or its own file says."""
    folder = settings.inbox / batch
    return Delivery(folder, delivery_of(settings.config, folder), files_of(settings))


def files_of(settings: Settings) -> dict[str, str]:
    """The file of each descriptor, relative to a delivery."""
    return {name: descriptor.file for name, descriptor in settings.config.descriptors.items()}


def gallery(archive: ImageStore | None, paths: Iterable[str]) -> dict[str, dg.MetadataValue[str]]:
    """A contact sheet of images in this order, as metadata; nothing where the delivery has no images."""
    images = [] if archive is None else [(path, archive.glimpse(path)) for path in paths]
    return {"gallery": dg.MetadataValue.md(inline(contact_sheet(images, max_bytes=40_000)))} if images else {}
