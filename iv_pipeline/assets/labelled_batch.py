"""Stage `labelled_batch`: what the accepted models say of a batch that came through the inbox."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd

from iv_pipeline.assets.arrival import forget_earlier, take_in
from iv_pipeline.assets.attributes import settled_shares
from iv_pipeline.assets.final import overrule
from iv_pipeline.assets.stage import BATCH_POOL, Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import SideBySide
from iv_pipeline.errors import DeliveryError, InputError, Notice
from iv_pipeline.labelling import load_attribute_model, unpack_labeller
from iv_pipeline.learn.attribute_labelling import AttributeModel
from iv_pipeline.learn.labelling import Labeller
from iv_pipeline.storage.answers import ImageAnswers, given_names, read_image_answers
from iv_pipeline.storage.batches import DUPLICATE_OF, LabelledBatch, StoredBatch
from iv_pipeline.storage.layout import MODEL, file_of
from iv_pipeline.storage.models import read_facts, read_model
from iv_pipeline.storage.tables import IMAGE_PATH
from iv_pipeline.storage.versions import ModelSet


@stage(
    group="batches",
    kinds=("csv",),
    by_batch=True,
    pool=BATCH_POOL,
    deps=["joint_features", "groups"],
    code_version="2",
    checks={"every_image_labelled_once": "Is every image of the batch in every CSV once, in its order?"},
)
def labelled_batch(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    accepted_models: dict[str, object],
) -> Result:
    """Cluster, name, confidence and outlier verdict of each image of a batch, by each descriptor that came.

    Beside them `attributes.csv`: the answer for every image by all of these descriptors.
    """
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
    answers, notices = _answers(settings, batch, labels, models.version)
    forget_earlier(context, settings, batch)
    n_known = int(batch.index[DUPLICATE_OF].notna().sum())
    facts = {
        "batch": name,
        "fingerprint": batch.version,
        "model_version": models.version,
        "came": descriptors,
        "descriptors": list(labels),
        "attributes": None if answers is None else list(settings.config.attributes),
        "left_out": [d for d in models.models if d not in labels],
        "images": len(batch.index),
        "known_before": n_known,
        "labelled_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    labelled = LabelledBatch(facts, labels, answers)
    return Result(
        labelled,
        lambda: {
            **{key: facts[key] for key in ("images", "known_before", "model_version")},
            **{f"refused_{d}": _share(frame, "unknown") for d, frame in labels.items()},
            **{f"outliers_{d}": float(frame["is_outlier"].mean()) for d, frame in labels.items()},
            **({} if answers is None else settled_shares(answers, settings.config.attributes)),
            "labelled": dg.MetadataValue.md(_describe(labels)),
        },
        lambda: [_complete(batch.index, labelled.tables)],
        notices,
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


def _answers(
    settings: Settings, batch: StoredBatch, labels: Mapping[str, pd.DataFrame], version: int
) -> tuple[pd.DataFrame | None, list[Notice]]:
    """The answer for every image by all descriptors that came; None, and why, if the fit cannot give any."""
    config, root = settings.config, settings.data_root
    model = load_attribute_model(root, config.attributes, config.partitions, config.seed)
    if model is None:
        where, fix = (
            file_of("joint_features"),
            "materialize 'joint_features' and 'groups', and this batch again",
        )
        return None, [Notice("is not there, and batches get no attributes.csv", where=where, fix=fix)]
    came = (name for name in labels if name in batch.descriptors)
    known = {name: labels[name] for name in came if model.takes(name, batch.vectors(name).shape[1])}
    if not known:
        what = f"is of no descriptor of batch {batch.name}, which gets no attributes.csv"
        fix = "materialize 'joint_features' and 'groups' again"
        return None, [Notice(what, where=file_of("joint_features"), fix=fix)]
    frame = _by_all(model, batch, known)
    frame = _as_people_say(frame, batch.index, read_image_answers(root, config.attributes))
    return pd.concat([frame, batch.index[[DUPLICATE_OF]]], axis=1).assign(model_version=version), []


def _by_all(model: AttributeModel, batch: StoredBatch, labels: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    answers = model.label({name: batch.vectors(name) for name in labels}, labels)
    return pd.concat([batch.index[[IMAGE_PATH]], answers], axis=1)


def _as_people_say(frame: pd.DataFrame, index: pd.DataFrame, people: ImageAnswers) -> pd.DataFrame:
    """Answers where people have given others about the image, or about the same one that was known before."""
    frame = frame.copy()
    for name, said in people.said.items():
        given = _said_of(index, said)
        frame.loc[given.notna(), name] = given[given.notna()]
        frame.loc[given.notna(), f"{name}_confidence"] = 1
    verdicts = _said_of(index, people.outliers)
    return overrule(frame, dict(zip(index[IMAGE_PATH], verdicts, strict=True)))


def _said_of(index: pd.DataFrame, said: Mapping[str, object]) -> "pd.Series[Any]":
    """What is said of each image under its own path, else under that of the one it repeats; missing if nothing."""
    own, known = (index[column].map(dict(said)).astype(object) for column in (IMAGE_PATH, DUPLICATE_OF))
    return own.where(own.notna(), known)


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


def _complete(index: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> Check:
    paths = index[IMAGE_PATH].to_list()
    incomplete = [name for name, frame in tables.items() if frame[IMAGE_PATH].to_list() != paths]
    return Check(
        "every_image_labelled_once", not incomplete, {"images": len(paths), "incomplete": incomplete}
    )
