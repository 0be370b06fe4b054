from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iv_pipeline.learn.changes import count_changes, since


def labelled(
    paths: str, clusters: list[int], names: dict[int, str] | None = None, flagged: str = ""
) -> pd.DataFrame:
    cluster = np.array(clusters, int)
    return pd.DataFrame(
        {
            "image_path": list(paths),
            "cluster": cluster,
            "name": [(names or {}).get(c) for c in clusters],
            "is_outlier": [path in flagged for path in paths],
        }
    )


def test_the_first_run_has_only_new_images() -> None:
    frame = since(labelled("ab", [0, -1]), None)
    assert frame["change"].to_list() == ["new", "new"]
    assert frame["cluster_before"].isna().all()
    counts = count_changes(frame)
    assert counts["images_new"] == 2
    assert counts["images_moved"] == counts["clusters_renamed"] == counts["newly_flagged"] == 0


def test_images_that_moved_came_and_went_are_told_with_what_they_were() -> None:
    before = since(labelled("abcd", [0, 0, 1, -1], {0: "bus", 1: "van"}, flagged="a"), None)
    frame = since(labelled("acde", [0, 0, 2, 2], {0: "coach"}, flagged="ce"), before)
    rows = frame.set_index("image_path")
    assert rows["change"].to_dict() == {"a": "kept", "c": "moved", "d": "moved", "e": "new", "b": "gone"}
    assert rows.loc["c", ["cluster", "cluster_before", "name", "name_before"]].to_list() == [
        0,
        1,
        "coach",
        "van",
    ]
    assert rows.loc["b", "cluster_before"] == 0
    assert pd.isna(rows.loc["b", "cluster"])
    assert count_changes(frame) == {
        "images_new": 1,
        "images_gone": 1,
        "images_moved": 2,
        "images_kept": 1,
        "newly_flagged": 1,
        "no_longer_flagged": 1,
        "clusters_renamed": 1,
        "clusters_new": 1,
        "clusters_gone": 1,  # noise is no cluster
    }


runs = st.dictionaries(st.sampled_from("abcdef"), st.integers(-1, 2), min_size=1)


@given(runs, runs)
def test_a_run_that_is_run_again_keeps_what_had_changed(
    first: dict[str, int], second: dict[str, int]
) -> None:
    one, two = (labelled("".join(run), list(run.values())) for run in (first, second))
    stored = since(one, None)
    pd.testing.assert_frame_equal(since(one, stored), stored)
    changed = since(two, stored)
    pd.testing.assert_frame_equal(since(two, changed), changed)
    kept = changed[changed["change"] != "gone"]
    assert kept["image_path"].to_list() == list(second)
    assert kept["cluster"].to_list() == list(second.values())
    assert set(changed.loc[changed["change"] == "gone", "image_path"]) == (
        set(first) - set(second) if list(first.items()) != list(second.items()) else set()
    )


@pytest.mark.parametrize("how", ["csv", "parquet"])
def test_what_was_stored_is_compared_whatever_it_was_stored_as(
    how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("changes") / "file"
    now = labelled("abc", [0, 1, -1], {0: "bus"}, flagged="b")
    stored = since(now, None)
    if how == "csv":
        stored.to_csv(path, index=False)
        stored = pd.read_csv(path)
    else:
        stored.to_parquet(path)
        stored = pd.read_parquet(path)
    assert since(now, stored) is stored
    assert count_changes(stored)["images_new"] == 3
