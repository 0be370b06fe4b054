"""Stages `final`, `ranked_outliers` and `summary`: the CSVs that are handed on."""

from collections.abc import Mapping

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.answering import tree_of
from iv_pipeline.assets.clusters import changes_of
from iv_pipeline.assets.delivery import gallery, open_delivery
from iv_pipeline.assets.image_index import require_same_images
from iv_pipeline.assets.image_quality import NO_IMAGES
from iv_pipeline.assets.init import STATUS
from iv_pipeline.assets.joint_features import anomaly_of
from iv_pipeline.assets.outliers import SHOWN_IMAGES
from iv_pipeline.assets.stage import PARTIAL, Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.errors import InputError, Notice
from iv_pipeline.learn.comparison import rank_descriptors
from iv_pipeline.learn.confidence import cluster_confidence
from iv_pipeline.learn.evaluation import evaluate, judge_ranking
from iv_pipeline.learn.image_quality import LEAST_READ, read_enough
from iv_pipeline.learn.labelling import status_of
from iv_pipeline.learn.verdict import outlier_verdict
from iv_pipeline.storage.answers import read_answers, read_image_answers
from iv_pipeline.storage.hand_off import read_csv
from iv_pipeline.storage.layout import NAMES, file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

OVERRULED = "a person says so"
"""Reason of a verdict that people have given."""


@stage(
    group="results",
    kinds=("csv",),
    code_version="2",
    checks={"every_image_once": "Is every image of the delivery here once, in its order?"},
)
def final(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    init: VectorTable,
    clusters: VectorTable,
    cluster_profiles: pd.DataFrame,
    groups: VectorTable,
    ranked_outliers: pd.DataFrame,
) -> Result:
    """The labelled delivery: cluster, confidence, outlier verdict, status and name of every image.

    Confidence and verdict are over all descriptors; the verdict is the same for each of them.
    """
    require_same_images(image_index, groups.column(IMAGE_PATH).to_pandas(), "groups")
    cluster = clusters.column("cluster").to_numpy()
    reasons = init.column(STATUS).to_numpy(zero_copy_only=False)
    given = read_answers(settings.data_root, context.partition_key)
    names = cluster_names(given.names, cluster_profiles)
    doubtful = _doubtful_names(context.partition_key, clusters, given.names, names)
    paths = clusters.column(IMAGE_PATH).to_pandas()
    frame = pd.DataFrame(
        {
            IMAGE_PATH: paths,
            "cluster": cluster,
            "confidence": cluster_confidence(cluster, tree_of(groups)),
            **verdict_on(paths, ranked_outliers),
            "status": status_of(cluster, reasons),
            "name": pd.Series(cluster).map(names).fillna(""),
        }
    )
    complete = frame[IMAGE_PATH].tolist() == image_index[IMAGE_PATH].tolist()
    return Result(
        frame,
        lambda: {
            "outliers": int(frame["is_outlier"].sum()),
            "noise_share": float((frame["status"] == "noise").mean()),
            "unusable_rows": int((reasons != "").sum()),
            "names_to_look_at": len(doubtful),
            "first_rows": dg.MetadataValue.md(frame.head(8).to_markdown(index=False)),
        },
        lambda: [Check("every_image_once", complete, {"rows": len(frame)})],
        [*given.notices, *doubtful],
    )


def verdict_on(paths: "pd.Series[str]", ranked_outliers: pd.DataFrame) -> dict[str, np.ndarray]:
    """The verdict on images, as columns of a Final CSV, in the order of `paths`.

    Raises
    ------
    InputError
        If there is none on one of them.
    """
    verdict = ranked_outliers.set_index(IMAGE_PATH).reindex(paths)
    if verdict["is_outlier"].isna().any():
        raise InputError(
            "the verdicts are of other images",
            where=file_of("ranked_outliers"),
            fix="run 'prepare' again",
        )
    return {
        "is_outlier": verdict["is_outlier"].to_numpy(bool),
        "outlier_score": verdict["score"].to_numpy(np.float64),
        "reasons": verdict["reasons"].to_numpy(object),
    }


def cluster_names(given: Mapping[int, str], profiles: pd.DataFrame) -> dict[int, str]:
    """Names that people gave, and proposed ones for the other clusters."""
    proposed = dict(zip(profiles["cluster"].astype(int), profiles["proposed_name"], strict=True))
    return proposed | {number: name for number, name in given.items() if number in proposed}


def _doubtful_names(
    descriptor: str, clusters: VectorTable, given: Mapping[int, str], names: Mapping[int, str]
) -> list[Notice]:
    """Names that people gave to clusters that are gone or have lost a part since."""
    became = changes_of(clusters, descriptor).set_index("cluster")["change"]
    found = {n: became.get(n, "unknown" if n not in names else "kept") for n in given}
    return [
        Notice(
            f"cluster {number}, which a person named {given[number]!r}, is {change} since the previous fit",
            where=NAMES.format(descriptor=descriptor),
            fix="look whether the name still fits",
        )
        for number, change in found.items()
        if change not in {"kept", "new"}
    ]


