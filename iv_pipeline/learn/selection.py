"""Choosing a clustering without labels.

Candidates are compared at the *naming budget*, the number of clusters that a person is willing to name. The
leading criterion is **cross-descriptor predictability**: a cluster that shows something real can be predicted
from a descriptor that took no part in it, a cluster that is an artefact of one network cannot. Where no other
descriptor exists, the pictures themselves judge; where there are none, **identity**: do photos of one vehicle
fall together? Without identities **stability** leads: do clusterings of disjoint parts agree on a third?

Those that reached the last round of the trials (`iv_pipeline.learn.trials`) are compared. Candidates whose score
is no further from the best than chance moves the difference are **tied** with it. A fixed order then decides:
what was chosen before, then what leaves no image unlabeled, then the simpler algorithm, representation and scaler.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from iv_pipeline.learn.clustering import ALGORITHMS, Clustering
from iv_pipeline.learn.criteria import INTERNAL, Score, standard_error_of_difference
from iv_pipeline.learn.representation import RECIPES
from iv_pipeline.learn.scaling import SCALERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BUDGET_TOLERANCE = 0.7
"""Clusterings with fewer than this share of the budget are not compared with those that use it."""
INCUMBENT_SHARE = 0.95
"""Keep the previous choice if it scores at least this share of the best (hysteresis)."""


@dataclass
class Trial:
    """One clustering of a sample, and how well it did.

    Attributes
    ----------
    scaler, representation
        What made the vectors.
    algorithm, tried
        What clustered them, with which parameters.
    clustering
        The clusters of the rows of its round.
    measured
        Score of each criterion.
    predicted_by
        How well each judge predicts the clusters.
    seconds
        What the clustering took.
    round
        The last round of the trials that it took part in.
    internal
        Scores by distances; like stability, where it does not lead, they decide nothing, and are measured only for
        what is kept or tied.
    kept, tied, won, incumbent
        Whether it is fitted again on all rows, tied with the best, chosen, and what won the fit before.
    """

    scaler: str
    representation: str
    algorithm: str
    tried: dict[str, Any]
    clustering: Clustering
    measured: dict[str, Score]
    predicted_by: dict[str, Score]
    seconds: float
    round: int = 1
    internal: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INTERNAL, np.nan))
    kept: bool = False
    tied: bool = False
    won: bool = False
    incumbent: bool = False

    @property
    def n_clusters(self) -> int:
        """Number of clusters found."""
        return self.clustering.n_clusters

    @property
    def scores(self) -> dict[str, float]:
        """Value of every criterion; NaN where one has no meaning."""
        return {name: score.value for name, score in self.measured.items()} | self.internal


@dataclass(frozen=True)
class Selection:
    """All trials, the winner among them, and why it won.

    Attributes
    ----------
    trials
        In the order in which they were made.
    winner
        The trial whose scaler, algorithm and parameters the final clustering takes.
    reason
        In one sentence.
    criterion
        The score that led.
    """

    trials: list[Trial]
    winner: Trial
    reason: str
    criterion: str

    def kept(self) -> dict[str, Trial]:
        """For each algorithm, the trial that is fitted again on all rows."""
        return {trial.algorithm: trial for trial in self.trials if trial.kept}

    def with_fewer(self, trials: Sequence[Trial]) -> Selection:
        """The same with trials of what won with fewer clusters, and what naming so few costs."""
        best = self.winner.scores[self.criterion]
        shares = {trial.n_clusters: trial.scores[self.criterion] / best for trial in trials}
        told = ", ".join(
            f"{k} {100 * share:.0f} %" for k, share in sorted(shares.items(), reverse=True) if share > 0
        )
        reason = f"; of that score fewer clusters reach: {told}" if told else ""
        return Selection([*self.trials, *trials], self.winner, self.reason + reason, self.criterion)

    def to_frame(self) -> pd.DataFrame:
        """One row a trial, JSON in the column `parameters`."""
        return pd.DataFrame(
            [
                {
                    "scaler": trial.scaler,
                    "representation": trial.representation,
                    "algorithm": trial.algorithm,
                    "parameters": json.dumps(trial.clustering.parameters),
                    "tried": json.dumps(trial.tried),
                    "n_clusters": trial.n_clusters,
                    "noise_share": trial.clustering.noise_share,
                    "round": trial.round,
                    "n_rows": len(trial.clustering.labels),
                    **trial.scores,
                    "standard_error": trial.measured[self.criterion].standard_error
                    if np.isfinite(trial.scores[self.criterion])
                    else np.nan,
                    "predicted_by": json.dumps({name: s.value for name, s in trial.predicted_by.items()}),
                    "seconds": trial.seconds,
                    "kept": trial.kept,
                    "tied": trial.tied,
                    "won": trial.won,
                    "incumbent": trial.incumbent,
                    "criterion": self.criterion,
                    "reason": self.reason if trial.won else "",
                }
                for trial in self.trials
            ]
        )


def select(
    trials: list[Trial],
    budget: int,
    chosen: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
    witnesses: str = "other descriptors",
) -> Selection:
    """Choose the winner, and for each algorithm that clustered the same vectors what is fitted on all rows.

    Parameters
    ----------
    trials
        Those of all rounds; the ones that reached the last are compared.
    budget
        Clusters that a person is willing to name.
    chosen
        What a person fixed, as for `iv_pipeline.learn.trials.run_trials`.
    before
        What won before, by `scaler`, `representation`, `algorithm` and `tried`. It wins again if it is tied with
        the best or reaches `INCUMBENT_SHARE` of its score.
    witnesses
        Who predicts clusters, in words.
    """
    finalists = _last_round(trials)
    criterion, candidates = leading_criterion(finalists), eligible(finalists, budget, chosen)
    winner = _winner(candidates, criterion, before)
    winner.won = True
    for trial in _tied(candidates, criterion):
        trial.tied = True
    for trial in trials:
        trial.incumbent = before is not None and is_incumbent(trial, before)
    beside = [t for t in trials if (t.scaler, t.representation) == (winner.scaler, winner.representation)]
    for trials_of in _by_algorithm(beside).values():
        latest = _last_round(trials_of)
        within = [t for t in latest if BUDGET_TOLERANCE * budget <= t.n_clusters <= budget]
        best = (
            winner
            if any(t is winner for t in trials_of)
            else min(_tied(within or latest, criterion), key=_simplicity)
        )
        best.kept = True
    reason = _reason(winner, candidates, criterion, budget, chosen, witnesses)
    return Selection(trials, winner, reason, criterion)


def _last_round(trials: Sequence[Trial]) -> list[Trial]:
    """Those that went furthest: scores of different rounds cannot be compared."""
    last = max(trial.round for trial in trials)
    return [trial for trial in trials if trial.round == last]


def leading_criterion(trials: Sequence[Trial]) -> str:
    """What leads: the first that says anything; stability says nothing of embeddings, and so comes last."""
    for criterion in ("predictability", "identity"):
        if any(np.isfinite(trial.scores[criterion]) for trial in trials):
            return criterion
    return "stability"


def eligible(trials: Sequence[Trial], budget: int, chosen: Mapping[str, Any]) -> list[Trial]:
    """What a person's choices leave, at the budget if anything is."""
    wanted = {key: value for key, value in chosen.items() if key != "n_clusters"}
    allowed = [t for t in trials if all(getattr(t, key) == value for key, value in wanted.items())]
    return [t for t in allowed if BUDGET_TOLERANCE * budget <= t.n_clusters <= budget] or allowed


