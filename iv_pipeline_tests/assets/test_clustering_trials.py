import importlib

import numpy as np
import pytest

from iv_pipeline.config import PipelineConfig
from iv_pipeline.learn.trials import Sample

clustering_trials = importlib.import_module(
    "iv_pipeline.assets.clustering_trials"
)  # not the asset of that name


@pytest.mark.parametrize(
    "fixed",
    [{"scaler": "robust"}, {"algorithm": "leiden"}, {"representation": "whitened"}, {"n_clusters": 4}],
)
def test_what_a_person_fixes_is_tried_also_where_the_configuration_leaves_it_out(
    fixed: dict[str, str | int],
) -> None:
    config = PipelineConfig.model_validate(
        {
            "descriptors": {
                "one": {"file": "one.pickle", "choose": fixed},
                "two": "two.pickle",
            },
            "trials": {
                "naming_budget": 6,
                "scalers": ["standard"],
                "representations": ["pca"],
                "algorithms": ["kmeans"],
            },
        }
    )
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)).astype(np.float32)
    sample = Sample(
        dict.fromkeys(("standard", "minmax", "robust"), X), {"block": {"one": X}}, judges={"two": X}
    )
    winner = clustering_trials.race(config, sample, "one").winner
    for key, value in fixed.items():
        assert getattr(winner, key) == value
