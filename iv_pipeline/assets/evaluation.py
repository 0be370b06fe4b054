"""Stages `evaluation` and `descriptor_accuracy`: what answers are worth, and what each descriptor tells."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.answering import FitTables, read_asked
from iv_pipeline.assets.attributes import density_of
from iv_pipeline.assets.image_index import require_same_images, true_labels
from iv_pipeline.assets.stage import PARTIAL, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.errors import Notice
from iv_pipeline.learn.attributes import votes_on
from iv_pipeline.learn.evaluation import descriptor_accuracy as judge_descriptors
from iv_pipeline.learn.simulation import COLUMNS, Pool, learning_curve
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.report import plots
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

MAX_ROWS = 20_000
"""Labeled images that take part: a curve of more looks the same."""


@stage(group="results", kinds=("scikitlearn", "csv"), partitioned=False, heavy=True)
def evaluation(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    joint_features: VectorTable,
) -> Result:
    """What answers are worth where true labels exist: accuracy, coverage and calibration by their number.

    A simulated person answers the questions of `review`; as many images at random and all labels are shown beside.
    It takes no part in any choice. Empty where the delivery has no labels.
    """
    require_same_images(image_index, joint_features.column(IMAGE_PATH).to_pandas(), "joint_features")
    labels = true_labels(image_index)
    known = np.zeros(len(image_index), bool)
    for column in labels.values():
        known |= column.notna().to_numpy()
    rows = np.flatnonzero(known)
    rows = np.sort(np.random.default_rng(settings.config.seed).permutation(rows)[:MAX_ROWS])
    labels = true_labels(image_index.iloc[rows])
    pool = Pool(
        joint_features.vectors("features").take(rows),
        joint_features.vectors("embedding").take(rows),
        density_of(joint_features)[rows],
        labels,
    )
    frame = learning_curve(pool, settings.config.seed) if labels else pd.DataFrame(columns=list(COLUMNS))
    context.log.info("evaluation · %d labeled images", len(rows))
    return Result(
        frame,
        lambda: {
            "evaluated": len(rows),
            **_last_accuracies(frame),
            "curve": dg.MetadataValue.md(frame.round(3).to_markdown(index=False)),
            **(
                {"plot": dg.MetadataValue.md(plots.inline(plots.learning_curves(frame)))}
                if len(frame)
                else {}
            ),
        },
    )


def _last_accuracies(frame: pd.DataFrame) -> dict[str, float]:
    """Accuracy of each attribute after the most answers."""
    asked = frame[frame["strategy"] == "questions"]
    last = asked.drop_duplicates("attribute", keep="last").set_index("attribute")["accuracy"]
    return {f"accuracy_{name}": float(value) for name, value in last.dropna().items()}


@stage(group="results", kinds=("pandas", "csv"), partitioned=False, ins={"clusters": PARTIAL})
def descriptor_accuracy(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    joint_features: VectorTable,
    groups: VectorTable,
    clusters: dict[str, VectorTable],
) -> Result:
    """Which descriptor tells which attribute, by what people answered and by true labels where there are any.

    Empty as long as nobody has answered and there are no labels.
    """
    config = settings.config
    for name, table in {"joint_features": joint_features, "groups": groups}.items():
        require_same_images(image_index, table.column(IMAGE_PATH).to_pandas(), name)
    paths = joint_features.column(IMAGE_PATH)
    known = {name: table for name, table in clusters.items() if table.column(IMAGE_PATH).equals(paths)}
    asked = read_asked(
        settings.data_root, config.attributes, FitTables(joint_features, groups, known), config.seed
    )
    usable = finite_rows(joint_features.vectors("embedding").to_array())
    frame = judge_descriptors(
        {name: table.column("cluster").to_numpy() for name, table in known.items()},
        true_labels(image_index),
        {name: votes_on(answers, usable) for name, answers in asked.answers.items()},
        config.seed,
    )
    best = frame[frame["rank"] == 1]
    context.log.info("descriptor_accuracy · %d attributes", best["attribute"].nunique())
    return Result(
        frame,
        lambda: {
            "attributes": int(best["attribute"].nunique()),
            "best": dg.MetadataValue.md(best.round(3).to_markdown(index=False)),
        },
        notices=[
            Notice(
                "is not judged: its clusters are of other images than the joint features",
                where=f"descriptor {name}",
                fix="run full_pipeline for it again",
            )
            for name in clusters
            if name not in known
        ],
    )
