import json

import numpy as np
import pandas as pd
import pytest

from iv_pipeline.errors import InputError
from iv_pipeline.learn import selection
from iv_pipeline.learn.clustering import ALGORITHMS, Clustering, Space
from iv_pipeline.learn.criteria import UNDEFINED, Score, fit_predictor
from iv_pipeline.learn.selection import Candidate, Judge, Selection, Trial, run_trials

pytestmark = pytest.mark.kernels


def two_views(n_rows: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is shown, and two descriptors of it; the first also has a loud artefact of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(8, size=n_rows)
    first, second = rng.normal(size=(2, 8, 6)) * 3
    own = rng.integers(8, size=n_rows)
    artefact = rng.normal(size=(8, 6))[own] * 6
    view = np.hstack([first[truth] + rng.normal(size=(n_rows, 6)), artefact + rng.normal(size=(n_rows, 6))])
    return truth, view.astype(np.float32), (second[truth] + rng.normal(size=(n_rows, 6))).astype(np.float32)


def trials(**options: object) -> Selection:
    _, view, other = two_views()
    candidates = [
        Candidate("standard", "pca", Space(view[:, :6]), (4, 8)),
        Candidate("minmax", "pca", Space(view[:, 6:]), (4, 8)),
    ]
    settings = {"naming_budget": 8, "algorithms": ("kmeans", "hdbscan"), **options}
    return run_trials(candidates, Judge({"other": fit_predictor(other)}, naming_budget=8), **settings)  # type: ignore[arg-type]


def test_clusters_of_what_is_shown_are_predictable_and_artefacts_are_not() -> None:
    truth, _, other = two_views()
    predictor = fit_predictor(other)
    assert predictor.score(truth.astype(np.int32), 8).value > 0.9
    shuffled = np.random.default_rng(1).permutation(truth).astype(np.int32)
    assert abs(predictor.score(shuffled, 8).value) < 0.05


def test_a_giant_cluster_with_crumbs_tells_little_however_well_it_is_predicted() -> None:
    truth, _, other = two_views()
    predictor = fit_predictor(other)
    whole = predictor.score(truth.astype(np.int32), 8).value
    lopsided = np.where(truth == 0, np.arange(len(truth)) % 7 + 1, 0).astype(np.int32)
    assert predictor.score(lopsided, 8).value < 0.3 * whole
    assert predictor.score(np.zeros(len(truth), np.int32), 8).value == pytest.approx(0)


def test_the_representation_that_shows_something_real_wins() -> None:
    chosen = trials()
    assert chosen.winner.scaler == "standard"
    assert chosen.criterion == "predictability"
    assert "other descriptors predict its clusters best" in chosen.reason


def test_only_clusterings_at_the_budget_are_candidates() -> None:
    assert trials().winner.n_clusters >= selection.BUDGET_TOLERANCE * 8
    assert trials(naming_budget=4).winner.n_clusters <= 4


def test_every_trial_is_a_row_with_its_parameters_and_scores() -> None:
    frame = trials().to_frame()
    assert frame["won"].sum() == 1
    assert set(frame[frame["kept"]]["algorithm"]) == {"kmeans", "hdbscan"}
    assert len(set(frame[frame["kept"]]["scaler"])) == 1
    assert json.loads(frame["parameters"].iloc[0]) == {"n_clusters": 4}
    assert frame["predictability"].between(-0.1, 1).all()


def test_what_decides_nothing_is_measured_for_those_that_are_kept_or_tied_alone() -> None:
    found = trials()
    for made in found.trials:
        is_finalist = made.kept or made.tied
        assert np.isfinite(made.scores["silhouette"]) == is_finalist
        assert np.isfinite(made.scores["stability"]) <= is_finalist
    assert np.isfinite(found.winner.scores["stability"])
    everything = trials(all_scores=True)
    assert all(np.isfinite(made.scores["silhouette"]) for made in everything.trials)
    assert everything.reason == found.reason


def test_trials_are_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []
    for threads in ("1", "3"):
        monkeypatch.setenv("IV_THREADS", threads)
        frames.append(trials(algorithms=tuple(ALGORITHMS)).to_frame().drop(columns="seconds"))
    pd.testing.assert_frame_equal(*frames)


def test_what_a_person_fixes_is_obeyed_and_said() -> None:
    chosen = trials(fixed={"scaler": "minmax", "algorithm": "kmeans", "n_clusters": 5})
    assert (chosen.winner.scaler, chosen.winner.algorithm, chosen.winner.n_clusters) == (
        "minmax",
        "kmeans",
        5,
    )
    assert "fixed in the configuration: scaler minmax" in chosen.reason


def test_what_an_earlier_fit_chose_is_chosen_again_unless_another_is_clearly_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh = trials()
    at_budget = [t for t in fresh.trials if t.n_clusters == 8 and t is not fresh.winner]
    other = max(at_budget, key=lambda t: t.scores["predictability"])
    before = {key: getattr(other, key) for key in ("scaler", "representation", "algorithm", "tried")}
    assert trials(before=before).winner.scaler == fresh.winner.scaler
    share = other.scores["predictability"] / fresh.winner.scores["predictability"]
    monkeypatch.setattr(selection, "INCUMBENT_SHARE", share - 0.01)
    lasting = trials(before=before)
    assert (lasting.winner.scaler, lasting.winner.tried) == (other.scaler, other.tried)
    assert "almost best and it was chosen before" in lasting.reason
    assert f"best {fresh.winner.algorithm} on {fresh.winner.scaler}" in lasting.reason
    assert trials(before={**before, "algorithm": "dbscan"}).winner.scaler == fresh.winner.scaler


def test_what_naming_fewer_clusters_costs_is_said() -> None:
    chosen = trials(fewer=(2, 4, 8))
    alike = [
        t for t in chosen.trials if (t.scaler, t.algorithm) == (chosen.winner.scaler, chosen.winner.algorithm)
    ]
    told = {t.n_clusters: t.scores["predictability"] for t in alike}
    assert set(told) == {2, 4, 8}
    assert told[2] < told[4] < told[8]
    shares = f"4 {100 * told[4] / told[8]:.0f} %, 2 {100 * told[2] / told[8]:.0f} %"
    assert chosen.reason.endswith(f"; of that score fewer clusters reach: {shares}")
    assert chosen.winner.tried == trials().winner.tried


def test_fewer_clusters_are_tried_of_what_is_judged_by_leaving_blocks_out() -> None:
    _, view, other = two_views()
    blocks = {"one": view[:, :6], "two": other}
    spaces = {name: Space(X) for name, X in blocks.items()}
    candidate = Candidate(
        "standard", "pca", Space(np.hstack([*blocks.values()])), (4,), {"one": spaces["two"]}
    )
    judge = Judge(own={"one": fit_predictor(blocks["one"])}, naming_budget=8)
    found = run_trials([candidate], judge, naming_budget=8, algorithms=("kmeans",), fewer=(4,))
    few = next(t for t in found.trials if t.n_clusters == 4)
    assert 0 < few.scores["predictability"] < found.winner.scores["predictability"]
    assert len(found.trials) == 2


def test_where_nobody_else_can_judge_photos_of_one_vehicle_do_and_then_stability() -> None:
    truth, view, _ = two_views()
    vehicles = truth * 100 + np.random.default_rng(0).integers(30, size=len(truth))
    candidates = [
        Candidate("standard", "pca", Space(view[:, :6])),
        Candidate("minmax", "pca", Space(view[:, 6:])),
    ]
    chosen = run_trials(candidates, Judge(identities=vehicles), naming_budget=8, algorithms=("kmeans",))
    assert (chosen.criterion, chosen.winner.scaler) == ("identity", "standard")
    assert "photos of one vehicle fall together best (identity 0." in chosen.reason
    nobody = run_trials(candidates, Judge(), naming_budget=8, algorithms=("kmeans",))
    assert nobody.criterion == "stability"
    assert "agrees best with itself on disjoint parts (stability" in nobody.reason


def test_the_reason_says_who_judged() -> None:
    _, view, other = two_views()
    judge = Judge(
        {"pictures/shape": fit_predictor(other)}, naming_budget=8, witnesses="the pictures themselves"
    )
    candidates = [Candidate("standard", "pca", Space(view))]
    chosen = run_trials(candidates, judge, naming_budget=8, algorithms=("kmeans",))
    assert "the pictures themselves predict its clusters best" in chosen.reason


def test_where_every_descriptor_takes_part_each_judges_what_the_others_make_without_it() -> None:
    _, view, other = two_views()
    blocks = {"view": view[:, :6], "other": other, "artefact": view[:, 6:] / 10}
    own = {name: fit_predictor(X) for name, X in blocks.items()}
    without = {name: Space(np.hstack([X for block, X in blocks.items() if block != name])) for name in blocks}
    candidate = Candidate("standard", "pca", Space(np.hstack(list(blocks.values()))), without=without)
    (trial,) = run_trials(
        [candidate], Judge(own=own, naming_budget=8), naming_budget=8, algorithms=("kmeans",)
    ).trials
    assert list(trial.predicted_by) == list(blocks)
    assert trial.predicted_by["artefact"] < 0.1 < trial.predicted_by["view"]
    assert trial.scores["predictability"] == pytest.approx(np.mean(list(trial.predicted_by.values())))


def test_vectors_that_depend_on_all_rows_are_no_witnesses_of_stability() -> None:
    _, view, other = two_views()
    judge = Judge({"other": fit_predictor(other)}, naming_budget=8)
    for parts in (True, False):
        candidates = [Candidate("standard", "umap", Space(view), parts=parts)]
        (trial,) = run_trials(candidates, judge, naming_budget=8, algorithms=("kmeans",)).trials
        assert np.isfinite(trial.scores["stability"]) == parts


def test_a_choice_that_was_not_tried_says_so() -> None:
    with pytest.raises(InputError, match="nothing that was tried has scaler robust: add it to the section"):
        trials(fixed={"scaler": "robust"})


# ── ties ─────────────────────────────────────────────────────────────────────────────────────────────────────


def trial(
    value: float,
    representation: str = "pca",
    algorithm: str = "kmeans",
    *,
    scaler: str = "standard",
    noise: int = 0,
    seed: int = 0,
) -> Trial:
    """A clustering into 8 with a score of standard error 0.01; errors of other seeds are independent."""
    labels = np.repeat(np.arange(8, dtype=np.int32), 50)
    labels[:noise] = -1
    errors = np.random.default_rng(seed).normal(scale=0.01 / 20, size=400).astype(np.float32)
    return Trial(
        scaler,
        representation,
        algorithm,
        {"n_clusters": 8},
        Clustering(labels, np.ones(400, np.float32), {}),
        {"predictability": Score(value, errors), "stability": UNDEFINED, "identity": UNDEFINED},
        {},
        0.0,
        Space(np.zeros((400, 2), np.float32)),
        True,
    )


def select(*trials: Trial, before: Trial | None = None) -> Selection:
    keys = ("scaler", "representation", "algorithm", "tried")
    known = None if before is None else {key: getattr(before, key) for key in keys}
    return selection._select(list(trials), 8, {}, known)


def test_among_ties_the_simplest_wins_and_the_reason_says_so() -> None:
    best = trial(0.300, "normalized_umap", "agglomerative")
    simple = trial(0.293, "umap", "minibatchkmeans", seed=1)
    simpler = trial(0.291, "whitened_umap", "kmeans", seed=2)
    worse = trial(0.250, "pca", seed=3)
    chosen = select(best, simple, simpler, worse)
    assert chosen.winner is simpler
    assert "other descriptors predict its clusters as well as the best, tied with 2 others" in chosen.reason
    assert (
        "tied with 2 others; the simplest of them (predictability 0.291; best agglomerative" in chosen.reason
    )
    assert chosen.to_frame()["tied"].tolist() == [True, True, True, False]


def test_a_difference_that_chance_does_not_make_is_no_tie() -> None:
    best, simple = trial(0.300, "umap"), trial(0.295, "pca")  # they err alike
    assert select(best, simple).winner is best
    assert "tied" not in select(best, simple).reason


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_order_of_ties_is_algorithm_then_representation_then_scaler(order: tuple[int, ...]) -> None:
    trials = [
        trial(0.3, "pca", "leiden"),
        trial(0.3, "pca", "minibatchkmeans"),
        trial(0.3, "whitened", "kmeans"),
        trial(0.3, "pca", "kmeans", scaler="minmax"),
    ]
    assert select(*(trials[i] for i in order)).winner is trials[3]


def test_where_nothing_can_judge_the_simplest_wins_and_the_reason_says_so() -> None:
    blind = [trial(np.nan, "umap", "leiden"), trial(np.nan, "pca", "kmeans")]
    chosen = select(*blind)
    assert chosen.winner is blind[1]
    assert (
        "nothing could judge them, tied with 1 other; the simplest of them (stability unknown)"
        in chosen.reason
    )


def test_what_leaves_images_unlabeled_never_wins_a_tie() -> None:
    noisy, whole = trial(0.30, "pca", "hdbscan", noise=5), trial(0.295, "normalized_umap", "leiden", seed=1)
    assert select(noisy, whole).winner is whole
    assert select(noisy, trial(0.20, seed=1)).winner is noisy


def test_what_was_chosen_before_wins_a_tie() -> None:
    simple, incumbent = trial(0.30, "pca"), trial(0.29, "normalized_umap", "leiden", seed=1)
    chosen = select(simple, incumbent, before=incumbent)
    assert chosen.winner is incumbent
    assert "tied with 1 other; chosen before" in chosen.reason


def test_the_best_of_an_algorithm_is_the_simplest_of_its_ties() -> None:
    winner = trial(0.5)
    loose, strict = trial(0.300, "pca", "hdbscan", noise=40), trial(0.295, "pca", "hdbscan", noise=0, seed=1)
    kept = select(winner, loose, strict).kept()
    assert (kept["kmeans"], kept["hdbscan"]) == (winner, strict)


def test_a_candidate_that_wins_after_all_is_made_again_to_see_what_fewer_clusters_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, view, other = two_views()
    made: list[tuple[str, str]] = []

    def make(scaler: str, representation: str) -> Candidate:
        made.append((scaler, representation))
        return Candidate(scaler, representation, Space(view[:, :6]))

    leading = iter([0, 1, 0])  # after each candidate, and in the end
    monkeypatch.setattr(selection, "_winner", lambda trials, *_: trials[next(leading)])
    found = run_trials(
        [Candidate(scaler, "pca", Space(view[:, :6])) for scaler in ("standard", "minmax")],
        Judge({"other": fit_predictor(other)}, naming_budget=8),
        naming_budget=8,
        algorithms=("kmeans",),
        fewer=(4,),
        make_again=make,
    )
    assert made == [("standard", "pca")]
    assert [(t.scaler, t.n_clusters) for t in found.trials][-1] == ("standard", 4)
