"""Choosing a clustering without labels.

Candidates are compared at the *naming budget*, the number of clusters that a person is willing to name. The
leading criterion is **cross-descriptor predictability**: a cluster that shows something real can be predicted
from a descriptor that took no part in it, a cluster that is an artefact of one network cannot. Where no other
descriptor exists, the pictures themselves judge; where there are none, **identity**: do photos of one vehicle
fall together? Without identities **stability** leads: do clusterings of disjoint parts agree on a third?
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from iv_pipeline.errors import InputError
from iv_pipeline.learn.clustering import ALGORITHMS, NOISE, Clustering, Space
from iv_pipeline.learn.neighbors import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

PREDICTOR_NEIGHBORS = 15
SILHOUETTE_ROWS = 2_000
BUDGET_TOLERANCE = 0.7
"""Clusterings with fewer than this share of the budget are not compared with those that use it."""
LASTING_SHARE = 0.95
"""Share of the best score at which what an earlier fit chose is chosen again, so that names last."""


@dataclass(frozen=True)
class Predictor:
    """Predicts the clusters of some rows from their neighbours among others, in a descriptor of its own.

    Attributes
    ----------
    known
        Rows whose cluster is given, shape ``(n_rows, n_neighbors)``, int64: for each row to predict, its
        neighbours.
    rows
        Rows to predict, shape ``(n_rows,)``, int64.
    """

    known: NDArray[np.int64]
    rows: NDArray[np.int64]

    def score(self, labels: NDArray[np.int32], n_clusters: int) -> float:
        """What the predictions tell about the clusters, as a share of what `n_clusters` could tell.

        Mutual information of predicted and given clusters less the one expected by chance (Vinh, Epps, Bailey
        2010), over the logarithm of `n_clusters`: 1 if so many clusters of equal size are all predicted rightly,
        about 0 by chance. The adjusted index proper divides by the entropy of the clusters at hand instead, and so
        forgives clusters that tell little: a giant one with a few crumbs is predicted easily.

        Parameters
        ----------
        labels
            Cluster of each row, −1 for noise, which is predicted like a cluster; shape ``(n_rows,)``.
        n_clusters
            The same for all clusterings that are compared: the naming budget.
        """
        from sklearn.metrics import mutual_info_score
        from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

        shifted = labels.astype(np.int64) - NOISE
        n_labels = int(shifted.max()) + 1
        flat = shifted[self.known] + np.arange(len(self.rows))[:, None] * n_labels
        votes = np.bincount(flat.ravel(), minlength=len(self.rows) * n_labels).reshape(-1, n_labels)
        table = contingency_matrix(shifted[self.rows], votes.argmax(axis=1), sparse=True)
        told = mutual_info_score(None, None, contingency=table)
        by_chance = expected_mutual_information(table, len(self.rows))
        return float((told - by_chance) / np.log(n_clusters))


def fit_predictor(view: NDArray[np.float32], seed: int = 0) -> Predictor:
    """A k-nearest-neighbour predictor that learns on one half of the rows and is judged on the other.

    Parameters
    ----------
    view
        The same rows in another descriptor, shape ``(n_rows, n_features)``; rows with NaN take no part.
    seed
        Of the halves.
    """
    rows = np.flatnonzero(np.isfinite(view).all(axis=1))
    rows = np.random.default_rng(seed).permutation(rows)
    learn, judge = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    found = nearest(view[judge], view[learn], PREDICTOR_NEIGHBORS)
    return Predictor(learn[found], judge)


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

    It is fitted again on all rows if it is `kept`, best if it `won`; an `incumbent` won the fit before.
    """

    scaler: str
    representation: str
    algorithm: str
    tried: dict[str, Any]
    clustering: Clustering
    scores: dict[str, float]
    predicted_by: dict[str, float]
    seconds: float
    kept: bool = False
    won: bool = False
    incumbent: bool = False

    @property
    def n_clusters(self) -> int:
        """Number of clusters found."""
        return self.clustering.n_clusters


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
                    "predicted_by": json.dumps(trial.predicted_by),
                    "seconds": trial.seconds,
                    "kept": trial.kept,
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

    def predict(self, labels: NDArray[np.int32]) -> dict[str, float]:
        """How well each other descriptor predicts the clusters."""
        return {n: predictor.score(labels, self.naming_budget) for n, predictor in self.predictors.items()}

    def predict_without(self, left_out: str, labels: NDArray[np.int32]) -> float:
        """How well a descriptor that takes part predicts the clusters that the others make without it."""
        return self.own[left_out].score(labels, self.naming_budget)

    def score(
        self,
        space: Space,
        clustering: Clustering,
        predicted_by: Mapping[str, float],
        refit: Callable[[Space], Clustering] | None,
    ) -> dict[str, float]:
        """All criteria; NaN where one has no meaning."""
        return {
            "predictability": float(np.mean(list(predicted_by.values()))) if predicted_by else np.nan,
            "stability": _stability(space, clustering, refit, self.seed),
            "identity": _identity(clustering.labels, self.identities),
            **internal_scores(space.X, clustering.labels, self.seed),
        }


