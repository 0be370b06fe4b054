"""Stages `attributes` and `review`: the answer for every image, and what to ask next."""

import json
from collections.abc import Iterable
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.answering import FitTables, fit_answers, read_asked, tree_of
from iv_pipeline.assets.final import overrule, verdict_on
from iv_pipeline.assets.image_index import require_same_images
from iv_pipeline.assets.stage import PARTIAL, Check, Result, stage
from iv_pipeline.config import GROUPS, Settings
from iv_pipeline.learn.attribute_labelling import UNUSABLE
from iv_pipeline.learn.attributes import predict_values, settled_share
from iv_pipeline.learn.groups import sheet
from iv_pipeline.learn.questions import first_questions, posterior, rank_questions, tree_candidates
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

REVIEW_COLUMNS = ("kind", "descriptor", "cluster", "image_path", "images", "attributes", "gain")


@stage(
    group="results",
    kinds=("csv", "scikitlearn"),
    partitioned=False,
    ins={"clusters": PARTIAL},
    checks={"every_image_once": "Is every image of the delivery here once, in its order?"},
)
def attributes(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    joint_features: VectorTable,
    groups: VectorTable,
    clusters: dict[str, VectorTable],
    ranked_outliers: pd.DataFrame,
) -> Result:
    """The answer for every image: each attribute and how sure it is, and whether the image is an outlier.

    Learned from what people say in `Names`; before any answer the values are empty and the confidences 0.
    """
    paths = image_index[IMAGE_PATH]
    require_same_images(image_index, joint_features.column(IMAGE_PATH).to_pandas(), "joint_features")
    X = joint_features.vectors("features").to_array()
    usable = finite_rows(X)
    fit = FitTables(joint_features, groups, clusters)
    asked = read_asked(settings.data_root, settings.config.attributes, fit, settings.config.seed)
    columns: dict[str, Any] = {IMAGE_PATH: paths}
    for name, model in fit_answers(asked, joint_features).items():
        value, confidence = predict_values(model, X, usable, asked.answers[name])
        columns |= {name: value, f"{name}_confidence": confidence}
        context.log.info("attributes · %s · %d answers", name, len(asked.answers[name]))
    frame = pd.DataFrame(columns)
    frame = overrule(frame.assign(**verdict_on(paths, ranked_outliers)), asked.single.outliers)
    frame["status"] = np.where(usable, "ok", UNUSABLE)
    complete = frame[IMAGE_PATH].tolist() == paths.tolist()
    shown = frame.head(8).round(3)
    return Result(
        frame,
        lambda: {
            "answers": int(sum(map(len, asked.clusters.values())) + len(asked.images)),
            **settled_shares(frame, settings.config.attributes),
            "outliers": int(frame["is_outlier"].sum()),
            "first_rows": dg.MetadataValue.md(shown.to_markdown(index=False)),
        },
        lambda: [Check("every_image_once", complete, {"rows": len(frame)})],
        asked.notices,
    )


def settled_shares(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, float]:
    """Share of the images whose value is settled, by attribute, as metadata."""
    return {f"settled_{name}": settled_share(frame[f"{name}_confidence"].to_numpy()) for name in names}


@stage(group="results", kinds=("csv",), partitioned=False)
def review(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    joint_features: VectorTable,
    groups: VectorTable,
    attributes: pd.DataFrame,
) -> Result:
    """What to ask next, best first: groups and images, what to look at, and what the answer would settle.

    Groups of all descriptors are asked about alone: those of a single one settle less. An answer goes into
    `Names/<descriptor>.csv`, where the descriptor is `groups`, one to an image into `Names/images.csv`.
    """
    config = settings.config
    paths = attributes[IMAGE_PATH]
    tree = tree_of(groups)
    fit = FitTables(joint_features, groups)
    asked = read_asked(settings.data_root, config.attributes, fit, config.seed)
    nodes, candidates = tree_candidates(tree)
    done = np.flatnonzero(np.isin(nodes, list(asked.clusters[GROUPS]))).tolist()
    known = np.zeros(len(paths), bool)
    known[asked.images] = True
    values = {
        name: (attributes[name].to_numpy(object), attributes[f"{name}_confidence"].to_numpy(float))
        for name in config.attributes
    }
    questions = rank_questions(
        candidates,
        {name: p for name, pair in values.items() if (p := posterior(*pair)).size},
        done,
        config.review.questions,
        first=first_questions(tree, nodes),
        density=density_of(joint_features),
        known=known,
    )
    features = joint_features.vectors("features")
    asking = []
    for question in questions:
        is_image = question.candidate.kind == "image"
        members = question.candidate.members
        shown = paths.iloc[sheet(features.take(members), members, config.seed)].tolist()
        asking.append(
            {
                "kind": question.candidate.kind,
                "descriptor": "" if is_image else GROUPS,
                "cluster": None if is_image else int(nodes[question.index]),
                IMAGE_PATH: shown[0] if is_image else "",
                "images": json.dumps(shown, ensure_ascii=False),
                "attributes": "; ".join(question.attributes or config.attributes),
                "gain": question.gain,
            }
        )
    frame = pd.DataFrame(asking if config.attributes else [], columns=list(REVIEW_COLUMNS))
    frame["cluster"] = frame["cluster"].astype("Int64")
    return Result(
        frame,
        lambda: {
            "questions": len(frame),
            "next": dg.MetadataValue.md(frame.drop(columns="images").head(8).to_markdown(index=False)),
        },
    )


def density_of(joint_features: VectorTable) -> np.ndarray:
    """How typical each image is, in (0, 1] by its distance to its neighbors; 0 for images without features."""
    distances = joint_features.vectors("distances").to_array()
    density: np.ndarray = np.nan_to_num(1 / (1 + distances.mean(axis=1)))
    return density
