"""Stage `image_quality`: how each picture looks, read from the archive."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.errors import NOT_THERE, Notice, fix_of
from iv_pipeline.learn.image_quality import MEASUREMENT, measure_images, quality_outliers
from iv_pipeline.learn.near_duplicates import near_duplicates
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.image_store import ImageStore
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import IMAGE_PATH

NO_IMAGES = "no image archive"
"""Why nothing is known of pictures where the delivery has none."""
DIGEST = "digest"
"""Column with a digest of a picture's bytes, by which it is known to be the one that was measured before."""


@stage(group="outliers", kinds=("pillow", "parquet"), partitioned=False, heavy=True, code_version="4")
def image_quality(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], image_index: pd.DataFrame
) -> Result:
    """Exposure, glare, sharpness, emptiness and near-duplicates of each picture, and reasons to distrust it."""
    delivery = open_delivery(settings)
    paths = image_index[IMAGE_PATH].to_list()
    archive = delivery.archive()
    if archive is None:
        unknown = {
            IMAGE_PATH: paths,
            "score": np.nan,
            "reasons": "",
            "error": NO_IMAGES,
            "duplicate_group": -1,
        }
        return Result(pd.DataFrame(unknown), lambda: {"measured": 0}, notices=delivery.archive_notices())
    frame = _measure(paths, archive, _measured_before(settings), context)
    return Result(
        frame, lambda: _show(frame), notices=[*delivery.archive_notices(), *_unread(frame, archive)]
    )


def _measured_before(settings: Settings) -> pd.DataFrame | None:
    """Measurements of an earlier run; None if there are none, or they were made differently."""
    path = settings.data_root / file_of("image_quality")
    stored = read_parquet(path) if path.exists() else pd.DataFrame()
    if DIGEST not in stored:
        return None
    return stored[stored["measured_by"] == MEASUREMENT]


def _measure(
    paths: list[str], archive: ImageStore, before: pd.DataFrame | None, context: dg.AssetExecutionContext
) -> pd.DataFrame:
    missing = set(archive.missing(paths))
    present = [path for path in paths if path not in missing]
    measured = measure_images(present, archive.read, before)
    if before is not None:
        context.log.info(
            "%d pictures are as they were when they were measured", _n_unchanged(measured, before)
        )
    measured["measured_by"] = MEASUREMENT
    measured["duplicate_group"] = near_duplicates(measured["phash"].to_numpy())
    judged = measured.merge(quality_outliers(measured), on=IMAGE_PATH, validate="1:1")
    frame = pd.DataFrame({IMAGE_PATH: paths}).merge(judged, on=IMAGE_PATH, how="left", validate="1:1")
    frame.loc[frame[IMAGE_PATH].isin(missing), "error"] = NOT_THERE
    frame["reasons"] = frame["reasons"].fillna("")
    frame["duplicate_group"] = frame["duplicate_group"].fillna(-1).astype(np.int32)
    return frame


def _n_unchanged(measured: pd.DataFrame, before: pd.DataFrame) -> int:
    key = [IMAGE_PATH, DIGEST]
    return len(before.loc[before["error"].isna(), key].astype("string").merge(measured[key], on=key))


def _unread(frame: pd.DataFrame, archive: ImageStore) -> Iterator[Notice]:
    """One notice for each reason why pictures could not be read, with the number of them."""
    n_images, reasons = len(frame), Counter(frame["error"].dropna())
    if reasons[NOT_THERE] == n_images:
        first = archive.first()
        entry = "it is empty" if first is None else f"the first entry there is {first}"
        yield Notice(
            f"none of {n_images:,} images is in it: the first one listed is {frame[IMAGE_PATH].iloc[0]}, {entry}",
            where=str(archive.path),
            fix="unpack that archive"
            if (first or "").lower().endswith((".zip", ".rar", ".7z", ".tar", ".gz"))
            else "set delivery.archive to the archive or folder of these images",
        )
        return
    for reason, count in reasons.most_common():
        first = frame[IMAGE_PATH][frame["error"] == reason].iloc[0]
        yield Notice(
            f"{count:,} of {n_images:,} pictures cannot be read: {reason} (the first is {first})",
            where=str(archive.path),
            fix=fix_of(reason),
        )


def _show(frame: pd.DataFrame) -> dict[str, object]:
    worst = frame.sort_values("score", ascending=False).head(10)[[IMAGE_PATH, "score", "reasons"]]
    return {
        "measured": int(frame["score"].notna().sum()),
        "suspicious": int((frame["reasons"] != "").sum()),
        "unreadable_or_missing": int(frame["error"].notna().sum()),
        "near_duplicates": int((frame["duplicate_group"] >= 0).sum()),
        "most_suspicious": dg.MetadataValue.md(worst.round(3).to_markdown(index=False)),
    }