def internal_scores(X: NDArray[np.float32], labels: NDArray[np.int32], seed: int = 0) -> dict[str, float]:
    """Calinski–Harabasz, Davies–Bouldin and silhouette of the rows that are in a cluster.

    Parameters
    ----------
    X
        Shape ``(n_rows, n_features)``.
    labels
        Shape ``(n_rows,)``, −1 for noise.
    seed
        Of the rows that the silhouette is computed on, at most `SILHOUETTE_ROWS`.
    """
    from sklearn import metrics

    inside = labels != NOISE
    X, labels = X[inside], labels[inside]
    n_clusters = len(np.unique(labels))
    if not 2 <= n_clusters < len(labels):
        return dict.fromkeys(("calinski_harabasz", "davies_bouldin", "silhouette"), np.nan)
    rows = np.random.default_rng(seed).permutation(len(labels))[:SILHOUETTE_ROWS]
    some = len(np.unique(labels[rows]))
    return {
        "calinski_harabasz": float(metrics.calinski_harabasz_score(X, labels)),
        "davies_bouldin": float(metrics.davies_bouldin_score(X, labels)),
        "silhouette": float(metrics.silhouette_score(X[rows], labels[rows]))
        if 2 <= some < len(rows)
        else np.nan,
    }


def _stability(
    space: Space, clustering: Clustering, refit: Callable[[Space], Clustering] | None, seed: int
) -> float:
    """Adjusted Rand index, on a third of the rows, of clusterings fitted on the other two thirds each."""
    from sklearn.metrics import adjusted_rand_score

    if refit is None or clustering.model is None or space.n_rows < 3 * clustering.n_clusters:
        return np.nan
    rows = np.random.default_rng(seed).permutation(space.n_rows)
    first, second, third = np.array_split(rows, 3)
    labels = []
    for part in (first, second):
        model = refit(Space(space.X[np.sort(part)], space.seed, space.n_neighbors, space.min_samples)).model
        if model is None:
            return np.nan
        labels.append(model.predict(space.X[third])[0])
    return float(adjusted_rand_score(*labels))


def _identity(labels: NDArray[np.int32], identities: NDArray[np.int64] | None) -> float:
    """How much likelier two photos of one vehicle share a cluster than two photos at random.

    ``(p - c) / (1 - c)`` with `p` the share of pairs of one vehicle in one cluster and `c` that of all pairs:
    1 if photos of a vehicle always fall together, 0 by chance.
    """
    if identities is None:
        return np.nan
    known = identities >= 0
    labels, identities = labels[known], identities[known]
    if len(labels) < 2:
        return np.nan
    joint = pd.Series(1, index=range(len(labels))).groupby([identities, labels]).size().to_numpy()
    vehicles = np.unique(identities, return_counts=True)[1]
    clusters = np.unique(labels, return_counts=True)[1]
    pairs = (vehicles * (vehicles - 1)).sum()
    if not pairs:
        return np.nan
    together = (joint * (joint - 1)).sum() / pairs
    chance = (clusters * (clusters - 1)).sum() / (len(labels) * (len(labels) - 1))
    return float((together - chance) / (1 - chance)) if chance < 1 else np.nan


