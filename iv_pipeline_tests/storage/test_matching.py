from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from iv_pipeline.storage.matching import Entries, fold, match

LISTED = [f"city/{i % 3}/{i // 4:02d}/{i:03d}.jpg" for i in range(60)]


def found(paths: list[str], names: list[str]) -> dict[str, str | None]:
    entries = Entries(dict.fromkeys(names))
    matching, _ = match(paths, entries)
    return {path: entries.find(path, matching) for path in paths}


def said(paths: list[str], names: list[str]) -> list[str]:
    return [str(notice) for notice in match(paths, Entries(dict.fromkeys(names)))[1]]


def test_names_that_are_the_same_are_not_talked_about() -> None:
    assert found(LISTED, [*LISTED, "readme.txt"]) == {path: path for path in LISTED}
    assert said(LISTED, [*LISTED, "readme.txt"]) == []


def test_images_some_folders_deeper_are_found_whatever_lies_beside_them() -> None:
    names = ["readme.txt", "other/1.txt", *(f"home/user/data/{path}" for path in LISTED)]
    assert found(LISTED, names) == {path: f"home/user/data/{path}" for path in LISTED}
    (sentence,) = said(LISTED, names)
    assert "60 of 60 images are found under other names than their paths (60 in another folder)" in sentence
    assert f"such as {LISTED[0]} as home/user/data/{LISTED[0]}" in sentence


def test_images_all_in_one_folder_are_found_by_their_names() -> None:
    flat = {path: path.rpartition("/")[2] for path in LISTED}
    assert found(LISTED, list(flat.values())) == flat
    assert found(list(flat.values()), LISTED) == {name: path for path, name in flat.items()}


def test_images_in_several_folders_are_each_found_where_they_are() -> None:
    names = {path: f"part{path[5]}/{path.removeprefix('city/')}" for path in LISTED}
    assert found(LISTED, list(names.values())) == names


def test_letter_case_and_unicode_composition_are_no_difference() -> None:
    listed = [f"район/{i}.jpg" for i in range(5)]
    names = [unicodedata.normalize("NFD", path).replace(".jpg", ".JPG") for path in listed]
    assert found(listed, names) == dict(zip(listed, names, strict=True))
    assert "5 in other letter case, Unicode composition or suffix" in said(listed, names)[0]


def test_exact_names_go_before_others() -> None:
    assert found(["a/1.jpg"], ["A/1.JPG", "a/1.jpg", "b/a/1.jpg"]) == {"a/1.jpg": "a/1.jpg"}
    assert found(["a/1.jpg", "A/1.jpg"], ["a/1.jpg"]) == {"a/1.jpg": "a/1.jpg", "A/1.jpg": None}


def test_two_entries_that_fit_one_path_equally_well_are_reported_and_not_guessed() -> None:
    names = [f"{copy}/{path}" for path in LISTED for copy in ("a", "b")]
    assert set(found(LISTED, names).values()) == {None}
    (sentence,) = said(LISTED, names)
    assert "60 of 60 images are not looked at, for more than one would fit" in sentence
    assert f"{LISTED[0]} fits a/{LISTED[0]} and b/{LISTED[0]}" in sentence
    assert set(found(["x.Jpg"], ["x.jpg", "x.JPG"]).values()) == {None}


def test_two_paths_never_share_an_entry() -> None:
    assert set(found(["a/1.jpg", "b/1.jpg"], ["1.jpg"]).values()) == {None}
    assert "which another path fits as well" in said(["a/1.jpg", "b/1.jpg"], ["1.jpg"])[0]


def test_an_image_of_another_vehicle_does_not_stand_in_for_a_missing_one() -> None:
    listed = [f"city/{vehicle}/{photo}.jpg" for vehicle in range(20) for photo in range(3)]
    packed = [f"export/{path}" for path in listed if path != "city/7/2.jpg"]
    assert found(listed, [*packed, "export/city/99/2.jpg"])["city/7/2.jpg"] is None


def test_other_files_altogether_are_no_images() -> None:
    assert set(found(LISTED, ["net.pickle", "readme.txt"]).values()) == {None}
    assert said(LISTED, ["net.pickle", "readme.txt"]) == []


@given(
    st.lists(st.text("aAb/", min_size=1, max_size=6), unique=True, max_size=12),
    st.lists(st.text("aAb/", min_size=1, max_size=6), unique=True, max_size=12),
)
def test_no_entry_is_found_twice_and_exact_ones_always(paths: list[str], names: list[str]) -> None:
    entries = [entry for entry in found(paths, names).values() if entry is not None]
    assert len(set(entries)) == len(entries)
    assert set(entries) >= set(paths) & set(names)


@given(st.text(max_size=8))
def test_folding_twice_changes_nothing(path: str) -> None:
    assert fold(fold(path)) == fold(path)
