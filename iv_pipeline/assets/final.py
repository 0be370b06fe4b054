"""Stages `final`, `ranked_outliers` and `summary`: the CSVs that are handed on."""

from collections.abc import Mapping

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.clusters import changes_of
from iv_pipeline.assets.delivery import gallery, open_delivery
from iv_pipeline.assets.image_index import require_same_images
from iv_pipeline.assets.image_quality import NO_IMAGES
from iv_pipeline.assets.init import STATUS
from iv_pipeline.assets.outliers import SHOWN_IMAGES
from iv_pipeline.assets.stage import PARTIAL, Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.errors import Notice
from iv_pipeline.learn.comparison import rank_descriptors
from iv_pipeline.learn.evaluation import evaluate, judge_ranking
from iv_pipeline.learn.image_quality import LEAST_READ, read_enough
from iv_pipeline.learn.labelling import status_of
from iv_pipeline.learn.outliers import combine_outliers, flag
from iv_pipeline.storage.answers import read_answers
from iv_pipeline.storage.hand_off import read_csv
from iv_pipeline.storage.layout import NAMES, file_of
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable


@stage(
    group="results",
    kinds=("csv",),
    checks={"every_image_once": "Is every image of the delivery here once, in its order?"},
)
def final(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    init: VectorTable,
    clusters: VectorTable,
    outliers: pd.DataFrame,
    cluster_profiles: pd.DataFrame,
) -> Result:
    """The labelled delivery: cluster, confidence, outlier verdict, status and name of every image."""
    cluster = clusters.column("cluster").to_numpy()
    reasons = init.column(STATUS).to_numpy(zero_copy_only=False)
    given = read_answers(settings.data_root, context.partition_key)
    names = cluster_names(given.names, cluster_profiles)
    doubtful = _doubtful_names(context.partition_key, clusters, given.names, names)
    frame = pd.DataFrame(
        {
            IMAGE_PATH: clusters.column(IMAGE_PATH).to_pandas(),
            "cluster": cluster,
            "confidence": clusters.column("confidence").to_numpy(),
            "is_outlier": outliers["is_outlier"],
            "outlier_score": outliers["score"],
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


@stage(group="results", kinds=("csv",), partitioned=False, ins={"outliers": PARTIAL}, code_version="2")
def ranked_outliers(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    outliers: dict[str, pd.DataFrame],
    image_quality: pd.DataFrame,
) -> Result:
    """All images over all descriptors, most suspicious first, with reasons in words."""
    may_judge = read_enough(image_quality)
    quality = image_quality if may_judge else None
    frame = combine_outliers(outliers, quality, image_index[IMAGE_PATH].to_list())
    frame["is_outlier"] = flag(frame["score"].to_numpy(np.float32), settings.config.outliers.contamination)
    judged = _judged(frame, settings, image_index)
    shown = frame.head(12).round(3)
    return Result(
        frame,
        lambda: {
            "descriptors": len(outliers),
            "with_reasons": int((frame["reasons"] != "").sum()),
            **judged,
            **gallery(open_delivery(settings).archive(), frame[IMAGE_PATH].head(SHOWN_IMAGES)),
            "most_suspicious": dg.MetadataValue.md(shown.to_markdown(index=False)),
        },
        notices=[] if may_judge or _has_none(image_quality) else [_too_few(image_quality)],
    )


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
    shares = {name: table["is_outlier"].mean() for name, table in final.items()}
    frame["outlier_share"] = frame["descriptor"].map(shares)
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
