"""Stages `attributes` and `review`: the answer for every image, and what to ask next."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.final import overrule, verdict_on
from iv_pipeline.assets.image_index import require_same_images
from iv_pipeline.assets.joint_features import tree_of
from iv_pipeline.assets.stage import PARTIAL, Check, Result, stage
from iv_pipeline.config import GROUPS, Settings
from iv_pipeline.engine import ArrayBatches, map_rows
from iv_pipeline.errors import Notice
from iv_pipeline.learn.attributes import Answer, AttributeClassifier, votes_of
from iv_pipeline.learn.groups import sheet
from iv_pipeline.learn.questions import Candidate, first_questions, rank_questions, tree_candidates
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.answers import ImageAnswers, read_answers, read_image_answers
from iv_pipeline.storage.layout import NAMES
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

UNUSABLE = "unusable: no descriptor has a usable vector"
REVIEW_COLUMNS = ("kind", "descriptor", "cluster", "image_path", "images", "attributes", "gain")


@dataclass(frozen=True)
class Asked:
    """What people have been asked about images of the fit, and what they said.

    Attributes
    ----------
    answers
        By attribute, also those that left it open.
    clusters
        By descriptor, or `groups`, the clusters that were asked about.
    images
        Rows that were asked about alone.
    notices
        What is odd about the files.
    """

    answers: Mapping[str, list[Answer]]
    clusters: Mapping[str, frozenset[int]]
    images: np.ndarray
    single: ImageAnswers
    notices: list[Notice]


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
    asked = read_asked(settings, paths, joint_features, groups, clusters)
    columns: dict[str, Any] = {IMAGE_PATH: paths}
    for name in settings.config.attributes:
        value, confidence = _predict(asked.answers.get(name, []), X, usable)
        columns |= {name: value, f"{name}_confidence": confidence}
        context.log.info("attributes · %s · %d answers", name, len(asked.answers.get(name, [])))
    frame = pd.DataFrame(columns)
    frame = overrule(frame.assign(**verdict_on(paths, ranked_outliers)), asked.single.outliers)
    frame["status"] = np.where(usable, "ok", UNUSABLE)
    complete = frame[IMAGE_PATH].tolist() == paths.tolist()
    shown = frame.head(8).round(3)
    return Result(
        frame,
        lambda: {
            "answers": int(sum(map(len, asked.clusters.values())) + len(asked.images)),
            **{f"settled_{a}": _settled(frame, a) for a in settings.config.attributes},
            "outliers": int(frame["is_outlier"].sum()),
            "first_rows": dg.MetadataValue.md(shown.to_markdown(index=False)),
        },
        lambda: [Check("every_image_once", complete, {"rows": len(frame)})],
        asked.notices,
    )


def _settled(frame: pd.DataFrame, attribute: str) -> float:
    """Share of the images whose value is at least 0.95 sure."""
    return float((frame[f"{attribute}_confidence"] >= 0.95).mean())


def read_asked(
    settings: Settings,
    paths: "pd.Series[str]",
    joint_features: VectorTable,
    groups: VectorTable,
    clusters: Mapping[str, VectorTable],
) -> Asked:
    """The files in `Names`, as answers about rows."""
    config, root = settings.config, settings.data_root
    answers: dict[str, list[Answer]] = {name: [] for name in config.attributes}
    asked: dict[str, frozenset[int]] = {}
    notices: list[Notice] = []
    embedding = joint_features.vectors("embedding").to_array()
    for name in [GROUPS, *clusters]:
        given = read_answers(root, name, config.attributes)
        notices += given.notices
        asked[name] = given.asked
        if not given.asked:
            continue
        members = _members_of(name, given.asked, groups, clusters)
        gone = [number for number in sorted(given.asked) if not len(members[number])]
        if gone:
            notices.append(_gone(name, gone))
        for number in sorted(given.asked - set(gone)):
            rows = members[number]
            shown = sheet(embedding, rows, config.seed)
            for attribute, values in answers.items():
                values.append(Answer(rows, shown, given.said.get(attribute, {}).get(number)))
    single = read_image_answers(root, config.attributes)
    notices += single.notices
    row_of = pd.Series(np.arange(len(paths)), index=paths)
    unknown = [path for path in single.asked | single.outliers.keys() if path not in row_of.index]
    if unknown:
        notices.append(_unknown(unknown))
    images = row_of.reindex(sorted(single.asked)).dropna().to_numpy(np.int64)
    for attribute, values in answers.items():
        of_images = single.said.get(attribute, {})
        for row in images:
            value = of_images.get(paths.iloc[row])
            if value is not None:
                values.append(Answer(np.array([row]), np.array([row]), value))
    return Asked(answers, asked, images, single, notices)


def _members_of(
    name: str, numbers: frozenset[int], groups: VectorTable, clusters: Mapping[str, VectorTable]
) -> dict[int, np.ndarray]:
    if name == GROUPS:
        tree = tree_of(groups)
        none = np.empty(0, np.int64)
        return {n: tree.members(n) if 0 <= n < tree.n_nodes else none for n in numbers}
    cluster = clusters[name].column("cluster").to_numpy()
    return {n: np.flatnonzero(cluster == n) if n >= 0 else np.empty(0, np.int64) for n in numbers}


def _gone(name: str, numbers: Sequence[int]) -> Notice:
    some = ", ".join(map(str, numbers[:5])) + (" and others" if len(numbers) > 5 else "")
    return Notice(
        f"answers about {some} count for nothing: there are no such clusters",
        where=NAMES.format(descriptor=name),
        fix="remove these lines, or correct the numbers",
    )


def _unknown(paths: Sequence[str]) -> Notice:
    return Notice(
        f"{len(paths):,} images are not in the delivery, such as {min(paths)!r}",
        where=NAMES.format(descriptor="images"),
        fix="write their paths as in Final/attributes.csv",
    )


def _predict(answers: Sequence[Answer], X: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and confidence of every image; what people say of a single image is certain."""
    value, confidence = np.full(len(X), "", object), np.zeros(len(X), np.float32)
    votes = votes_of(
        [answer for answer in answers if not answer.is_fact or usable[answer.members[0]]], len(X)
    )
    learned = usable[votes.rows]
    if learned.any():
        rows = votes.rows[learned]
        model = AttributeClassifier().fit(
            X[rows], votes.labels[learned], votes.weights[learned], votes.groups[learned]
        )
        p = np.concatenate(list(map_rows(model.predict_proba, ArrayBatches(X[usable]))))
        value[usable] = model.classes_[p.argmax(axis=1)]
        confidence[usable] = p.max(axis=1)
    for answer in answers:
        if answer.is_fact and answer.value is not None:
            value[answer.members], confidence[answer.members] = answer.value, 1
    return value, confidence


