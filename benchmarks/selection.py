"""Which criterion chooses well? Every trial of a finished run, made again and judged by true labels.

Labels judge the criteria and take no part in the trials. A criterion is judged by its rank correlation with the
accuracy of labelling among the clusterings at the naming budget, and by what its choice loses against the best of
them, in points. So are the rule for ties and the race, by every column of labels: what they choose, beside the
candidate with the best score. The last table has, for each algorithm and each representation, how near its best
candidate comes to the best of all.
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
from iv_pipeline.assets.clustering_trials import race, sample_of
from iv_pipeline.config import load_config
from iv_pipeline.learn.evaluation import label_accuracy
from iv_pipeline.learn.selection import BUDGET_TOLERANCE, described
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iv_pipeline.config import PipelineConfig
    from iv_pipeline.learn.selection import Trial

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
    """Judge the criteria, ties and the race; prints tables in Markdown."""
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
        choices_table(judged, config.trials.naming_budget),
        *(contenders_table(judged, config.trials.naming_budget, by) for by in ("algorithm", "vectors")),
    ):
        sys.stdout.write(table.to_markdown(floatfmt=".2f") + "\n\n")
    hidden = ["won", "raced", "score", *(c for c in map(str, judged) if c.startswith("accuracy_"))]
    sys.stdout.write(
        judged[judged["won"]].drop(columns=hidden).to_markdown(index=False, floatfmt=".3f") + "\n"
    )
    return 0


def judge_trials(config: PipelineConfig, name: str, root: Path, index: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial of a descriptor: its criteria, and the accuracy of labelling by its clusters."""
    sample, rows = sample_of(
        config,
        name,
        read_table(UPath(root / file_of("scaled_pca", name))),
        read_table(UPath(root / file_of("views"))),
        index,
    )
    searched = race(config, sample, name, exhaustive=True)
    raced = race(config, sample, name).winner
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
                "score": trial.scores[searched.criterion],
                "tied": trial.tied,
                **{c: label_accuracy(trial.clustering.labels, values) for c, values in truth.items()},
                "won": trial.won,
                "raced": is_same(trial, raced),
            }
            for trial in searched.trials
        ]
    )


def is_same(trial: Trial, other: Trial) -> bool:
    """Whether two searches tried the same."""
    keys = ("scaler", "representation", "algorithm", "tried")
    return all(getattr(trial, key) == getattr(other, key) for key in keys)


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


def choices_table(judged: pd.DataFrame, budget: int) -> pd.DataFrame:
    """For each column of labels, means over descriptors and seeds of what ways to choose lose, in points.

    The best score, the order among those that are tied with it, and the race; beside how many are tied on average,
    how often the order chooses another one, and how often the race does.
    """
    rows = {}
    for column in (c for c in map(str, judged) if c.startswith("accuracy")):
        facts = []
        for trials in _at_budget(judged, budget):
            records: list[dict[Any, Any]] = trials.to_dict("records")
            best = max(records, key=lambda trial: float(np.nan_to_num(trial["score"], nan=-np.inf)))
            won = next((trial for trial in records if trial["won"]), None)
            raced = next((trial for trial in records if trial["raced"]), None)
            if won is None or raced is None:
                continue  # what a person fixed may lie outside the budget
            most = float(trials[column].max())
            facts.append(
                {
                    "best score: points lost": 100 * (most - best[column]),
                    "exhaustive: points lost": 100 * (most - won[column]),
                    "race: points lost": 100 * (most - raced[column]),
                    "tied": trials["tied"].sum(),
                    "tie broken": won["score"] < best["score"],
                    "race differs": won is not raced,
                }
            )
        rows[column] = {**pd.DataFrame(facts).mean().to_dict(), "choices": len(facts)}
    return pd.DataFrame(rows).T


def contenders_table(judged: pd.DataFrame, budget: int, by: str) -> pd.DataFrame:
    """How near the best of each algorithm or representation comes to the best of all, and how often it wins.

    Means over descriptors and seeds of its score as a share of the best.
    """
    shares = []
    for trials in _at_budget(judged, budget):
        best = trials.groupby(by)["score"].max() / trials["score"].max()
        won = trials.loc[trials["won"], by]
        shares.append(pd.DataFrame({"share of the best score": best, "chosen": best.index.isin(won)}))
    table = pd.concat(shares).groupby(level=0)
    return table.mean().assign(choices=table.size()).sort_values("share of the best score", ascending=False)


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
        "rank correlation": float(score[known].corr(accuracy, method="spearman"))
        if len(set(accuracy)) > 1
        else np.nan,
        "points lost": float(100 * (trials["accuracy"].max() - chosen)),
    }


if __name__ == "__main__":
    sys.exit(main())
