"""The delivery that the settings name, and its images to look at."""

from collections.abc import Iterable

import dagster as dg

from iv_pipeline.config import Settings
from iv_pipeline.report.contact_sheet import contact_sheet
from iv_pipeline.report.plots import inline
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.delivery import Delivery


def open_delivery(settings: Settings) -> Delivery:
    """The delivery, laid out as the configuration says; files are opened when they are asked for."""
    files = {name: descriptor.file for name, descriptor in settings.config.descriptors.items()}
    return Delivery(settings.delivery, settings.config.delivery, files)


def gallery(archive: ImageArchive | None, paths: Iterable[str]) -> dict[str, dg.MetadataValue[str]]:
    """A contact sheet of images in this order, as metadata; nothing where the delivery has no images."""
    images = [] if archive is None else [(path, archive.glimpse(path)) for path in paths]
    return {"gallery": dg.MetadataValue.md(inline(contact_sheet(images, max_bytes=40_000)))} if images else {}
