"""What people say in `Names` as answers about images of the fit, which `attributes` and new images learn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.config import GROUPS, IMAGES
from iv_pipeline.errors import Notice
from iv_pipeline.learn.attributes import Answer, fit_votes, votes_on
from iv_pipeline.learn.groups import GroupTree, sheet
from iv_pipeline.learn.joint_features import JointFeatures
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.storage.answers import ImageAnswers, read_answers, read_image_answers
from iv_pipeline.storage.formats import arrays_from_bytes, arrays_to_bytes
from iv_pipeline.storage.layout import NAMES, file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable, read_table, table_from_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray
    from upath import UPath

    from iv_pipeline.learn.attribute_classifier import AttributeClassifier
    from iv_pipeline.storage.answers import Values

FIT_KEY = b"iv_pipeline.joint_features"
"""Under which `joint_features` keeps what turns raw vectors into joint features."""
TREE_KEY = b"iv_pipeline.groups"
"""Under which `groups` keeps how its leaves were merged."""
LEAF = "leaf"
"""Its column, and array of the tree, with the leaf of each image."""


@dataclass(frozen=True)
class FitTables:
    """Tables of a fit that answers refer to.

    Attributes
    ----------
    joint_features, groups
        Tables of these stages.
    clusters
        Tables of the stage `clusters`, by descriptor.
    """

    joint_features: VectorTable
    groups: VectorTable
    clusters: Mapping[str, VectorTable] = field(default_factory=dict)


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
    single
        Answers about single images, also about those that are not in the fit.
    notices
        What is odd about the files.
    """

    answers: Mapping[str, list[Answer]]
    clusters: Mapping[str, frozenset[int]]
    images: NDArray[np.int64]
    single: ImageAnswers
    notices: list[Notice]


def fit_of_joint(table: VectorTable) -> JointFeatures:
    """What turns raw vectors into joint features, as `joint_features` stored it."""
    return JointFeatures.from_arrays(arrays_from_bytes(table.schema.metadata[FIT_KEY]))


def tree_of(table: VectorTable) -> GroupTree:
    """The tree of the groups, as `groups` stored it."""
    arrays = arrays_from_bytes(table.schema.metadata[TREE_KEY])
    return GroupTree.from_arrays({**arrays, LEAF: table.column(LEAF).to_numpy()})


def table_of_tree(paths: pa.Array, tree: GroupTree) -> VectorTable:
    """A tree as `groups` stores it: the leaf of each image, and how leaves were merged."""
    merges = {name: array for name, array in tree.to_arrays().items() if name != LEAF}
    return table_from_arrays(
        {IMAGE_PATH: paths, LEAF: tree.leaf}, metadata={TREE_KEY: arrays_to_bytes(merges)}
    )


def read_fit_tables(data_root: UPath, descriptors: Iterable[str]) -> FitTables | None:
    """The tables of the last fit; None if it has no joint features or groups, as one by an earlier version.

    Parameters
    ----------
    data_root
        Where the pipeline wrote.
    descriptors
        Descriptors and combinations whose clusters answers may be about; those without clusters are left out.
    """
    paths = [data_root / file_of(stage) for stage in ("joint_features", "groups")]
    if not all(path.exists() for path in paths):
        return None
    joint, groups = map(read_table, paths)
    if FIT_KEY not in (joint.schema.metadata or {}) or TREE_KEY not in (groups.schema.metadata or {}):
        return None
    clusters = {name: data_root / file_of("clusters", name) for name in descriptors}
    return FitTables(
        joint, groups, {name: read_table(path) for name, path in clusters.items() if path.exists()}
    )


def read_asked(data_root: UPath, attributes: Values, fit: FitTables, seed: int) -> Asked:
    """The files in `Names`, as answers about rows of the fit.

    Parameters
    ----------
    data_root
        Where `Names` lies.
    attributes
        Attributes, and the values that each may have; None for any.
    fit
        The tables that answers refer to.
    seed
        Seed by which the images of a cluster were chosen that a person looked at.

    Raises
    ------
    InputError
        If a file cannot be read, or has values that its attribute cannot have; with file and line.
    """
    paths = fit.joint_features.column(IMAGE_PATH)
    answers: dict[str, list[Answer]] = {name: [] for name in attributes}
    asked: dict[str, frozenset[int]] = {}
    notices: list[Notice] = []
    features = fit.joint_features.vectors("features")
    for name, table in {GROUPS: fit.groups, **fit.clusters}.items():
        given = read_answers(data_root, name, attributes)
        notices += given.notices
        asked[name] = given.asked
        if not given.asked:
            continue
        if not table.column(IMAGE_PATH).equals(paths):
            notices.append(_of_other_images(name))
            continue
        members = _members_of(name, given.asked, table)
        gone = [number for number in sorted(given.asked) if not len(members[number])]
        if gone:
            notices.append(_gone(name, gone))
        for number in sorted(given.asked - set(gone)):
            rows = members[number]
            shown = sheet(features.take(rows), rows, seed)
            for attribute, values in answers.items():
                values.append(Answer(rows, shown, given.said.get(attribute, {}).get(number)))
    single = read_image_answers(data_root, attributes)
    notices += single.notices
    row_of = {path: row for row, path in enumerate(paths.to_pylist())}
    unknown = [path for path in single.asked | single.outliers.keys() if path not in row_of]
    if unknown:
        notices.append(_unknown(unknown))
    known = {path: row_of[path] for path in sorted(single.asked) if path in row_of}
    for attribute, values in answers.items():
        of_images = single.said.get(attribute, {})
        rows_said = [(np.array([row]), of_images[path]) for path, row in known.items() if path in of_images]
        values += [Answer(row, row, value) for row, value in rows_said]
    return Asked(answers, asked, np.array(list(known.values()), np.int64), single, notices)


def fit_answers(asked: Asked, joint_features: VectorTable) -> dict[str, AttributeClassifier | None]:
    """Classifier of each attribute, learned from its answers; None where there are none."""
    usable = finite_rows(joint_features.vectors("embedding").to_array())
    features = joint_features.vectors("features")
    models = {}
    for name, answers in asked.answers.items():
        votes = votes_on(answers, usable)
        rows, row_of_vote = np.unique(votes.rows, return_inverse=True)
        models[name] = fit_votes(votes, features.take(rows)[row_of_vote])
    return models


def _members_of(name: str, numbers: frozenset[int], table: VectorTable) -> dict[int, NDArray[np.int64]]:
    none = np.empty(0, np.int64)
    if name == GROUPS:
        tree = tree_of(table)
        return {n: tree.members(n) if 0 <= n < tree.n_nodes else none for n in numbers}
    cluster = table.column("cluster").to_numpy()
    return {n: np.flatnonzero(cluster == n) if n >= 0 else none for n in numbers}


def _of_other_images(name: str) -> Notice:
    tables = "groups" if name == GROUPS else f"clusters of {name}"
    return Notice(
        f"answers count for nothing as long as the {tables} are of other images than the joint features",
        where=NAMES.format(descriptor=name),
        fix=f"materialize {tables} again",
    )


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
        where=NAMES.format(descriptor=IMAGES),
        fix="write their paths as in Final/attributes.csv",
    )
