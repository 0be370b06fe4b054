"""Stage `image_quality`: how each picture looks, read from the archive."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.image_quality import MEASUREMENT, measure_images, near_duplicates, quality_outliers
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline.storage.batches import CONTENT
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import IMAGE_PATH


@stage(group="outliers", kinds=("pillow", "parquet"), partitioned=False, heavy=True)
def image_quality(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], image_index: pd.DataFrame
) -> Result:
    """Exposure, glare, sharpness, emptiness and near-duplicates of each picture, and reasons to distrust it."""
    delivery = open_delivery(settings)
    paths = image_index[IMAGE_PATH].to_list()
    archive = delivery.archive()
    if archive is None:
        context.log.warning("no image archive: the quality of pictures stays unknown")
        unknown = {
            IMAGE_PATH: paths,
            "score": np.nan,
            "reasons": "",
            "error": "no image archive",
            "duplicate_group": -1,
        }
        return Result(pd.DataFrame(unknown), lambda: {"measured": 0})
    frame = _measure(paths, archive, _measured_before(settings, image_index), context)
    return Result(frame, lambda: _show(frame))


def _measured_before(settings: Settings, image_index: pd.DataFrame) -> pd.DataFrame:
    """Measurements of pictures whose content is the same as when they were made: they would come out the same."""
    path = settings.data_root / file_of("image_quality")
    stored = read_parquet(path) if path.exists() else pd.DataFrame()
    if CONTENT not in stored or CONTENT not in image_index:
        return pd.DataFrame()
    now = image_index.set_index(IMAGE_PATH)[CONTENT].reindex(stored[IMAGE_PATH]).to_numpy()
    same = (stored[CONTENT] == now) & (stored["measured_by"] == MEASUREMENT)
    return stored[same].drop(columns=["score", "reasons", "duplicate_group"])


def _measure(
    paths: list[str], archive: ImageArchive, before: pd.DataFrame, context: dg.AssetExecutionContext
) -> pd.DataFrame:
    missing = set(archive.missing(paths))
    if missing:
        context.log.warning(
            "%d images are not in the archive and their quality stays unknown (first: %s)",
            len(missing),
            min(missing),
        )
    known = set(before[IMAGE_PATH]) - missing if len(before) else set()
    done = missing | known
    fresh = measure_images([path for path in paths if path not in done], archive.read)
    fresh[CONTENT] = pd.Series([archive.content_of(path) for path in fresh[IMAGE_PATH]], dtype="str")
    fresh["measured_by"] = MEASUREMENT
    if known:
        context.log.info("%d pictures are as they were when they were measured", len(known))
        again = before[before[IMAGE_PATH].isin(known)].astype(fresh.dtypes)
        fresh = pd.concat([again, fresh]) if len(fresh) else again
    present = pd.DataFrame({IMAGE_PATH: [path for path in paths if path not in missing]})
    measured = present.astype("string").merge(fresh, on=IMAGE_PATH, validate="1:1")
    measured["duplicate_group"] = near_duplicates(measured["phash"].to_numpy())
    judged = measured.merge(quality_outliers(measured), on=IMAGE_PATH, validate="1:1")
    frame = pd.DataFrame({IMAGE_PATH: paths}).merge(judged, on=IMAGE_PATH, how="left", validate="1:1")
    absent = frame[IMAGE_PATH].isin(missing)
    frame.loc[absent, "error"] = "not in the archive"
    frame["reasons"] = frame["reasons"].fillna("")
    frame["duplicate_group"] = frame["duplicate_group"].fillna(-1).astype(np.int32)
    return frame


def _show(frame: pd.DataFrame) -> dict[str, object]:
    worst = frame.sort_values("score", ascending=False).head(10)[[IMAGE_PATH, "score", "reasons"]]
    return {
        "measured": int(frame["score"].notna().sum()),
        "suspicious": int((frame["reasons"] != "").sum()),
        "unreadable_or_missing": int(frame["error"].notna().sum()),
        "near_duplicates": int((frame["duplicate_group"] >= 0).sum()),
        "most_suspicious": dg.MetadataValue.md(worst.round(3).to_markdown(index=False)),
    }