@stage(group="results", kinds=("csv",), partitioned=False, ins={"clusters": PARTIAL})
def review(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    joint_features: VectorTable,
    groups: VectorTable,
    clusters: dict[str, VectorTable],
    attributes: pd.DataFrame,
) -> Result:
    """What to ask next, best first: clusters and images, what to look at, and what the answer would settle.

    An answer to a cluster goes into `Names/<descriptor>.csv`, one to an image into `Names/images.csv`.
    """
    config = settings.config
    paths = attributes[IMAGE_PATH]
    embedding = joint_features.vectors("embedding").to_array()
    tree = tree_of(groups)
    asked = read_asked(settings, paths, joint_features, groups, clusters)
    nodes, candidates = tree_candidates(tree, embedding, config.seed)
    names = [(GROUPS, int(node)) for node in nodes]
    for name, table in clusters.items():
        cluster = table.column("cluster").to_numpy()
        for number in np.unique(cluster[cluster >= 0]).tolist():
            rows = np.flatnonzero(cluster == number)
            candidates.append(Candidate("cluster", rows, sheet(embedding, rows, config.seed)))
            names.append((name, number))
    position = {key: i for i, key in enumerate(names)}
    done = [position[d, c] for d, numbers in asked.clusters.items() for c in numbers if (d, c) in position]
    known = np.zeros(len(paths), bool)
    known[asked.images] = True
    questions = rank_questions(
        candidates,
        posterior_of(attributes, config.attributes),
        done,
        config.review.questions,
        first=first_questions(tree, nodes),
        density=_density(joint_features),
        known=known,
    )
    asking = []
    for question in questions:
        is_image = question.candidate.kind == "image"
        descriptor, number = ("", None) if is_image else names[question.index]
        shown = [paths.iloc[row] for row in question.candidate.shown]
        asking.append(
            {
                "kind": question.candidate.kind,
                "descriptor": descriptor,
                "cluster": number,
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


def _density(joint_features: VectorTable) -> np.ndarray:
    """How typical each image is, in (0, 1] by its distance to its neighbors; 0 for images without features."""
    distances = joint_features.vectors("distances").to_array()
    density: np.ndarray = np.nan_to_num(1 / (1 + distances.mean(axis=1)))
    return density


def posterior_of(attributes: pd.DataFrame, names: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Probabilities of each value: what is not the confidence of the value given is spread over the others.

    Empty before any answer.
    """
    found = {}
    for name in names:
        codes, values = pd.factorize(attributes[name].where(attributes[name] != ""))
        if not len(values):
            continue
        confidence = attributes[f"{name}_confidence"].to_numpy(float)
        p = np.repeat(((1 - confidence) / max(len(values) - 1, 1))[:, None], len(values), axis=1)
        known = codes >= 0
        p[~known] = 0
        p[known, codes[known]] = confidence[known]
        found[name] = p
    return found
