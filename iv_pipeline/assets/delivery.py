"""The delivery that the settings name."""

from iv_pipeline.config import Settings
from iv_pipeline.storage.delivery import Delivery


def open_delivery(settings: Settings) -> Delivery:
    """The delivery, laid out as the configuration says; files are opened when they are asked for."""
    files = {name: descriptor.file for name, descriptor in settings.config.descriptors.items()}
    return Delivery(settings.delivery, settings.config.delivery, files)