def _winner(candidates: Sequence[Trial], criterion: str, before: Mapping[str, Any] | None) -> Trial:
    """The incumbent if it is tied with the best or near it, else the simplest tie."""
    tied = _tied(candidates, criterion)
    if before is not None:
        enough = INCUMBENT_SHARE * max(leading_score(trial, criterion) for trial in candidates)
        for trial in candidates:
            near = enough > 0 and leading_score(trial, criterion) >= enough
            if is_incumbent(trial, before) and (near or any(trial is t for t in tied)):
                return trial
    return min(tied, key=_simplicity)


def _tied(candidates: Sequence[Trial], criterion: str) -> list[Trial]:
    """The best candidate, and those that chance might have put before it.

    The one-standard-error rule (Breiman, Friedman, Olshen, Stone 1984), with the error of the difference: all
    candidates are judged on the same rows, and much of what chance does to one it does to the other.
    """
    best = max(candidates, key=lambda trial: leading_score(trial, criterion))
    score = best.measured[criterion]
    if not np.isfinite(score.value):
        return [
            trial for trial in candidates if leading_score(trial, criterion) == leading_score(best, criterion)
        ]
    return [
        trial
        for trial in candidates
        if trial is best
        or score.value - trial.scores[criterion]
        <= standard_error_of_difference(score, trial.measured[criterion])
    ]


