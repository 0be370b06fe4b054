"""Which criterion chooses well? Every trial of a finished run, made again and judged by true labels.

Labels judge the criteria and take no part in the trials. A criterion is judged by its rank correlation with the
accuracy of labelling among the clusterings at the naming budget, and by what its choice loses against the best of
them, in points. So is the rule for ties, by every column of labels: what it chooses among candidates whose order
may be chance, beside the candidate with the best score.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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
    parser.add_argument(
        "--seeds", type=int, default=1, help="trials of the one sample are made with so many seeds"
    )
    given = parser.parse_args(arguments)
    config = load_config(given.config)
    index = pd.read_parquet(given.root / file_of("image_index"))
    if "label" not in index:
        sys.stderr.write(f"benchmarks: {given.root} has no labels: only a delivery with labels can judge\n")
        return 1
    configs = [config.model_copy(update={"seed": config.seed + i}) for i in range(given.seeds)]
    judged = pd.concat(
        [judge_trials(seeded, name, given.root, index) for seeded in configs for name in config.partitions],
        ignore_index=True,
    )
    for table in (
        criteria_table(judged, config.trials.naming_budget),
        ties_table(judged, config.trials.naming_budget),
    ):
        sys.stdout.write(table.to_markdown(floatfmt=".2f") + "\n\n")
    hidden = ["won", "score", *(c for c in map(str, judged) if c.startswith("accuracy_"))]
    sys.stdout.write(
        judged[judged["won"]].drop(columns=hidden).to_markdown(index=False, floatfmt=".3f") + "\n"
    )
    return 0


def judge_trials(config: PipelineConfig, name: str, root: Path, index: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial of a descriptor: its criteria, and the accuracy of labelling by its clusters."""
    selection, rows = try_all(
        config,
        name,
        read_table(UPath(root / file_of("scaled_pca", name))),
        read_table(UPath(root / file_of("views"))),
        index,
        all_scores=True,
    )
    columns = [c for c in map(str, index) if c.startswith("label") and index[c].iloc[rows].notna().any()]
    truth = {c.replace("label", "accuracy"): index[c].iloc[rows].reset_index(drop=True) for c in columns}
    return pd.DataFrame(
        [
            {
                "descriptor": name,
                "seed": config.seed,
                "vectors": described(trial.scaler, trial.representation),
                "algorithm": trial.algorithm,
                "n_clusters": trial.n_clusters,
                **{criterion: trial.scores[criterion] for criterion in CRITERIA},
                "score": trial.scores[selection.criterion],
                "tied": trial.tied,
                **{c: label_accuracy(trial.clustering.labels, values) for c, values in truth.items()},
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
    rows = {}
    for criterion, sign in CRITERIA.items():
        facts = [_judge(part, sign * part[criterion]) for part in _at_budget(judged, budget)]
        known = [fact for fact in facts if fact is not None]
        if known:
            rows[criterion] = {**pd.DataFrame(known).mean().to_dict(), "descriptors": len(known)}
    return pd.DataFrame(rows).T


def ties_table(judged: pd.DataFrame, budget: int) -> pd.DataFrame:
    """For each column of labels, means over descriptors and seeds of what two ways to choose lose, in points.

    The best score, and the order among those that are tied with it; beside how many are tied on average, and how
    often the order chooses another one.
    """
    rows = {}
    for column in (c for c in map(str, judged) if c.startswith("accuracy")):
        facts = []
        for trials in _at_budget(judged, budget):
            records: list[dict[Any, Any]] = trials.to_dict("records")
            best = max(records, key=lambda trial: float(np.nan_to_num(trial["score"], nan=-np.inf)))
            won = next((trial for trial in records if trial["won"]), None)
            if won is None:
                continue  # what a person fixed may lie outside the budget
            most = float(trials[column].max())
            facts.append(
                {
                    "best score: points lost": 100 * (most - best[column]),
                    "chosen: points lost": 100 * (most - won[column]),
                    "tied": trials["tied"].sum(),
                    "another chosen": won["score"] < best["score"],
                }
            )
        rows[column] = {**pd.DataFrame(facts).mean().to_dict(), "choices": len(facts)}
    return pd.DataFrame(rows).T


def _at_budget(judged: pd.DataFrame, budget: int) -> list[pd.DataFrame]:
    """The trials that are candidates, by descriptor and seed."""
    candidates = judged[judged["n_clusters"].between(BUDGET_TOLERANCE * budget, budget)]
    return [part for _, part in candidates.groupby(["descriptor", "seed"], sort=False)]


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
