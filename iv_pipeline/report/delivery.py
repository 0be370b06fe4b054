"""What the page says first about a delivery: its notices, and the images that could not be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

USUAL = frozenset({"ok", "noise"})
"""Status of images that were clustered."""
EXAMPLES = 3
"""Images that are named for each status."""


@dataclass(frozen=True)
class Concern:
    """Images that share a status and could not be used.

    Attributes
    ----------
    status
        Why, as the Final CSVs say it.
    images
        How many images have it by any descriptor.
    descriptors
        Names of these descriptors.
    examples
        Paths of some of the images.
    """

    status: str
    images: int
    descriptors: list[str]
    examples: list[str]


@dataclass(frozen=True)
class About:
    """The section about the delivery.

    Attributes
    ----------
    notices
        Sentences, each once.
    concerns
        Images that could not be used, by status, most frequent first.
    """

    notices: list[str]
    concerns: list[Concern]


def describe_delivery(notices: Sequence[str], final: Mapping[str, pd.DataFrame]) -> About | None:
    """What there is to say about a delivery; None if all of it is as usual.

    Parameters
    ----------
    notices
        Sentences of the stages that read it.
    final
        Final tables by descriptor.
    """
    images: dict[str, dict[str, None]] = {}
    descriptors: dict[str, list[str]] = {}
    for name, frame in final.items():
        status = frame["status"].astype(str)
        for value, paths in frame.loc[~status.isin(USUAL), "image_path"].astype(str).groupby(status):
            images.setdefault(str(value), {}).update(dict.fromkeys(paths))
            descriptors.setdefault(str(value), []).append(name)
    concerns = [
        Concern(status, len(paths), descriptors[status], list(paths)[:EXAMPLES])
        for status, paths in images.items()
    ]
    concerns.sort(key=lambda concern: (-concern.images, concern.status))
    return About(list(dict.fromkeys(notices)), concerns) if notices or concerns else None
