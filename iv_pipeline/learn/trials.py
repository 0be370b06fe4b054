"""Trials of clusterings on a sample of the rows, as a race in rounds.

Most candidates can be dropped after a look at few rows (successive halving; Jamieson, Talwalkar 2016). Round 1
clusters every representation by one algorithm, on `FIRST_ROWS` rows. Round 2 tries all algorithms on the best of
the representations, on `SECOND_ROWS` rows. Round 3 tries the best of these on the whole sample; a small sample is
whole in round 2. Where a combination leaves no descriptor over to judge it, descriptors judge what the others make
without them: all of them in round 3, and in the rounds before one, on clusterings made without it alone.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import blas_threads, map_ordered
from iv_pipeline.errors import InputError
from iv_pipeline.learn.clustering import ALGORITHMS, Clustering, Space, fit_clusters
from iv_pipeline.learn.clustering.base import COUNTS
from iv_pipeline.learn.criteria import (
    UNDEFINED,
    Predictor,
    Score,
    agreement_score,
    fit_predictor,
    identity_score,
    internal_scores,
    mean_score,
)
from iv_pipeline.learn.embedding import load_libraries
from iv_pipeline.learn.sample import Candidate, Sample
from iv_pipeline.learn.selection import (
    BUDGET_TOLERANCE,
    Selection,
    Trial,
    eligible,
    is_incumbent,
    leading_criterion,
    leading_score,
    select,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

FIRST_ROWS = 1_000
SECOND_ROWS = 2_000
"""Rows of the first two rounds; a sample of less than twice as many as the second is whole in it."""
ROWS_OF_A_CLUSTER = 20
"""At least so many in the first round, and twice as many in the second, where the naming budget is large."""
GO_ON = {1: 1 / 2, 2: 1 / 3}
"""Share of what a round tried that goes on to the next; at least two."""


@dataclass(frozen=True)
class Judge:
    """What judges clusterings of a sample, apart from the vectors that were clustered.

    Attributes
    ----------
    sample
        The rows.
    budget
        Clusters that a person is willing to name: what predictions tell is a share of what so many could.
    """

    sample: Sample
    budget: int

    @cached_property
    def predictors(self) -> dict[str, Predictor]:
        """What predicts clusters, by name."""
        seed = self.sample.embedder.seed
        return {name: fit_predictor(X, seed) for name, X in self.sample.judges.items()}

    def predict(self, name: str, labels: NDArray[np.int32]) -> Score:
        """How well a judge predicts clusters."""
        return self.predictors[name].score(labels, self.budget)

    def is_at_budget(self, clustering: Clustering) -> bool:
        """Whether a clustering has about as many clusters as can be named."""
        return clustering.n_clusters >= BUDGET_TOLERANCE * self.budget

    def score(self, clustering: Clustering, predicted_by: Mapping[str, Score]) -> dict[str, Score]:
        """The criteria that need no further fit; undefined where one has no meaning."""
        return {
            "predictability": mean_score(list(predicted_by.values())),
            "stability": UNDEFINED,
            "identity": identity_score(clustering.labels, self.sample.identities),
        }


def run_trials(
    sample: Sample,
    keys: Sequence[tuple[str, str]],
    *,
    naming_budget: int,
    algorithms: Sequence[str] = tuple(ALGORITHMS),
    fixed: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    fewer: Sequence[int] = (),
    exhaustive: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Selection:
    """Race candidates × algorithms × parameters on the sample, and choose.

    Parameters
    ----------
    sample
        Rows to cluster.
    keys
        Scaler and representation of every candidate.
    naming_budget
        Clusters that a person is willing to name; candidates are compared at this number.
    algorithms
        Names in `ALGORITHMS`; the first of that order runs in the first round.
    fixed
        What a person chose: `scaler`, `representation`, `algorithm`, `n_clusters`, each optional.
    before
        What won when other images were clustered: `scaler`, `representation`, `algorithm` and `tried`, its
        parameters. It goes on in every round, and wins again as `iv_pipeline.learn.selection.select` says.
    fewer
        Numbers of clusters below the budget to try what won with, so that a person sees what naming fewer costs.
    exhaustive
        Drop nothing and measure every score for all trials: what a race is compared with.
    progress
        Told what was tried.

    Raises
    ------
    iv_pipeline.errors.InputError
        If nothing that could be tried is what a person chose.
    """
    chosen = {key: value for key, value in (fixed or {}).items() if value is not None}
    budget = min(chosen.get("n_clusters", naming_budget), sample.n_distinct)
    names = [name for name in ALGORITHMS if name in algorithms]
    keys = [key for key in keys if _matches(key, chosen)]
    if not keys or chosen.get("algorithm", names[0]) not in names:
        what = ", ".join(f"{key} {value}" for key, value in chosen.items() if key != "n_clusters")
        raise InputError(f"nothing that was tried has {what}: add it to the section 'trials'")
    load_libraries()
    with blas_threads(1):  # clusterings are tried side by side
        race = _Race(sample, budget, chosen, before, progress)
        trials = race.run(keys, names, exhaustive=exhaustive)
        selection = select(trials, budget, chosen, before, sample.witnesses)
        selection = race.with_fewer(selection, fewer)
        race.measure_rest([t for t in selection.trials if exhaustive or t.kept or t.tied])
    return selection


def _matches(key: tuple[str, str], chosen: Mapping[str, Any]) -> bool:
    scaler, representation = key
    wanted = chosen.get("scaler", scaler), chosen.get("representation", representation)
    return wanted == key


Job = tuple[tuple[str, str], str, dict[str, Any]]
"""Scaler and representation, algorithm, parameters."""


class _Race:
    """The rounds of `run_trials`, and what was clustered in each."""

    def __init__(
        self,
        sample: Sample,
        budget: int,
        chosen: Mapping[str, Any],
        before: Mapping[str, Any] | None,
        progress: Callable[[str], None],
    ) -> None:
        self.sample, self.budget = sample, budget
        self.chosen, self.before, self.progress = chosen, before, progress
        self.left_out = tuple(sample.judges) if sample.leave_out else ()
        self.stand_in = self.left_out[0] if len(self.left_out) > 1 else None
        """Descriptor without which everything is clustered before round 3."""
        self.judges: dict[int, Judge] = {}
        self.candidates: dict[tuple[int, str, str], Candidate] = {}

    def run(self, keys: Sequence[tuple[str, str]], names: Sequence[str], *, exhaustive: bool) -> list[Trial]:
        """All rounds; each trial is the last one of its candidate."""
        jobs: list[Job] = [
            (key, name, parameters)
            for key in keys
            for name in names
            for parameters in ALGORITHMS[name].grid(self.budget)
        ]
        if exhaustive:
            return self._round(3, self.sample, jobs)
        dropped: list[Trial] = []
        n_kept = _n_going_on(len(keys), 1)
        if n_kept < len(keys):
            name = self.chosen.get("algorithm", names[0])
            first = [job for job in jobs if job[1] == name]
            few = self._few(max(FIRST_ROWS, ROWS_OF_A_CLUSTER * self.budget))
            trials = self._round(1, few, first)
            going_on = self._best_keys(trials, n_kept)
            dropped = [t for t in trials if (t.scaler, t.representation) not in going_on]
            jobs = [job for job in jobs if job[0] in going_on]
        n_second = max(SECOND_ROWS, 2 * ROWS_OF_A_CLUSTER * self.budget)
        second = self.sample if self.sample.n_rows < 2 * n_second else self._few(n_second)
        trials = self._round(2, second, jobs)
        if second is self.sample and len(self.left_out) < 2:
            return dropped + trials
        finalists = self._best(trials)
        dropped += [trial for trial in trials if not any(trial is t for t in finalists)]
        last: list[Job] = [((t.scaler, t.representation), t.algorithm, t.tried) for t in finalists]
        return dropped + self._round(3, self.sample, last)

    def with_fewer(self, selection: Selection, counts: Sequence[int]) -> Selection:
        """The selection, and what won tried with fewer clusters, unless it chooses their number itself."""
        winner = selection.winner
        key = next((key for key in COUNTS if key in winner.tried), None)
        counts = sorted({k for k in counts if k < self.budget})
        if key is None or not counts or not winner.scores[selection.criterion] > 0:
            return selection
        candidate, judge = self._of(winner), self.judges[winner.round]

        def fewer(i: int) -> Trial:
            tried = {**winner.tried, key: counts[i]}
            return _try(candidate, winner.algorithm, tried, judge, self.left_out, winner.round, in_full=True)

        return selection.with_fewer(list(map_ordered(fewer, len(counts))))

    def measure_rest(self, trials: Sequence[Trial]) -> None:
        """Measure what decides nothing."""

        def measure(i: int) -> None:
            trial, candidate = trials[i], self._of(trials[i])
            without = self._without(trial.round)
            at_budget = self.judges[trial.round].is_at_budget(trial.clustering)
            if trial.measured["stability"] is UNDEFINED and at_budget:
                trial.measured["stability"] = _stability(candidate, trial.algorithm, trial.tried, without)
            labels, seed = trial.clustering.labels, self.sample.embedder.seed
            trial.internal = internal_scores(candidate.space(without).X, labels, seed)

        list(map_ordered(measure, len(trials)))

    def _without(self, number: int) -> str | None:
        """The descriptor without which a round clusters; None if all take part."""
        return self.stand_in if number < 3 else None

    def _round(self, number: int, sample: Sample, jobs: Sequence[Job]) -> list[Trial]:
        """Trials of one round, in the order of the jobs, made side by side."""
        without = self._without(number)
        left_out = (without,) if without is not None else self.left_out
        judge = self.judges[number] = Judge(sample, min(self.budget, sample.n_distinct))
        for key in dict.fromkeys(job[0] for job in jobs):
            self.candidates[number, *key] = self._known(sample, key) or Candidate(sample, *key)
        used = [self.candidates[number, *key] for key in dict.fromkeys(job[0] for job in jobs)]
        spaces = [(candidate, name) for candidate in used for name in dict.fromkeys((without, *left_out))]
        # made before they are asked for, on all cores: an embedding takes one
        list(map_ordered(lambda i: spaces[i][0].space(spaces[i][1]), len(spaces)))

        def attempt(i: int) -> Trial:
            key, name, parameters = jobs[i]
            candidate = self.candidates[number, *key]
            return _try(candidate, name, parameters, judge, left_out, number, without=without)

        trials = list(map_ordered(attempt, len(jobs)))
        by = f", by {len(left_out)} judges" if number == 3 and left_out else ""
        self.progress(f"round {number}: {len(jobs)} clusterings of {sample.n_rows:,} images{by}")
        return trials

    def _known(self, sample: Sample, key: tuple[str, str]) -> Candidate | None:
        """The candidate of an earlier round on the same rows."""
        made = (c for (_, *of), c in self.candidates.items() if tuple(of) == key and c.sample is sample)
        return next(made, None)

    def _of(self, trial: Trial) -> Candidate:
        return self.candidates[trial.round, trial.scaler, trial.representation]

    def _few(self, n_rows: int) -> Sample:
        """So many rows of the sample; all of a small one, and where identities or parts of the rows judge.

        Few rows hold hardly any two photos of one vehicle, and their thirds too few rows for the clusters.
        """
        if self.sample.n_rows <= n_rows or not self.sample.judges:
            return self.sample
        order = np.random.default_rng(self.sample.embedder.seed).permutation(self.sample.n_rows)
        return self.sample.take(np.sort(order[:n_rows]))

    def _best_keys(self, trials: Sequence[Trial], n: int) -> set[tuple[str, str]]:
        """The `n` representations of the best trials, and that of what won before."""
        allowed = eligible(trials, self.judges[1].budget, self.chosen)
        ranked = dict.fromkeys((t.scaler, t.representation) for t in _ranked(allowed))
        before = self.before or {}
        incumbent = before.get("scaler"), before.get("representation")
        known = {(t.scaler, t.representation) for t in trials}
        return {*list(ranked)[:n], *(key for key in known if key == incumbent)}

    def _best(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials that go on, and the incumbent, in their order."""
        allowed = eligible(trials, self.judges[2].budget, self.chosen)
        going_on = _ranked(allowed)[: _n_going_on(len(allowed), 2)]
        return [
            trial
            for trial in trials
            if any(trial is t for t in going_on)
            or (self.before is not None and is_incumbent(trial, self.before))
        ]


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The best first; of equals, the first."""
    criterion = leading_criterion(trials)
    return sorted(trials, key=lambda trial: leading_score(trial, criterion), reverse=True)


def _n_going_on(n: int, number: int) -> int:
    """How many of `n` go on from a round."""
    return min(n, max(2, math.ceil(n * GO_ON[number])))


def _try(
    candidate: Candidate,
    name: str,
    parameters: dict[str, Any],
    judge: Judge,
    left_out: Sequence[str],
    number: int,
    *,
    without: str | None = None,
    in_full: bool = False,
) -> Trial:
    """One trial of a round; what takes further fits is scored at the budget alone, unless `in_full`."""
    began = time.perf_counter()
    algorithm = ALGORITHMS[name]
    clustering = fit_clusters(algorithm, candidate.space(without), parameters)
    seconds = time.perf_counter() - began
    at_budget = in_full or judge.is_at_budget(clustering)
    if not candidate.sample.leave_out:
        predicted_by = {who: judge.predict(who, clustering.labels) for who in candidate.sample.judges}
    elif at_budget:  # it takes a fit for each descriptor left out
        made = {
            who: clustering if who == without else fit_clusters(algorithm, candidate.space(who), parameters)
            for who in left_out
        }
        predicted_by = {who: judge.predict(who, found.labels) for who, found in made.items()}
    else:
        predicted_by = {}
    measured = judge.score(clustering, predicted_by)
    if at_budget and all(np.isnan(score.value) for score in measured.values()):
        measured["stability"] = _stability(candidate, name, parameters, without)  # nothing else can lead
    return Trial(
        candidate.scaler,
        candidate.representation,
        name,
        parameters,
        clustering,
        measured,
        predicted_by,
        seconds,
        number,
    )


def _stability(candidate: Candidate, name: str, parameters: Mapping[str, Any], without: str | None) -> Score:
    """Adjusted Rand index, on a third of the rows, of clusterings fitted on the other two thirds each.

    Undefined for embeddings, whose parts are no independent witnesses, for density methods, which assign no other
    rows, and where there are too few rows.
    """
    n_clusters = max((parameters.get(key, 0) for key in COUNTS), default=0)
    if not candidate.has_independent_parts or not n_clusters or candidate.sample.n_rows < 3 * n_clusters:
        return UNDEFINED
    space = candidate.space(without)
    rows = np.random.default_rng(space.seed).permutation(space.n_rows)
    first, second, third = np.array_split(rows, 3)
    labels = []
    for part in (first, second):
        some = Space(space.X[np.sort(part)], space.seed, space.n_neighbors, space.min_samples)
        model = fit_clusters(ALGORITHMS[name], some, parameters).model
        if model is None:
            return UNDEFINED
        labels.append(model.predict(space.X[third])[0])
    return agreement_score(*labels)
