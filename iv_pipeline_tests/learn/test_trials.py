import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from iv_pipeline.errors import InputError
from iv_pipeline.learn import selection
from iv_pipeline.learn.clustering import ALGORITHMS
from iv_pipeline.learn.criteria import fit_predictor
from iv_pipeline.learn.sample import Sample
from iv_pipeline.learn.selection import Selection
from iv_pipeline.learn.trials import run_trials

pytestmark = pytest.mark.kernels

KEYS = [("standard", "pca"), ("minmax", "pca")]


def two_views(n_rows: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is shown, and two descriptors of it; the first also has a loud artefact of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(8, size=n_rows)
    first, second = rng.normal(size=(2, 8, 6)) * 3
    own = rng.integers(8, size=n_rows)
    artefact = rng.normal(size=(8, 6))[own] * 6
    view = np.hstack([first[truth] + rng.normal(size=(n_rows, 6)), artefact + rng.normal(size=(n_rows, 6))])
    return truth, view.astype(np.float32), (second[truth] + rng.normal(size=(n_rows, 6))).astype(np.float32)


def sample(n_rows: int = 900) -> Sample:
    """What is shown under the standard scaler, the artefact under another, their mixture under the last."""
    _, view, other = two_views(n_rows)
    components = {"standard": view[:, :6], "minmax": view[:, 6:], "robust": view}
    return Sample(components, {"block": {"view": view}}, judges={"other": other})


def trials(given: Sample | None = None, keys: list[tuple[str, str]] = KEYS, **options: Any) -> Selection:
    settings: dict[str, Any] = {"naming_budget": 8, "algorithms": ("kmeans", "hdbscan")}
    return run_trials(given or sample(), keys, **settings | options)


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
    assert json.loads(frame["parameters"].iloc[0]) == {"n_clusters": 8}
    assert frame["n_rows"].unique().tolist() == [900]
    assert frame["predictability"].between(-0.1, 1).all()


def test_what_decides_nothing_is_measured_for_those_that_are_kept_or_tied_alone() -> None:
    found = trials()
    for made in found.trials:
        is_finalist = made.kept or made.tied
        assert np.isfinite(made.scores["silhouette"]) == is_finalist
        assert np.isfinite(made.scores["stability"]) <= is_finalist
    assert np.isfinite(found.winner.scores["stability"])
    everything = trials(exhaustive=True)
    assert all(np.isfinite(made.scores["silhouette"]) for made in everything.trials)
    assert everything.reason == found.reason


def test_trials_are_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []
    for threads in ("1", "3"):
        monkeypatch.setenv("IV_THREADS", threads)
        found = trials(all_take_part(n_rows=1_200), MANY, algorithms=tuple(ALGORITHMS))
        frames.append(found.to_frame().drop(columns="seconds"))
    assert set(frames[0]["round"]) == {1, 2, 3}
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


def all_take_part(*names: str, n_rows: int = 900) -> Sample:
    """A combination of all descriptors, so that each judges what the others make without it."""
    _, view, other = two_views(n_rows)
    blocks = {"view": view[:, :6], "other": other, "artefact": view[:, 6:] / 10}
    blocks = {name: blocks[name] for name in names or blocks}
    joined = np.hstack(list(blocks.values()))
    scalers = ("standard", "minmax", "robust")
    return Sample(
        dict.fromkeys(scalers, joined),
        dict.fromkeys((*scalers, "block"), blocks),
        judges=blocks,
        leave_out=True,
    )


def test_fewer_clusters_are_tried_of_what_is_judged_by_leaving_blocks_out() -> None:
    found = trials(all_take_part("view", "other"), KEYS[:1], algorithms=("kmeans",), fewer=(4,))
    few = next(t for t in found.trials if t.n_clusters == 4)
    assert 0 < few.scores["predictability"] < found.winner.scores["predictability"]
    assert len(found.trials) == 2


def test_where_nobody_else_can_judge_photos_of_one_vehicle_do_and_then_stability() -> None:
    truth, view, _ = two_views()
    vehicles = truth * 100 + np.random.default_rng(0).integers(30, size=len(truth))
    components = {"standard": view[:, :6], "minmax": view[:, 6:]}
    chosen = trials(Sample(components, identities=vehicles), algorithms=("kmeans",))
    assert (chosen.criterion, chosen.winner.scaler) == ("identity", "standard")
    assert "photos of one vehicle fall together best (identity 0." in chosen.reason
    nobody = trials(Sample(components), algorithms=("kmeans",))
    assert nobody.criterion == "stability"
    assert "agrees best with itself on disjoint parts (stability" in nobody.reason


def test_the_reason_says_who_judged() -> None:
    _, view, other = two_views()
    judged = Sample({"standard": view}, judges={"pictures/shape": other}, witnesses="the pictures themselves")
    chosen = trials(judged, KEYS[:1], algorithms=("kmeans",))
    assert "the pictures themselves predict its clusters best" in chosen.reason


def test_where_every_descriptor_takes_part_each_judges_what_the_others_make_without_it() -> None:
    (trial,) = trials(all_take_part(), KEYS[:1], algorithms=("kmeans",)).trials
    by = {name: score.value for name, score in trial.predicted_by.items()}
    assert list(by) == ["view", "other", "artefact"]
    assert by["artefact"] < 0.1 < by["view"]
    assert trial.scores["predictability"] == pytest.approx(np.mean(list(by.values())))


def test_vectors_that_depend_on_all_rows_are_no_witnesses_of_stability() -> None:
    for representation, has_parts in (("whitened", True), ("umap", False)):
        found = trials(sample(300), [("standard", representation)], algorithms=("kmeans",))
        assert np.isfinite(found.winner.scores["stability"]) == has_parts


def test_a_choice_that_was_not_tried_says_so() -> None:
    for choice in ("scaler robust", "algorithm leiden"):
        with pytest.raises(InputError, match=f"nothing that was tried has {choice}: add it to the section"):
            trials(fixed=dict([choice.split()]))


# ── rounds ───────────────────────────────────────────────────────────────────────────────────────────────────

MANY = [("minmax", "pca"), ("robust", "pca"), ("standard", "pca"), ("standard", "whitened")]


def test_the_first_round_drops_representations_after_a_look_at_few_rows() -> None:
    told: list[str] = []
    found = trials(sample(2_000), MANY, progress=told.append)
    frame = found.to_frame()
    assert (found.winner.scaler, found.winner.representation) == ("standard", "pca")
    early, late = frame[frame["round"] == 1], frame[frame["round"] == 2]
    assert (early["n_rows"] == 1_000).all()
    assert (early["algorithm"] == "kmeans").all()
    assert ("minmax", "pca") in set(zip(early["scaler"], early["representation"], strict=True))
    assert (late["n_rows"] == 2_000).all()
    assert set(late["algorithm"]) == {"kmeans", "hdbscan"}
    assert len(early) == 2
    assert not early[["kept", "tied", "won"]].any(axis=None)
    assert told == ["round 1: 4 clusterings of 1,000 images", "round 2: 14 clusterings of 2,000 images"]


def test_a_race_chooses_what_an_exhaustive_search_chooses() -> None:
    raced, searched = (trials(sample(2_000), MANY, exhaustive=exhaustive) for exhaustive in (False, True))
    assert len(raced.trials) < len(searched.trials)
    for key in ("scaler", "representation", "algorithm", "tried"):
        assert getattr(raced.winner, key) == getattr(searched.winner, key)
    np.testing.assert_array_equal(raced.winner.clustering.labels, searched.winner.clustering.labels)
    assert raced.winner.scores == searched.winner.scores


def test_a_large_sample_is_whole_in_the_last_round_alone() -> None:
    told: list[str] = []
    found = trials(sample(4_000), MANY, algorithms=tuple(ALGORITHMS), progress=told.append)
    frame = found.to_frame()
    assert frame.groupby("round")["n_rows"].unique().map(list).to_dict() == {
        1: [1_000],
        2: [2_000],
        3: [4_000],
    }
    assert found.winner.round == 3
    assert set(found.kept()) == set(ALGORITHMS)
    assert (found.winner.scaler, found.winner.representation) == ("standard", "pca")
    assert np.isfinite([t.scores["silhouette"] for t in found.trials if t.kept]).all()
    assert len(told) == 3


def test_what_won_before_goes_on_in_every_round() -> None:
    tried = ALGORITHMS["hdbscan"].grid(8)[0]
    before = {"scaler": "minmax", "representation": "pca", "algorithm": "hdbscan", "tried": tried}
    for n_rows, last in ((2_000, 2), (4_000, 3)):
        fresh = trials(sample(n_rows), MANY)
        dropped = [t for t in fresh.trials if (t.scaler, t.round) == ("minmax", 1)]
        assert dropped  # the artefact, which nobody predicts
        (incumbent,) = (t for t in trials(sample(n_rows), MANY, before=before).trials if t.incumbent)
        assert incumbent.round == last


def test_where_photos_of_one_vehicle_judge_every_round_has_the_whole_sample() -> None:
    truth, view, _ = two_views(2_500)
    judged = Sample({"standard": view[:, :6], "minmax": view[:, 6:], "robust": view}, identities=truth * 300)
    found = trials(judged, MANY[:3])
    assert {len(t.clustering.labels) for t in found.trials} == {2_500}
    assert found.winner.scaler == "standard"


def test_one_judge_decides_what_all_judge_in_the_end() -> None:
    found = trials(all_take_part(), MANY, algorithms=tuple(ALGORITHMS))
    for trial in found.trials:
        at_budget = trial.n_clusters >= selection.BUDGET_TOLERANCE * 8
        assert len(trial.predicted_by) == (0 if not at_budget else 3 if trial.round == 3 else 1)
    rounds = [t.round for t in found.trials]
    assert rounds.count(3) < rounds.count(2)
    assert found.winner.round == 3


def test_an_algorithm_that_a_person_fixes_is_raced_alone() -> None:
    fixed = {"algorithm": "agglomerative"}
    for given in (sample(), all_take_part()):
        found = trials(given, MANY, algorithms=tuple(ALGORITHMS), fixed=fixed)
        assert found.winner.algorithm == "agglomerative"
        assert {t.algorithm for t in found.trials if t.round == 1} == {"agglomerative"}
        assert set(found.kept()) == set(ALGORITHMS)  # fitted beside it
