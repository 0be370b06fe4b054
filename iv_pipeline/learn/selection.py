"""Choosing a clustering without labels.

Candidates are compared at the *naming budget*, the number of clusters that a person is willing to name. The
leading criterion is **cross-descriptor predictability**: a cluster that shows something real can be predicted
from a descriptor that took no part in it, a cluster that is an artefact of one network cannot. Where no other
descriptor exists, the pictures themselves judge; where there are none, **identity**: do photos of one vehicle
fall together? Without identities **stability** leads: do clusterings of disjoint parts agree on a third?

Candidates whose score is no further from the best than chance moves the difference are **tied** with it. A fixed
order decides among them: what was chosen before, then what leaves no image unlabeled, then the simpler
algorithm, representation and scaler.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from iv_pipeline.engine import map_ordered
from iv_pipeline.errors import InputError
from iv_pipeline.learn.clustering import ALGORITHMS, Clustering, Space, fit_clusters
from iv_pipeline.learn.criteria import (
    INTERNAL,
    UNDEFINED,
    Predictor,
    Score,
    agreement_score,
    identity_score,
    internal_scores,
    mean_score,
    standard_error_of_difference,
)
from iv_pipeline.learn.representation import RECIPES
from iv_pipeline.learn.scaling import SCALERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

BUDGET_TOLERANCE = 0.7
"""Clusterings with fewer than this share of the budget are not compared with those that use it."""
INCUMBENT_SHARE = 0.95
"""Keep the previous choice if it scores at least this share of the best (hysteresis)."""


@dataclass(frozen=True)
class Candidate:
    """Where clusters are looked for.

    Attributes
    ----------
    scaler, representation
        What made the vectors.
    space
        The sample's vectors.
    counts
        Numbers of clusters tried besides the budget.
    without
        The same made without one of the descriptors that take part, by the descriptor left out.
    parts
        Rows that stability may be measured on are clustered apart; False where the vectors of a row depend on
        all others, so that parts of the rows are no independent witnesses.
    """

    scaler: str
    representation: str
    space: Space
    counts: tuple[int, ...] = ()
    without: Mapping[str, Space] = field(default_factory=dict)
    parts: bool = True


@dataclass
class Trial:
    """One clustering of the sample, and how well it did.

    It is fitted again on all rows if it is `kept`. It was chosen if it `won`, among those that are `tied` with the
    best; an `incumbent` won the fit before. Stability, where it does not lead, and the `internal` scores are
    measured for those that are kept or tied only: they decide nothing. Where parts of the rows of `space` are no
    independent witnesses, `parts` is False.
    """

    scaler: str
    representation: str
    algorithm: str
    tried: dict[str, Any]
    clustering: Clustering
    measured: dict[str, Score]
    predicted_by: dict[str, float]
    seconds: float
    space: Space
    parts: bool
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
                    **trial.scores,
                    "standard_error": trial.measured[self.criterion].standard_error
                    if np.isfinite(trial.scores[self.criterion])
                    else np.nan,
                    "predicted_by": json.dumps(trial.predicted_by),
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


@dataclass(frozen=True)
class Judge:
    """What a clustering of the sample is judged by, apart from its own vectors.

    Attributes
    ----------
    predictors
        One for each descriptor that takes no part in what is clustered.
    own
        One for each descriptor that does: it judges the clusters that the others make without it.
    identities
        Code of the vehicle of each row, −1 where unknown, shape ``(n_rows,)``; None without identities.
    naming_budget
        Clusters that a person is willing to name: what predictions tell is a share of what so many could.
    witnesses
        What the predictors know of the rows, in words.
    seed
        Of the parts that stability is measured on and of the rows for the silhouette.
    """

    predictors: Mapping[str, Predictor] = field(default_factory=dict)
    own: Mapping[str, Predictor] = field(default_factory=dict)
    identities: NDArray[np.int64] | None = None
    naming_budget: int = 50
    witnesses: str = "other descriptors"
    seed: int = 0

    def predict(self, labels: NDArray[np.int32]) -> dict[str, Score]:
        """How well each other descriptor predicts the clusters."""
        return {n: predictor.score(labels, self.naming_budget) for n, predictor in self.predictors.items()}

    def predict_without(self, left_out: str, labels: NDArray[np.int32]) -> Score:
        """How well a descriptor that takes part predicts the clusters that the others make without it."""
        return self.own[left_out].score(labels, self.naming_budget)

    def score(self, clustering: Clustering, predicted_by: Mapping[str, Score]) -> dict[str, Score]:
        """The criteria that need no further fit; undefined where one has no meaning."""
        return {
            "predictability": mean_score(list(predicted_by.values())),
            "stability": UNDEFINED,
            "identity": identity_score(clustering.labels, self.identities),
        }


def _stability(trial: Trial, seed: int) -> Score:
    """Adjusted Rand index, on a third of the rows, of clusterings fitted on the other two thirds each."""
    space, clustering = trial.space, trial.clustering
    if not trial.parts or clustering.model is None or space.n_rows < 3 * clustering.n_clusters:
        return UNDEFINED
    rows = np.random.default_rng(seed).permutation(space.n_rows)
    first, second, third = np.array_split(rows, 3)
    labels = []
    for part in (first, second):
        some = Space(space.X[np.sort(part)], space.seed, space.n_neighbors, space.min_samples)
        model = fit_clusters(ALGORITHMS[trial.algorithm], some, trial.tried).model
        if model is None:
            return UNDEFINED
        labels.append(model.predict(space.X[third])[0])
    return agreement_score(*labels)


def run_trials(
    candidates: Iterable[Candidate],
    judge: Judge,
    *,
    naming_budget: int,
    algorithms: Sequence[str] = tuple(ALGORITHMS),
    fixed: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    fewer: Sequence[int] = (),
    make_again: Callable[[str, str], Candidate] | None = None,
    all_scores: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Selection:
    """Try every candidate × algorithm × parameters on the sample, and choose.

    Parameters
    ----------
    candidates
        Where to look for clusters; taken one after the other.
    judge
        What the clusterings are judged by.
    naming_budget
        Clusters that a person is willing to name; tried in any case. Larger numbers are not.
    algorithms
        Names in `ALGORITHMS`.
    fixed
        What a person chose: `scaler`, `representation`, `algorithm`, `n_clusters`, each optional.
    before
        What won when other images were clustered: `scaler`, `representation`, `algorithm` and `tried`, its
        parameters. It wins again if it is tied with the best or reaches `INCUMBENT_SHARE` of its score.
    fewer
        Numbers of clusters below the budget to try what won with, so that a person sees what naming fewer costs.
    make_again
        Makes the candidate of a scaler and a representation again, if the winner is not the last one that led;
        without it, what fewer clusters cost is left out then.
    all_scores
        Measure what decides nothing for all trials, not only for those that are kept or tied with the best.
    progress
        Told what was tried.

    Raises
    ------
    iv_pipeline.errors.InputError
        If nothing that was tried is what a person chose.
    """
    chosen = {key: value for key, value in (fixed or {}).items() if value is not None}
    budget = chosen.get("n_clusters", naming_budget)
    trials: list[Trial] = []
    leading: Candidate | None = None
    for candidate in candidates:
        counts = tuple(sorted({k for k in candidate.counts if k <= budget} | {budget}))
        done = len(trials)
        jobs = [(name, parameters) for name in algorithms for parameters in ALGORITHMS[name].grid(counts)]
        trials.extend(_try_all(candidate, jobs, judge, budget))
        n_tried = len(trials) - done
        progress(f"{candidate.representation} of {candidate.scaler}: {n_tried} clusterings tried")
        winner = _winner(trials, budget, chosen, before)
        if any(trial is winner for trial in trials[done:]):
            leading = candidate
    selection = _select(trials, budget, chosen, before, judge.witnesses)
    won = selection.winner.scaler, selection.winner.representation
    if leading is None or (leading.scaler, leading.representation) != won:
        leading = make_again(*won) if make_again else None
    if leading is not None:
        selection = _with_fewer(selection, leading, judge, budget, [k for k in fewer if k < budget])
    finalists = [trial for trial in selection.trials if all_scores or trial.kept or trial.tied]
    list(map_ordered(lambda i: _measure_rest(finalists[i], judge.seed, budget), len(finalists)))
    return selection


def _try_all(
    candidate: Candidate, jobs: Sequence[tuple[str, dict[str, Any]]], judge: Judge, budget: int
) -> list[Trial]:
    """Trials of algorithms and parameters, made side by side, in their order."""
    return list(map_ordered(lambda i: _try(candidate, *jobs[i], judge, budget), len(jobs)))


def _with_fewer(
    selection: Selection, candidate: Candidate, judge: Judge, budget: int, counts: Sequence[int]
) -> Selection:
    """The selection, and what won tried with fewer clusters, unless it was or chooses their number itself."""
    winner, criterion = selection.winner, selection.criterion
    key = next((key for key in ("n_clusters", "n_components") if key in winner.tried), None)
    if key is None or not winner.scores[criterion] > 0:
        return selection
    trials, shares = list(selection.trials), {}
    for k in counts:
        tried = {**winner.tried, key: k}
        trial = next((t for t in trials if _is_like(t, winner) and t.tried == tried), None)
        if trial is None or np.isnan(trial.scores[criterion]):
            trials = [t for t in trials if t is not trial]
            trial = _try(candidate, winner.algorithm, tried, judge, budget, in_full=True)
            trials.append(trial)
        shares[k] = trial.scores[criterion] / winner.scores[criterion]
    told = ", ".join(
        f"{k} {100 * share:.0f} %" for k, share in sorted(shares.items(), reverse=True) if share > 0
    )
    reason = f"; of that score fewer clusters reach: {told}" if told else ""
    return Selection(trials, winner, selection.reason + reason, criterion)


def _is_like(trial: Trial, other: Trial) -> bool:
    """Whether the same algorithm clustered the same vectors."""
    keys = ("scaler", "representation", "algorithm")
    return all(getattr(trial, key) == getattr(other, key) for key in keys)


def _try(
    candidate: Candidate,
    name: str,
    parameters: dict[str, Any],
    judge: Judge,
    budget: int,
    *,
    in_full: bool = False,
) -> Trial:
    """One trial; what takes further fits is scored at the budget alone, unless `in_full`."""
    began = time.perf_counter()
    algorithm = ALGORITHMS[name]
    clustering = fit_clusters(algorithm, candidate.space, parameters)
    seconds = time.perf_counter() - began
    at_budget = in_full or clustering.n_clusters >= BUDGET_TOLERANCE * budget
    predicted_by = judge.predict(clustering.labels)
    if at_budget:  # it takes a fit for each descriptor left out
        predicted_by |= {
            left_out: judge.predict_without(left_out, fit_clusters(algorithm, space, parameters).labels)
            for left_out, space in candidate.without.items()
        }
    trial = Trial(
        candidate.scaler,
        candidate.representation,
        name,
        parameters,
        clustering,
        judge.score(clustering, predicted_by),
        {name: score.value for name, score in predicted_by.items()},
        seconds,
        replace(candidate.space),  # without what was computed from it, which is large
        candidate.parts,
    )
    if at_budget and all(np.isnan(score.value) for score in trial.measured.values()):
        trial.measured["stability"] = _stability(trial, judge.seed)  # nothing else can lead
    return trial


def _measure_rest(trial: Trial, seed: int, budget: int) -> None:
    """Measure what decides nothing; what takes further fits at the budget alone."""
    if trial.measured["stability"] is UNDEFINED and trial.n_clusters >= BUDGET_TOLERANCE * budget:
        trial.measured["stability"] = _stability(trial, seed)
    trial.internal = internal_scores(trial.space.X, trial.clustering.labels, seed)


def _select(
    trials: list[Trial],
    budget: int,
    chosen: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
    witnesses: str = "other descriptors",
) -> Selection:
    """The winner, and for each algorithm that clustered the same vectors the trial that is fitted on all rows."""
    criterion, candidates = _criterion(trials), _eligible(trials, budget, chosen)
    winner = _winner(trials, budget, chosen, before)
    if winner is None:
        what = ", ".join(f"{key} {value}" for key, value in chosen.items() if key != "n_clusters")
        raise InputError(f"nothing that was tried has {what}: add it to the section 'trials'")
    winner.won = True
    for trial in _tied(candidates, criterion):
        trial.tied = True
    for trial in trials:
        trial.incumbent = before is not None and _is(trial, before)
    beside = [t for t in trials if (t.scaler, t.representation) == (winner.scaler, winner.representation)]
    for trials_of in _by_algorithm(beside).values():
        within = [t for t in trials_of if BUDGET_TOLERANCE * budget <= t.n_clusters <= budget]
        best = (
            winner
            if any(t is winner for t in trials_of)
            else min(_tied(within or trials_of, criterion), key=_simplicity)
        )
        best.kept = True
    reason = _reason(winner, candidates, criterion, budget, chosen, witnesses)
    return Selection(trials, winner, reason, criterion)


def _criterion(trials: Sequence[Trial]) -> str:
    """What leads: the first that says anything; stability says nothing of embeddings, and so comes last."""
    for criterion in ("predictability", "identity"):
        if any(np.isfinite(trial.scores[criterion]) for trial in trials):
            return criterion
    return "stability"


def _eligible(trials: Sequence[Trial], budget: int, chosen: Mapping[str, Any]) -> list[Trial]:
    """What a person's choices leave, at the budget if anything is."""
    wanted = {key: value for key, value in chosen.items() if key != "n_clusters"}
    allowed = [t for t in trials if all(getattr(t, key) == value for key, value in wanted.items())]
    return [t for t in allowed if BUDGET_TOLERANCE * budget <= t.n_clusters <= budget] or allowed


