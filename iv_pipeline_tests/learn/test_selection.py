import numpy as np
import pytest

from iv_pipeline.learn.clustering import Clustering
from iv_pipeline.learn.criteria import UNDEFINED, Score
from iv_pipeline.learn.selection import Selection, Trial, select


def trial(
    value: float,
    representation: str = "pca",
    algorithm: str = "kmeans",
    *,
    scaler: str = "standard",
    noise: int = 0,
    seed: int = 0,
    number: int = 2,
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
        number,
    )


def choose(*trials: Trial, before: Trial | None = None) -> Selection:
    keys = ("scaler", "representation", "algorithm", "tried")
    known = None if before is None else {key: getattr(before, key) for key in keys}
    return select(list(trials), 8, {}, known)


def test_among_ties_the_simplest_wins_and_the_reason_says_so() -> None:
    best = trial(0.300, "normalized_umap", "agglomerative")
    simple = trial(0.293, "umap", "minibatchkmeans", seed=1)
    simpler = trial(0.291, "whitened_umap", "kmeans", seed=2)
    worse = trial(0.250, "pca", seed=3)
    chosen = choose(best, simple, simpler, worse)
    assert chosen.winner is simpler
    assert "other descriptors predict its clusters as well as the best, tied with 2 others" in chosen.reason
    assert (
        "tied with 2 others; the simplest of them (predictability 0.291; best agglomerative" in chosen.reason
    )
    assert chosen.to_frame()["tied"].tolist() == [True, True, True, False]


def test_a_difference_that_chance_does_not_make_is_no_tie() -> None:
    best, simple = trial(0.300, "umap"), trial(0.295, "pca")  # they err alike
    assert choose(best, simple).winner is best
    assert "tied" not in choose(best, simple).reason


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_order_of_ties_is_algorithm_then_representation_then_scaler(order: tuple[int, ...]) -> None:
    trials = [
        trial(0.3, "pca", "leiden"),
        trial(0.3, "pca", "minibatchkmeans"),
        trial(0.3, "whitened", "kmeans"),
        trial(0.3, "pca", "kmeans", scaler="minmax"),
    ]
    assert choose(*(trials[i] for i in order)).winner is trials[3]


def test_where_nothing_can_judge_the_simplest_wins_and_the_reason_says_so() -> None:
    blind = [trial(np.nan, "umap", "leiden"), trial(np.nan, "pca", "kmeans")]
    chosen = choose(*blind)
    assert chosen.winner is blind[1]
    assert (
        "nothing could judge them, tied with 1 other; the simplest of them (stability unknown)"
        in chosen.reason
    )


def test_what_leaves_images_unlabeled_never_wins_a_tie() -> None:
    noisy, whole = trial(0.30, "pca", "hdbscan", noise=5), trial(0.295, "normalized_umap", "leiden", seed=1)
    assert choose(noisy, whole).winner is whole
    assert choose(noisy, trial(0.20, seed=1)).winner is noisy


def test_what_was_chosen_before_wins_a_tie() -> None:
    simple, incumbent = trial(0.30, "pca"), trial(0.29, "normalized_umap", "leiden", seed=1)
    chosen = choose(simple, incumbent, before=incumbent)
    assert chosen.winner is incumbent
    assert "tied with 1 other; chosen before" in chosen.reason


def test_the_best_of_an_algorithm_is_the_simplest_of_its_ties() -> None:
    winner = trial(0.5)
    loose, strict = trial(0.300, "pca", "hdbscan", noise=40), trial(0.295, "pca", "hdbscan", noise=0, seed=1)
    kept = choose(winner, loose, strict).kept()
    assert (kept["kmeans"], kept["hdbscan"]) == (winner, strict)


def test_only_what_reached_the_last_round_is_compared() -> None:
    early, late = trial(0.5, "pca", number=1), trial(0.3, "umap", number=3)
    chosen = choose(early, trial(0.4, "whitened", seed=1), late)
    assert chosen.winner is late
    assert chosen.to_frame()["round"].tolist() == [1, 2, 3]


def test_an_algorithm_that_was_dropped_is_kept_by_its_last_round() -> None:
    winner = trial(0.3, number=3)
    earlier, last = trial(0.9, algorithm="hdbscan", number=1), trial(0.2, algorithm="hdbscan", number=2)
    assert choose(winner, earlier, last).kept()["hdbscan"] is last
