import importlib

import numpy as np
import pytest

from iv_pipeline.config import PipelineConfig
from iv_pipeline.learn.sample import Sample

clustering_trials = importlib.import_module(
    "iv_pipeline.assets.clustering_trials"
)  # not the asset of that name


def config_of(choose: dict[str, str | int] | None = None) -> PipelineConfig:
    """Hardly anything to try."""
    return PipelineConfig.model_validate(
        {
            "descriptors": {"one": {"file": "one.pickle", "choose": choose or {}}, "two": "two.pickle"},
            "trials": {
                "naming_budget": 6,
                "scalers": ["standard"],
                "representations": ["pca"],
                "algorithms": ["kmeans"],
            },
        }
    )


def sample() -> Sample:
    X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    return Sample(
        dict.fromkeys(("standard", "minmax", "robust"), X), {"block": {"one": X}}, judges={"two": X}
    )


@pytest.mark.parametrize(
    "fixed",
    [{"scaler": "robust"}, {"algorithm": "leiden"}, {"representation": "whitened"}, {"n_clusters": 4}],
)
def test_what_a_person_fixes_is_tried_also_where_the_configuration_leaves_it_out(
    fixed: dict[str, str | int],
) -> None:
    winner = clustering_trials.race(config_of(fixed), sample(), "one").winner
    for key, value in fixed.items():
        assert getattr(winner, key) == value


def test_what_won_before_is_not_tried_where_the_configuration_leaves_it_out() -> None:
    before = {"scaler": "robust", "representation": "pca", "algorithm": "leiden", "tried": {"n_clusters": 6}}
    found = clustering_trials.race(config_of(), sample(), "one", before)
    assert {(t.scaler, t.algorithm) for t in found.trials} == {("standard", "kmeans")}
