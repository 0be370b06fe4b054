"""Stage `labelled_batch`: what the accepted models say of a batch that came through the inbox."""

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from iv_pipeline.assets.arrival import forget_earlier, take_in
from iv_pipeline.assets.stage import BATCH_POOL, Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import SideBySide
from iv_pipeline.errors import DeliveryError, InputError
from iv_pipeline.labelling import unpack_labeller
from iv_pipeline.learn.labelling import Labeller
from iv_pipeline.storage.answers import given_names
from iv_pipeline.storage.batches import DUPLICATE_OF, LabelledBatch
from iv_pipeline.storage.layout import MODEL
from iv_pipeline.storage.models import read_facts, read_model
from iv_pipeline.storage.tables import IMAGE_PATH
from iv_pipeline.storage.versions import ModelSet


@stage(
    group="batches",
    kinds=("csv",),
    by_batch=True,
    pool=BATCH_POOL,
    checks={"every_image_labelled_once": "Is every image of the batch in every CSV once, in its order?"},
)
def labelled_batch(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    accepted_models: dict[str, object],
) -> Result:
    """Cluster, name, confidence and outlier verdict of each image of a batch, by each descriptor that came."""
    name, models = context.partition_key, ModelSet.from_facts(accepted_models)
    batch = take_in(context, settings, name)
    descriptors = batch.descriptors
    vectors = {d: batch.vectors(d) for d in descriptors}
    labels: dict[str, pd.DataFrame] = {}
    for partition in (name for name in settings.config.partitions if name in models.models):
        path = settings.data_root / MODEL.format(descriptor=partition, version=models.models[partition])
        blocks = read_facts(path)["blocks"]
        if not set(blocks) <= set(descriptors):
            continue
        labeller = unpack_labeller(read_model(path)).named(given_names(settings.data_root, partition))
        rows = SideBySide([vectors[block] for block in blocks])
        labels[partition] = _labelled(batch.index, labeller, rows, name, partition).assign(
            model_version=models.version
        )
        context.log.info(
            "labelled · %s · %d images by version %d", partition, len(batch.index), models.version
        )
    if not labels:
        raise InputError(
            f"has {', '.join(descriptors)}, and no accepted model labels by any of them",
            where=f"batch {name}",
            fix="run the pipeline for one of them first",
        )
    forget_earlier(context, settings, batch)
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


def _labelled(
    index: pd.DataFrame, labeller: Labeller, vectors: SideBySide, batch: str, by: str
) -> pd.DataFrame:
    n_features = labeller.representation.n_features
    if vectors.shape[1] != n_features:
        raise DeliveryError(
            f"has {vectors.shape[1]:,} features of {by}, and the fit had {n_features:,}",
            where=f"batch {batch}",
            fix="deliver the descriptor of the same network",
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
