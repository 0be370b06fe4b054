"""Stage `image_index`: every image of the delivery, once."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.identities import PATTERN, decide_on_identity
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.errors import InputError, Notice
from iv_pipeline.storage.tables import IMAGE_PATH

VEHICLE = "vehicle_id"
"""Column of the vehicle that an image shows, where the paths carry one."""
LABEL = "label"
"""With which columns of true labels begin."""
MAX_VALUES = 100
IMAGES_PER_VALUE = 5


@stage(
    group="delivery",
    kinds=("pandas", "parquet"),
    partitioned=False,
    checks={"paths_are_unique": "Is every image named once?"},
    code_version="2",
)
def image_index(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Result:
    """Every image of the delivery in its order: id, path, vehicle identity and labels where there are any."""
    delivery, identity = decide_on_identity(settings, open_delivery(settings))
    frame = delivery.image_index()
    frame.attrs[PATTERN] = identity.pattern
    unlabelled = [c for c in frame.columns if c.startswith("label") and frame[c].isna().all()]
    notices = [
        *delivery.notices(),
        *identity.notices,
        *(Notice(f"no image of the delivery has a value in the label column {c!r}") for c in unlabelled),
    ]
    return Result(
        frame,
        lambda: {
            "images": len(frame),
            "labelled": _known(frame, "label"),
            "identity": identity.pattern or "none",
            "vehicles": int(frame[VEHICLE].nunique()) if VEHICLE in frame else 0,
            "first_rows": dg.MetadataValue.md(frame.head(5).to_markdown(index=False)),
        },
        lambda: [Check("paths_are_unique", bool(frame["image_path"].is_unique))],
        notices,
    )


def _known(frame: pd.DataFrame, column: str) -> int:
    return int(frame[column].notna().sum()) if column in frame else 0


def true_labels(image_index: pd.DataFrame) -> "dict[str, pd.Series[str]]":
    """True labels by attribute, missing where unknown; a column ``label_color`` is of the attribute ``color``.

    Columns that do not tell kinds of images are left out: those of one value, of more than `MAX_VALUES`, or of
    fewer than `IMAGES_PER_VALUE` images a value, such as numbers and remarks.
    """
    names = [name for name in image_index if str(name).startswith(LABEL)]
    found = {}
    for name in names:
        n_values, n_known = image_index[name].nunique(), int(image_index[name].notna().sum())
        if 2 <= n_values <= min(MAX_VALUES, n_known / IMAGES_PER_VALUE):
            found[str(name).removeprefix(f"{LABEL}_")] = image_index[name]
    return found


def require_same_images(image_index: pd.DataFrame, paths: "pd.Series[str]", what: str) -> None:
    """Refuse to go on from what was made of other images.

    Raises
    ------
    InputError
        If `what` has other `paths` than the index.
    """
    if image_index[IMAGE_PATH].to_list() != paths.to_list():
        raise InputError(
            "was made of other images than image_index", where=what, fix="run full_pipeline for it again"
        )


def identities_of(image_index: pd.DataFrame) -> np.ndarray:
    """Code of the vehicle of each image, int64; −1 where unknown, as everywhere if paths carry no identity."""
    if VEHICLE not in image_index:
        return np.full(len(image_index), -1, np.int64)
    codes, _ = pd.factorize(image_index[VEHICLE])
    return codes.astype(np.int64)
