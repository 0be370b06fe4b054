"""What in a path is the vehicle's identity, where the configuration leaves that to the descriptors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from iv_pipeline.config import AUTO, Settings
from iv_pipeline.errors import Notice
from iv_pipeline.learn.identities import Closeness, Comparisons, measure_closeness, plan_comparisons
from iv_pipeline.storage.delivery import Delivery
from iv_pipeline.storage.fit_set import FitSet
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.layout import file_of

PATTERN = "identity"
"""Attribute of the image index with the pattern that was found, for batches that come later."""
LEVELS = 3
"""Folders above an image that may be a vehicle's."""


@dataclass(frozen=True)
class Decision:
    """Whether folders are identities.

    Attributes
    ----------
    pattern
        For `iv_pipeline.config.DeliveryConfig.identity`; None if there are no identities.
    notices
        What was decided and why; none if no level of folders can be a vehicle's.
    """

    pattern: str | None = None
    notices: tuple[Notice, ...] = ()


def decide_on_identity(settings: Settings, fit_set: FitSet) -> tuple[FitSet, Decision]:
    """The fit set with a pattern for identities, if it is to be found out and there are any, and why.

    The delivery alone decides, so that batches which join it later change nothing.

    Raises
    ------
    DeliveryError
        If the paths or a descriptor cannot be used.
    """
    delivery = fit_set.delivery
    if delivery.config.identity != AUTO:
        return fit_set, Decision(delivery.config.identity)
    decision = _decide(settings, FitSet(delivery))
    return replace(fit_set, delivery=_with_identity(delivery, decision.pattern)), decision


def with_known_identity(settings: Settings, batch: Delivery) -> Delivery:
    """A batch with the identities that were found in the delivery: it is too small to tell itself."""
    if batch.config.identity != AUTO:
        return batch
    index = settings.data_root / file_of("image_index")
    pattern = read_parquet(index).attrs.get(PATTERN) if index.exists() else None
    return _with_identity(batch, pattern)


def _with_identity(delivery: Delivery, pattern: str | None) -> Delivery:
    return replace(delivery, config=delivery.config.model_copy(update={"identity": pattern}))


def _decide(settings: Settings, delivery: FitSet) -> Decision:
    rejected = Decision()
    for level in range(1, LEVELS + 1):  # what shares the nearest folder is alike for sure
        comparisons = _comparisons(delivery.paths, level, settings.config.seed)
        if comparisons is None:
            continue
        name, found = _closeness(settings, delivery, comparisons)
        if name is None:
            continue
        if found.is_identity:
            return Decision(f"^(.+?)(?:/[^/]+){{{level}}}$", (_used(name, found, level, delivery.paths),))
        if not rejected.notices:
            rejected = Decision(None, (_not_used(name, found),))
    return rejected


def _comparisons(paths: Sequence[str], level: int, seed: int) -> Comparisons | None:
    """Photos to compare if the folder `level` steps above each is to be judged."""
    parts = [path.rsplit("/", level) for path in paths]
    folder = np.array([p[0] if len(p) > level else None for p in parts], object)
    parent = np.array([name.rpartition("/")[0] if name is not None else None for name in folder], object)
    return plan_comparisons(pd.factorize(folder)[0], pd.factorize(parent)[0], seed)


def _closeness(
    settings: Settings, delivery: FitSet, comparisons: Comparisons
) -> tuple[str | None, Closeness]:
    """The descriptor that tells folders apart best, the lightest that tells them apart at all, and how well."""
    best: tuple[str | None, Closeness] = (None, Closeness(0.5, np.inf))
    for name in reversed(settings.config.descriptors):
        if delivery.delivery.has(name):
            found = measure_closeness(delivery.vectors(name).take(comparisons.rows), comparisons)
            best = (name, found) if best[0] is None or found.share > best[1].share else best
            if found.is_identity:
                return name, found
    return best


def _used(name: str, found: Closeness, level: int, paths: Sequence[str]) -> Notice:
    folder = paths[0].rsplit("/", level)[0]
    return Notice(
        f"folders such as {folder} are used as vehicles: by {name}, photos of one are closer in "
        f"{found.share:.0%} of comparisons",
        where="delivery.identity",
        fix="set it to null if they are none",
    )


def _not_used(name: str, found: Closeness) -> Notice:
    return Notice(
        f"folders are not used as vehicles: by {name}, photos of one are closer in only {found.share:.0%} of "
        "comparisons",
        where="delivery.identity",
    )