def run_trials(
    candidates: Iterable[Candidate],
    judge: Judge,
    *,
    naming_budget: int,
    algorithms: Sequence[str] = tuple(ALGORITHMS),
    fixed: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    fewer: Sequence[int] = (),
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
        parameters. It wins again unless another is better by more than chance would have it.
    fewer
        Numbers of clusters below the budget to try what won with, so that a person sees what naming fewer costs.
    progress
        Told what was tried.

    Raises
    ------
    iv_pipeline.errors.InputError
        If there are fewer rows than clusters, or if nothing that was tried is what a person chose.
    """
    chosen = {key: value for key, value in (fixed or {}).items() if value is not None}
    budget = chosen.get("n_clusters", naming_budget)
    trials: list[Trial] = []
    leading: Candidate | None = None
    for candidate in candidates:
        counts = tuple(sorted({k for k in candidate.counts if k <= budget} | {budget}))
        done = len(trials)
        for name in algorithms:
            grid = ALGORITHMS[name].grid(counts)
            trials.extend(_try(candidate, name, parameters, judge, budget) for parameters in grid)
        n_tried = len(trials) - done
        progress(f"{candidate.representation} of {candidate.scaler}: {n_tried} clusterings tried")
        winner = _winner(trials, budget, chosen, before)
        if any(trial is winner for trial in trials[done:]):
            leading = candidate  # only a later candidate can take the lead from it
    selection = _select(trials, budget, chosen, before, judge.witnesses)
    if leading is None:
        return selection
    return _with_fewer(selection, leading, judge, budget, [k for k in fewer if k < budget])


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
    clustering = algorithm.fit(candidate.space, parameters)
    seconds = time.perf_counter() - began
    at_budget = in_full or clustering.n_clusters >= BUDGET_TOLERANCE * budget
    refit = (lambda part: algorithm.fit(part, parameters)) if at_budget and candidate.parts else None
    predicted_by = judge.predict(clustering.labels)
    if at_budget:  # it takes a fit for each descriptor left out
        predicted_by |= {
            left_out: judge.predict_without(left_out, algorithm.fit(space, parameters).labels)
            for left_out, space in candidate.without.items()
        }
    scores = judge.score(candidate.space, clustering, predicted_by, refit)
    return Trial(
        candidate.scaler,
        candidate.representation,
        name,
        parameters,
        clustering,
        scores,
        predicted_by,
        seconds,
    )


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
    for trial in trials:
        trial.incumbent = before is not None and _is(trial, before)
    beside = [t for t in trials if (t.scaler, t.representation) == (winner.scaler, winner.representation)]
    for trials_of in _by_algorithm(beside).values():
        within = [t for t in trials_of if BUDGET_TOLERANCE * budget <= t.n_clusters <= budget]
        best = (
            winner
            if any(t is winner for t in trials_of)
            else max(within or trials_of, key=lambda t: _rank(t, criterion))
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
    """The best leading score among eligible trials, or what won before if it comes near; None if none is."""
    candidates, criterion = _eligible(trials, budget, chosen), _criterion(trials)
    if not candidates:
        return None
    best = max(candidates, key=lambda trial: _rank(trial, criterion))
    return _lasting(candidates, best, criterion, before) or best


def _lasting(
    candidates: list[Trial], best: Trial, criterion: str, before: Mapping[str, Any] | None
) -> Trial | None:
    """What won before, if it is among the candidates and hardly worse than the best."""
    if before is None or not best.scores[criterion] > 0:
        return None
    same = [t for t in candidates if _is(t, before)]
    if same and _rank(same[0], criterion) >= LASTING_SHARE * best.scores[criterion]:
        return same[0]
    return None


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
    how = "best" if best else "almost best"
    what = {
        "predictability": f"{witnesses} predict its clusters {how}",
        "identity": f"nobody else could judge, and photos of one vehicle fall together {how}",
        "stability": f"nobody else could judge, and it agrees {how} with itself on disjoint parts",
    }[criterion]
    if not best:
        what += " and it was chosen before"
    sentence = (
        f"{winner.algorithm} on {described(winner.scaler, winner.representation)} with {winner.n_clusters} "
        f"clusters: of {len(candidates)} candidates at the naming budget of {budget}, {what} ({criterion} "
        f"{score:.3f}"
    )
    if others:
        second = max(others, key=lambda t: t.scores[criterion])
        where = described(second.scaler, second.representation)
        sentence += (
            f"; {'next' if best else 'best'} {second.algorithm} on {where} {second.scores[criterion]:.3f}"
        )
    fixed = ", ".join(f"{key} {value}" for key, value in chosen.items())
    return f"{sentence})" + (f"; fixed in the configuration: {fixed}" if fixed else "")


def described(scaler: str, representation: str) -> str:
    """What was clustered, in words that fit after 'on'."""
    return scaler if representation == "pca" else representation.replace("_", " ")
