"""Trials of clusterings on a sample of the rows, as a race in rounds.

Most candidates can be dropped after a look at few rows (successive halving; Jamieson, Talwalkar 2016). Round 1
clusters every representation by one algorithm, on `FIRST_ROWS` rows. Round 2 tries all algorithms on the best of
the representations, on the whole sample. Where a combination leaves no descriptor over to judge it, descriptors
judge what the others make without them: one of them in the first two rounds, all of them in round 3, which is for
the best candidates of round 2.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from iv_pipeline.engine import blas_threads, map_ordered
from iv_pipeline.errors import InputError
from iv_pipeline.learn.clustering import ALGORITHMS, Clustering, Space, fit_clusters
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
from iv_pipeline.learn.duplicates import distinct_rows
from iv_pipeline.learn.embedding import load_libraries
from iv_pipeline.learn.representation import RECIPES, Embedder, represent
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
"""Rows of the first round."""
GO_ON = 1 / 3
"""Share of what a round tried that goes on to the next; at least two."""


@dataclass(frozen=True)
class Sample:
    """Rows that clusterings are tried on, and what judges them.

    Attributes
    ----------
    components
        By scaler, principal components of the rows, shape ``(n_rows, n_components)``, float32, finite.
    blocks
        By scaler, and under `block`, components of each descriptor that takes part: what candidates without one of
        them, and other representations, are made of.
    block
        Key in `blocks` of what is whitened and embedded.
    judges
        By name, vectors that clusters are predicted from, ``(n_rows, n_features)``; rows with NaN take no part.
    leave_out
        Whether the judges are the descriptors that take part: each judges what the others make without it.
    identities
        Code of the vehicle of each row, −1 where unknown, shape ``(n_rows,)``; None without identities.
    embedder
        How rows are embedded; its seed is that of everything random.
    n_neighbors, min_samples
        Of the neighbor graph, and of core distances.
    witnesses
        What the judges know of the rows, in words.
    """

    components: Mapping[str, NDArray[np.float32]]
    blocks: Mapping[str, Mapping[str, NDArray[np.float32]]] = field(default_factory=dict)
    block: str = "block"
    judges: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    leave_out: bool = False
    identities: NDArray[np.int64] | None = None
    embedder: Embedder = field(default_factory=Embedder)
    n_neighbors: int = 50
    min_samples: int = 10
    witnesses: str = "other descriptors"

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.components.values())))

    @property
    def n_distinct(self) -> int:
        """Number of distinct rows: there are no more clusters."""
        return len(distinct_rows(next(iter(self.components.values())))[0])

    def take(self, rows: NDArray[np.int64]) -> Sample:
        """Some of the rows."""
        return Sample(
            {scaler: X[rows] for scaler, X in self.components.items()},
            {key: {name: X[rows] for name, X in blocks.items()} for key, blocks in self.blocks.items()},
            self.block,
            {name: X[rows] for name, X in self.judges.items()},
            self.leave_out,
            None if self.identities is None else self.identities[rows],
            self.embedder,
            self.n_neighbors,
            self.min_samples,
            self.witnesses,
        )

    def vectors(self, scaler: str, representation: str, left_out: str | None = None) -> NDArray[np.float32]:
        """The rows in a representation, made without one of the descriptors if `left_out` names it."""
        if representation == "pca" and left_out is None:
            return self.components[scaler]
        blocks = self.blocks[scaler if representation == "pca" else self.block]
        kept = [X for name, X in blocks.items() if name != left_out]
        return represent(kept, RECIPES[representation], self.embedder)


class Candidate:
    """Where clusters are looked for: the rows of a sample in a representation.

    Parameters
    ----------
    sample
        The rows.
    scaler, representation
        What makes the vectors.
    """

    def __init__(self, sample: Sample, scaler: str, representation: str) -> None:
        self.sample, self.scaler, self.representation = sample, scaler, representation
        self._spaces: dict[str | None, Space] = {}
        self._lock = RLock()

    @property
    def key(self) -> tuple[str, str]:
        """Scaler and representation."""
        return self.scaler, self.representation

    @property
    def has_independent_parts(self) -> bool:
        """Whether parts of the rows are represented alike without the others: an embedding depends on all rows."""
        return not RECIPES[self.representation].embed

    def space(self, left_out: str | None = None) -> Space:
        """The vectors, made without one of the descriptors if `left_out` names it; made once."""
        with self._lock:
            if left_out not in self._spaces:
                sample = self.sample
                X = sample.vectors(*self.key, left_out)
                self._spaces[left_out] = Space(
                    X, sample.embedder.seed, sample.n_neighbors, sample.min_samples
                )
            return self._spaces[left_out]


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
        race = _Race(sample, budget, names, chosen, before, exhaustive, progress)
        dropped = [] if exhaustive else race.screen(keys)
        keys = [key for key in keys if key not in {(t.scaler, t.representation) for t in dropped}]
        trials = race.try_algorithms(keys)
        selection = select(dropped + trials, budget, chosen, before, sample.witnesses)
        selection = race.with_fewer(selection, fewer)
        race.measure_rest(selection)
    return selection


def _matches(key: tuple[str, str], chosen: Mapping[str, Any]) -> bool:
    scaler, representation = key
    wanted = chosen.get("scaler", scaler), chosen.get("representation", representation)
    return wanted == key


class _Race:
    """The rounds of `run_trials`, and the candidates on the whole sample."""

    def __init__(
        self,
        sample: Sample,
        budget: int,
        names: list[str],
        chosen: Mapping[str, Any],
        before: Mapping[str, Any] | None,
        exhaustive: bool,
        progress: Callable[[str], None],
    ) -> None:
        self.sample, self.judge, self.names = sample, Judge(sample, budget), names
        self.chosen, self.before = chosen, before
        self.exhaustive, self.progress = exhaustive, progress
        self.candidates: dict[tuple[str, str], Candidate] = {}

    def screen(self, keys: Sequence[tuple[str, str]]) -> list[Trial]:
        """Round 1: one algorithm on few rows; returns the trials of candidates that are dropped."""
        n_kept = _n_going_on(len(keys))
        if n_kept == len(keys):
            return []
        rng = np.random.default_rng(self.sample.embedder.seed)
        few = self.sample.take(np.sort(rng.permutation(self.sample.n_rows)[:FIRST_ROWS]))
        judge = Judge(few, min(self.judge.budget, few.n_distinct))
        name = self.chosen.get("algorithm", self.names[0])
        grid = ALGORITHMS[name].grid(judge.budget)
        left_out = list(few.judges)[:1] if few.leave_out else []

        def best(i: int) -> Trial:
            candidate = Candidate(few, *keys[i])
            trials = [_try(candidate, name, parameters, judge, left_out) for parameters in grid]
            criterion = leading_criterion(trials)
            return max(trials, key=lambda trial: leading_score(trial, criterion))

        trials = list(map_ordered(best, len(keys)))
        going_on = self._best(trials, n_kept)
        self.progress(
            f"round 1: {len(keys)} representations by {name} on {few.n_rows:,} images, {len(going_on)} go on"
        )
        return [trial for trial in trials if not any(trial is t for t in going_on)]

    def try_algorithms(self, keys: Sequence[tuple[str, str]]) -> list[Trial]:
        """Rounds 2 and 3: all algorithms on the whole sample, the best of them by all judges."""
        sample, judge = self.sample, self.judge
        self.candidates = {key: Candidate(sample, *key) for key in keys}
        left_out = list(sample.judges) if sample.leave_out else []
        first = left_out if self.exhaustive else left_out[:1]
        self._make_spaces(list(self.candidates.values()), [None, *first])
        jobs = [
            (candidate, name, parameters)
            for candidate in self.candidates.values()
            for name in self.names
            for parameters in ALGORITHMS[name].grid(judge.budget)
        ]
        trials = list(map_ordered(lambda i: _try(*jobs[i], judge, first, number=2), len(jobs)))
        self.progress(f"round 2: {len(trials)} clusterings of {sample.n_rows:,} images")
        if first == left_out:
            return trials
        contenders = eligible(trials, judge.budget, self.chosen)
        finalists = self._best(contenders, _n_going_on(len(contenders)))
        self._judge_by_all(finalists, left_out[1:])
        self.progress(f"round 3: {len(finalists)} of them by {len(left_out)} judges")
        return trials

    def with_fewer(self, selection: Selection, counts: Sequence[int]) -> Selection:
        """The selection, and what won tried with fewer clusters, unless it chooses their number itself."""
        winner = selection.winner
        key = next((key for key in ("n_clusters", "n_components") if key in winner.tried), None)
        counts = sorted({k for k in counts if k < self.judge.budget})
        if key is None or not counts or not winner.scores[selection.criterion] > 0:
            return selection
        candidate = self.candidates[winner.scaler, winner.representation]
        left_out = list(self.sample.judges) if self.sample.leave_out else []

        def fewer(i: int) -> Trial:
            tried = {**winner.tried, key: counts[i]}
            return _try(
                candidate, winner.algorithm, tried, self.judge, left_out, number=winner.round, in_full=True
            )

        return selection.with_fewer(list(map_ordered(fewer, len(counts))))

    def measure_rest(self, selection: Selection) -> None:
        """Measure what decides nothing, for what is kept or tied with the best."""
        trials = [t for t in selection.trials if self.exhaustive or t.kept or t.tied]

        def measure(i: int) -> None:
            trial = trials[i]
            candidate = self.candidates[trial.scaler, trial.representation]
            if trial.measured["stability"] is UNDEFINED and self.judge.is_at_budget(trial.clustering):
                trial.measured["stability"] = _stability(candidate, trial.algorithm, trial.tried)
            trial.internal = internal_scores(
                candidate.space().X, trial.clustering.labels, self.sample.embedder.seed
            )

        list(map_ordered(measure, len(trials)))

    def _make_spaces(self, candidates: Sequence[Candidate], left_out: Sequence[str | None]) -> None:
        """Make what is going to be clustered side by side: an embedding takes one core."""
        jobs = [(candidate, name) for candidate in candidates for name in left_out]
        list(map_ordered(lambda i: jobs[i][0].space(jobs[i][1]), len(jobs)))

    def _judge_by_all(self, trials: Sequence[Trial], left_out: Sequence[str]) -> None:
        """Round 3: what the other judges say, each of clusters that are made without it."""
        at_budget = [trial for trial in trials if self.judge.is_at_budget(trial.clustering)]
        used = dict.fromkeys((trial.scaler, trial.representation) for trial in at_budget)
        self._make_spaces([self.candidates[key] for key in used], left_out)
        jobs = [(trial, name) for trial in at_budget for name in left_out]

        def judge(i: int) -> Score:
            trial, name = jobs[i]
            space = self.candidates[trial.scaler, trial.representation].space(name)
            without = fit_clusters(ALGORITHMS[trial.algorithm], space, trial.tried)
            return self.judge.predict(name, without.labels)

        for (trial, name), score in zip(jobs, map_ordered(judge, len(jobs)), strict=True):
            trial.predicted_by[name] = score
        for trial in trials:
            trial.round = 3
            trial.measured |= {"predictability": mean_score(list(trial.predicted_by.values()))}

    def _best(self, trials: Sequence[Trial], n: int) -> list[Trial]:
        """The best `n` trials and the incumbent, in their order."""
        criterion = leading_criterion(trials)
        ranked = sorted(
            range(len(trials)), key=lambda i: leading_score(trials[i], criterion), reverse=True
        )  # stable: of equals, the first
        kept = {i for i in range(len(trials)) if self._is_incumbent(trials[i])} | set(ranked[:n])
        return [trials[i] for i in sorted(kept)]

    def _is_incumbent(self, trial: Trial) -> bool:
        """Whether it is what won before, or in the first round the same vectors."""
        if self.before is None:
            return False
        if trial.round > 1:
            return is_incumbent(trial, self.before)
        return (trial.scaler, trial.representation) == (self.before["scaler"], self.before["representation"])


def _n_going_on(n: int) -> int:
    return min(n, max(2, math.ceil(n * GO_ON)))


def _try(
    candidate: Candidate,
    name: str,
    parameters: dict[str, Any],
    judge: Judge,
    left_out: Sequence[str],
    *,
    number: int = 1,
    in_full: bool = False,
) -> Trial:
    """One trial of a round; what takes further fits is scored at the budget alone, unless `in_full`."""
    began = time.perf_counter()
    algorithm = ALGORITHMS[name]
    clustering = fit_clusters(algorithm, candidate.space(), parameters)
    seconds = time.perf_counter() - began
    at_budget = in_full or judge.is_at_budget(clustering)
    if not candidate.sample.leave_out:
        predicted_by = {who: judge.predict(who, clustering.labels) for who in candidate.sample.judges}
    elif at_budget:  # it takes a fit for each descriptor left out
        predicted_by = {
            who: judge.predict(who, fit_clusters(algorithm, candidate.space(who), parameters).labels)
            for who in left_out
        }
    else:
        predicted_by = {}
    measured = judge.score(clustering, predicted_by)
    if at_budget and all(np.isnan(score.value) for score in measured.values()):
        measured["stability"] = _stability(candidate, name, parameters)  # nothing else can lead
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


def _stability(candidate: Candidate, name: str, parameters: Mapping[str, Any]) -> Score:
    """Adjusted Rand index, on a third of the rows, of clusterings fitted on the other two thirds each.

    Undefined for embeddings, whose parts are no independent witnesses, for density methods, which assign no other
    rows, and where there are too few rows.
    """
    space = candidate.space()
    n_clusters = parameters.get("n_clusters", parameters.get("n_components", 0))
    if not candidate.has_independent_parts or not n_clusters or space.n_rows < 3 * n_clusters:
        return UNDEFINED
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
