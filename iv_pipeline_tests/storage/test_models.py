import json
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.storage.models import FORMAT, StoredModel, read_model, version_of, write_model


def stored(value: float = 1.0) -> StoredModel:
    return StoredModel({"descriptor": "vdc_type"}, {"a/b": np.full(3, value)}, f"{value:.0f}" * 64)


def test_a_model_is_json_and_arrays_and_reads_as_it_was_written(tmp_path: Path) -> None:
    path = UPath(tmp_path / "model.json")
    write_model(stored(), path)
    again = read_model(path)
    np.testing.assert_array_equal(again.arrays["a/b"], np.ones(3))
    assert again.facts["descriptor"] == json.loads(path.read_text())["descriptor"] == "vdc_type"
    assert again.fingerprint == stored().fingerprint


def test_a_new_model_leaves_the_one_before_under_its_version(tmp_path: Path) -> None:
    path = UPath(tmp_path / "model.json")
    write_model(stored(1), path)
    write_model(stored(2), path)
    assert read_model(path).arrays["a/b"].tolist() == [2, 2, 2]
    for n in (1, 2):
        version = version_of(stored(n).fingerprint)
        assert read_model(path.with_name(f"model-{version}.json")).arrays["a/b"].tolist() == [n] * 3


def test_a_model_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = UPath(tmp_path / "model.json")
    write_model(stored(1), path)
    broken = StoredModel({"facts": object()}, stored(2).arrays, stored(2).fingerprint)
    with pytest.raises(TypeError):
        write_model(broken, path)
    assert read_model(path).arrays["a/b"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: {**facts, "format": 99}, f"has the format 99, this version reads {FORMAT}"),
        (lambda _: {"format": FORMAT}, "is no model"),
        (lambda facts: {**facts, "arrays": "gone.npz"}, "is no model"),
        (lambda _: [], "is no model"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(tmp_path: Path, change: object, message: str) -> None:
    path = UPath(tmp_path / "model.json")
    write_model(stored(), path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        read_model(path)