def _simplicity(trial: Trial) -> tuple[bool, int, int, int, int]:
    """Sort key of ties: clusterings of all rows, then by algorithm, representation, scaler, use of the budget."""
    return (
        trial.clustering.noise_share > 0,
        list(ALGORITHMS).index(trial.algorithm),
        list(RECIPES).index(trial.representation),
        SCALERS.index(trial.scaler),
        -trial.n_clusters,
    )


def is_incumbent(trial: Trial, before: Mapping[str, Any]) -> bool:
    """Whether this is what won before."""
    return all(
        getattr(trial, key) == before[key] for key in ("scaler", "representation", "algorithm", "tried")
    )


def leading_score(trial: Trial, criterion: str) -> float:
    """The leading score; clusterings that have none come last, by how many rows they cluster at all."""
    score = trial.scores[criterion]
    return score if np.isfinite(score) else -1 - trial.clustering.noise_share


def _by_algorithm(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    groups: dict[str, list[Trial]] = OrderedDict()
    for trial in trials:
        groups.setdefault(trial.algorithm, []).append(trial)
    return groups


def _reason(
    winner: Trial,
    candidates: list[Trial],
    criterion: str,
    budget: int,
    chosen: Mapping[str, Any],
    witnesses: str,
) -> str:
    others = [t for t in candidates if t is not winner and np.isfinite(t.scores[criterion])]
    score = winner.scores[criterion]
    best = max((t.scores[criterion] for t in others), default=-np.inf) <= score or not np.isfinite(score)
    how = "best" if best else "as well as the best" if winner.tied else "almost best"
    what = {
        "predictability": f"{witnesses} predict its clusters {how}",
        "identity": f"nobody else could judge, and photos of one vehicle fall together {how}",
        "stability": f"nobody else could judge, and it agrees {how} with itself on disjoint parts",
    }[criterion]
    what = what if np.isfinite(score) else "nothing could judge them"
    what += _tie_in_words(winner, candidates)
    sentence = (
        f"{winner.algorithm} on {described(winner.scaler, winner.representation)} with {winner.n_clusters} "
        f"clusters: of {len(candidates)} finalists at the naming budget of {budget}, {what} ({criterion} "
        + (f"{score:.3f}" if np.isfinite(score) else "unknown")
    )
    if others:
        second = max(others, key=lambda t: t.scores[criterion])
        where = described(second.scaler, second.representation)
        sentence += (
            f"; {'next' if best else 'best'} {second.algorithm} on {where} {second.scores[criterion]:.3f}"
        )
    fixed = ", ".join(f"{key} {value}" for key, value in chosen.items())
    return f"{sentence})" + (f"; fixed in the configuration: {fixed}" if fixed else "")


def _tie_in_words(winner: Trial, candidates: Sequence[Trial]) -> str:
    """How many candidates the winner is tied with, and why it was chosen among them; empty if it won outright."""
    if not winner.tied:
        return " and it was chosen before"
    n_others = sum(trial.tied for trial in candidates) - 1
    if not n_others:
        return ""
    why = "chosen before" if winner.incumbent else "the simplest of them"
    return f", tied with {n_others} {'other' if n_others == 1 else 'others'}; {why}"


def described(scaler: str, representation: str) -> str:
    """What was clustered, in words that fit after 'on'."""
    return scaler if representation == "pca" else representation.replace("_", " ")