def _winner(
    trials: Sequence[Trial], budget: int, chosen: Mapping[str, Any], before: Mapping[str, Any] | None
) -> Trial | None:
    """The incumbent if it is tied with the best or near it, else the simplest tie; None without candidates."""
    candidates, criterion = _eligible(trials, budget, chosen), _criterion(trials)
    if not candidates:
        return None
    tied = _tied(candidates, criterion)
    if before is not None:
        enough = INCUMBENT_SHARE * max(_rank(trial, criterion) for trial in candidates)
        for trial in candidates:
            near = enough > 0 and _rank(trial, criterion) >= enough
            if _is(trial, before) and (near or any(trial is t for t in tied)):
                return trial
    return min(tied, key=_simplicity)


def _tied(candidates: Sequence[Trial], criterion: str) -> list[Trial]:
    """The best candidate, and those that chance might have put before it.

    The one-standard-error rule (Breiman, Friedman, Olshen, Stone 1984), with the error of the difference: all
    candidates are judged on the same rows, and much of what chance does to one it does to the other.
    """
    best = max(candidates, key=lambda trial: _rank(trial, criterion))
    score = best.measured[criterion]
    if not np.isfinite(score.value):
        return [trial for trial in candidates if _rank(trial, criterion) == _rank(best, criterion)]
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


def _is(trial: Trial, before: Mapping[str, Any]) -> bool:
    """Whether this is what won before."""
    return all(
        getattr(trial, key) == before[key] for key in ("scaler", "representation", "algorithm", "tried")
    )


def _rank(trial: Trial, criterion: str) -> float:
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
        f"clusters: of {len(candidates)} candidates at the naming budget of {budget}, {what} ({criterion} "
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
