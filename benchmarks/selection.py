"""Which criterion chooses well? Every trial of a finished run, made again and judged by true labels.

Labels judge the criteria and take no part in the trials. A criterion is judged by its rank correlation with the
accuracy of labelling among the clusterings at the naming budget, and by what its choice loses against the best of
them, in points.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from upath import UPath

from benchmarks.site import CONFIG
from iv_pipeline.assets.clustering_trials import try_all
from iv_pipeline.config import load_config
from iv_pipeline.learn.evaluation import label_accuracy
from iv_pipeline.learn.selection import BUDGET_TOLERANCE, described
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iv_pipeline.config import PipelineConfig

CRITERIA = {
    "predictability": 1,
    "stability": 1,
    "identity": 1,
    "calinski_harabasz": 1,
    "davies_bouldin": -1,
    "silhouette": 1,
}
"""Criteria, and whether more is better."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the criteria; prints two tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__)
    parser.add_argument("root", type=Path, help="data root of a finished run whose delivery has labels")
    parser.add_argument("--config", type=Path, default=CONFIG)
    given = parser.parse_args(arguments)
    config = load_config(given.config)
    index = pd.read_parquet(given.root / file_of("image_index"))
    if "label" not in index:
        sys.stderr.write(f"benchmarks: {given.root} has no labels: only a delivery with labels can judge\n")
        return 1
    judged = pd.concat(
        [judge_trials(config, name, given.root, index) for name in config.partitions], ignore_index=True
    )
    sys.stdout.write(criteria_table(judged, config.trials.naming_budget).to_markdown(floatfmt=".2f") + "\n\n")
    chosen = judged[judged["won"]].drop(columns="won")
    sys.stdout.write(chosen.to_markdown(index=False, floatfmt=".3f") + "\n")
    return 0


def judge_trials(config: PipelineConfig, name: str, root: Path, index: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial of a descriptor: its criteria, and the accuracy of labelling by its clusters."""
    selection, rows = try_all(
        config,
        name,
        read_table(UPath(root / file_of("scaled_pca", name))),
        read_table(UPath(root / file_of("views"))),
        index,
    )
    truth = index["label"].iloc[rows].reset_index(drop=True)
    return pd.DataFrame(
        [
            {
                "descriptor": name,
                "vectors": described(trial.scaler, trial.representation),
                "algorithm": trial.algorithm,
                "n_clusters": trial.n_clusters,
                **{criterion: trial.scores[criterion] for criterion in CRITERIA},
                "accuracy": label_accuracy(trial.clustering.labels, truth),
                "won": trial.won,
            }
            for trial in selection.trials
        ]
    )


def criteria_table(judged: pd.DataFrame, budget: int) -> pd.DataFrame:
    """For each criterion, means over descriptors of rank correlation and of points lost.

    Only clusterings at the budget count. Points lost are those of the clustering that the criterion likes best
    against the most accurate one.
    """
    at_budget = judged[judged["n_clusters"].between(BUDGET_TOLERANCE * budget, budget)]
    rows = {}
    for criterion, sign in CRITERIA.items():
        facts = [
            _judge(part, sign * part[criterion]) for _, part in at_budget.groupby("descriptor", sort=False)
        ]
        known = [fact for fact in facts if fact is not None]
        if known:
            rows[criterion] = {**pd.DataFrame(known).mean().to_dict(), "descriptors": len(known)}
    return pd.DataFrame(rows).T


def _judge(trials: pd.DataFrame, score: pd.Series[float]) -> dict[str, float] | None:
    """Rank correlation of a score with accuracy, and points lost; None where too few have the score."""
    known = score.notna()
    if known.sum() < 3 or score[known].nunique() < 2:
        return None
    accuracy = trials.loc[known, "accuracy"]
    chosen = accuracy.iloc[int(score[known].to_numpy().argmax())]
    return {
        "rank correlation": float(score[known].corr(accuracy, method="spearman")),
        "points lost": float(100 * (trials["accuracy"].max() - chosen)),
    }


if __name__ == "__main__":
    sys.exit(main())