@stage(group="outliers", kinds=("csv",), partitioned=False, code_version="3")
def ranked_outliers(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    image_quality: pd.DataFrame,
    joint_features: VectorTable,
) -> Result:
    """The verdict on every image, by its picture and by all descriptors; most suspicious first, with reasons."""
    require_same_images(image_index, joint_features.column(IMAGE_PATH).to_pandas(), "joint_features")
    config = settings.config
    paths = image_index[IMAGE_PATH]
    quality = image_quality.set_index(IMAGE_PATH).reindex(paths).reset_index()
    may_judge = read_enough(quality)
    anomaly = {name: joint_features.column(anomaly_of(name)).to_numpy() for name in config.descriptors}
    verdict = outlier_verdict(quality if may_judge else None, anomaly, config.outliers.contamination)
    people = read_image_answers(settings.data_root, config.attributes)
    frame = pd.DataFrame(
        {
            IMAGE_PATH: paths,
            "score": verdict["outlier_score"],
            "is_outlier": verdict["is_outlier"],
            "reasons": verdict["reasons"].astype(object),
            "quality_score": quality["score"].fillna(0) if may_judge else 0.0,
            "anomaly": np.fmax.reduce(list(anomaly.values())),
            "duplicate_group": quality["duplicate_group"].fillna(-1).astype(np.int32) if may_judge else -1,
        }
    )
    frame = overrule(frame, people.outliers)
    frame = frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    judged = _judged(frame, settings, image_index)
    shown = frame.head(12).round(3)
    return Result(
        frame,
        lambda: {
            "outliers": int(frame["is_outlier"].sum()),
            "outlier_share": float(frame["is_outlier"].mean()),
            "overruled": len(people.outliers),
            **judged,
            **gallery(open_delivery(settings).archive(), frame[IMAGE_PATH].head(SHOWN_IMAGES)),
            "most_suspicious": dg.MetadataValue.md(shown.to_markdown(index=False)),
        },
        notices=[] if may_judge or _has_none(image_quality) else [_too_few(image_quality)],
    )


def overrule(frame: pd.DataFrame, people: Mapping[str, bool]) -> pd.DataFrame:
    """Verdicts on images, where people have given another one theirs; scores stay what they are."""
    given = frame[IMAGE_PATH].map(people)
    differs = given.notna() & (given != frame["is_outlier"])
    frame = frame.copy()
    frame.loc[differs, "is_outlier"] = given[differs].astype(bool)
    frame.loc[differs, "reasons"] = np.where(given[differs].astype(bool), OVERRULED, "")
    return frame


def _has_none(image_quality: pd.DataFrame) -> bool:
    return bool((image_quality["error"] == NO_IMAGES).all())


def _too_few(image_quality: pd.DataFrame) -> Notice:
    n_read = int(image_quality["error"].isna().sum())
    return Notice(
        f"pictures take no part in the ranking of outliers: {n_read:,} of {len(image_quality):,} could be read, "
        f"fewer than {LEAST_READ:.0%}",
        where=file_of("ranked_outliers"),
        fix="do what the notices of image_quality say",
    )


def _judged(frame: pd.DataFrame, settings: Settings, image_index: pd.DataFrame) -> dict[str, float]:
    """How well the ranking finds the images whose true label says that they should be found."""
    config = settings.config.outliers
    if "label" not in image_index:
        return {}
    wanted = set(image_index.loc[image_index["label"].isin(config.labels), IMAGE_PATH])
    if not wanted:
        return {}
    return judge_ranking(frame[IMAGE_PATH].isin(wanted).to_numpy(), config.contamination)


@stage(
    group="results",
    kinds=("csv",),
    partitioned=False,
    ins={"clustering_trials": PARTIAL, "final": PARTIAL},
    code_version="3",
)
def summary(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    clustering_trials: dict[str, pd.DataFrame],
    final: dict[str, pd.DataFrame],
) -> Result:
    """One row a descriptor, best first: what was chosen, its scores, why, and its rank before the ranks changed.

    Where true labels exist, how well its clusters label is shown beside; it takes no part in the rank.
    """
    for name, table in final.items():
        require_same_images(image_index, table[IMAGE_PATH], name)
    winners = {name: trials[trials["won"]].iloc[0] for name, trials in clustering_trials.items()}
    frame = rank_descriptors(winners, {name: settings.config.blocks(name) for name in winners})
    frame = _with_counts_of(final, frame)
    if "label" in image_index:
        truth = {name: evaluate(t["cluster"].to_numpy(), image_index["label"]) for name, t in final.items()}
        frame = frame.merge(pd.DataFrame(truth).T, left_on="descriptor", right_index=True, how="left")
    frame["previous_rank"] = _previous_ranks(settings, frame)
    best = frame.iloc[0]
    context.log.info("best: %s, %s", best["descriptor"], best["reason"])
    return Result(
        frame,
        lambda: {
            "best": f"{best['descriptor']}: {best['reason']}",
            "summary": dg.MetadataValue.md(
                frame.drop(columns=["reason", "parameters"]).round(3).to_markdown(index=False)
            ),
        },
    )


def _with_counts_of(final: Mapping[str, pd.DataFrame], frame: pd.DataFrame) -> pd.DataFrame:
    """The summary with the clusters and the noise of all images: a trial saw those of its sample."""
    frame = frame.set_index("descriptor", drop=False)
    for name in final.keys() & set(frame.index):
        cluster = final[name].loc[final[name]["status"].isin(["ok", "noise"]), "cluster"]
        frame.loc[name, "n_clusters"] = cluster[cluster >= 0].nunique()
        frame.loc[name, "noise_share"] = (cluster < 0).mean() if len(cluster) else np.nan
    return frame.reset_index(drop=True)


def _previous_ranks(settings: Settings, frame: pd.DataFrame) -> pd.Series:
    """Ranks of the last summary that had others, NaN where there was none or a descriptor was not in it."""
    path = settings.data_root / file_of("summary")
    if not path.exists():
        return pd.Series(np.nan, index=frame.index)
    stored = read_csv(path).set_index("descriptor")
    same = stored["rank"].to_dict() == frame.set_index("descriptor")["rank"].to_dict()
    # a summary that is made again does not make the change before it forgotten
    earlier = stored.get("previous_rank", pd.Series(dtype=float)) if same else stored["rank"]
    return frame["descriptor"].map(earlier.astype(float))
