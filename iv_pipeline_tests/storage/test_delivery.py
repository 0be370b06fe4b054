import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from iv_pipeline.config import DeliveryConfig
from iv_pipeline.errors import ConfigError, DeliveryError
from iv_pipeline.storage.delivery import Delivery

PATHS = ["city\\1\\7\\a.jpg", "city\\1\\7\\b.jpg", "city\\1\\12\\a.jpg"]
NORMALIZED = ["city/1/7/a.jpg", "city/1/7/b.jpg", "city/1/12/a.jpg"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def make_delivery(folder: Path, csv: bytes | str | None = None, **config: Any) -> Delivery:
    folder = folder / "delivery"
    folder.mkdir(exist_ok=True)
    csv = "\n".join(["paths", *PATHS, ""]) if csv is None else csv
    (folder / "images_paths.csv").write_bytes(csv.encode() if isinstance(csv, str) else csv)
    return Delivery(UPath(folder), DeliveryConfig(**config), {"net": "descriptors/net.pickle"})


def put_descriptor(delivery: Delivery, content: Any) -> None:
    (delivery.folder / "descriptors").mkdir(exist_ok=True)
    (delivery.folder / "descriptors" / "net.pickle").write_bytes(pickle.dumps(content, 4))


def test_the_index_has_an_id_and_a_normalized_path_per_image(tmp_path: Path) -> None:
    index = make_delivery(tmp_path).image_index()
    assert list(index.columns) == ["image_id", "image_path"]
    assert index["image_id"].dtype == np.int64
    assert index["image_id"].tolist() == [0, 1, 2]
    assert index["image_path"].tolist() == NORMALIZED


def test_a_missing_csv_names_the_setting(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path, paths="list.csv")
    with pytest.raises(DeliveryError, match=r"no file .*list\.csv; .* set delivery\.paths"):
        delivery.image_index()


def test_a_missing_delivery_tells_how_to_get_one(tmp_path: Path) -> None:
    delivery = Delivery(UPath(tmp_path / "none"), DeliveryConfig(), {"net": "net.pickle"})
    sentence = r"no delivery at .*none; set IV_DELIVERY to its folder, or draw the demo with 'make demo'"
    for use in (delivery.image_index, lambda: delivery.matrix("net"), delivery.archive):
        with pytest.raises(DeliveryError, match=sentence):
            use()


def test_vehicle_ids_come_from_the_configured_part_of_the_path(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path, "paths\ncity\\1\\7\\a.jpg\nb.jpg\n", identity="([0-9]+)/[^/]+$")
    put_descriptor(delivery, VECTORS[:2])
    ids = delivery.image_index()["vehicle_id"]
    assert ids[0] == "7"
    assert pd.isna(ids[1])
    assert [str(n) for n in delivery.notices()] == ["1 of 2 paths have no vehicle identity"]


def test_labels_beside_the_delivery_are_joined_by_path(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    (tmp_path / "labels.csv").write_text(
        "path,label\ncity/1/12/a.jpg,bus\ncity\\1\\7\\a.jpg,car\nx.jpg,car\n"
    )
    labels = delivery.image_index()["label"]
    assert labels[0] == "car"
    assert pd.isna(labels[1])
    assert labels[2] == "bus"
    put_descriptor(delivery, VECTORS)
    (notice,) = delivery.notices()
    assert "labels.csv: labels 1 images that the delivery lacks, such as x.jpg" in str(notice)


@pytest.mark.parametrize(
    ("csv", "why"),
    [
        ("id,label\n1,cat\n2,dog\n", "there is no column paths"),
        ("path,label\nother/1.jpg,cat\n", "it has no image of the delivery"),
        ("", "is empty"),
        ("path,label\na.jpg\n", "has 1 columns"),
    ],
)
def test_labels_of_something_else_beside_the_delivery_are_passed_over_with_a_notice(
    tmp_path: Path, csv: str, why: str
) -> None:
    delivery = make_delivery(tmp_path)
    put_descriptor(delivery, VECTORS)
    (tmp_path / "labels.csv").write_text(csv)
    assert list(delivery.image_index().columns) == ["image_id", "image_path"]
    (notice,) = delivery.notices()
    assert str(tmp_path / "labels.csv") in str(notice)
    assert "lies beside the delivery and is not used" in str(notice)
    assert why in str(notice)


def test_labels_within_the_delivery_win_over_those_beside_it(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    (tmp_path / "labels.csv").write_text(f"paths,label\n{PATHS[0]},beside\n")
    (tmp_path / "delivery" / "labels.csv").write_text(f"paths,label\n{PATHS[0]},within\n")
    assert delivery.image_index()["label"][0] == "within"


def test_label_columns_cannot_replace_columns_of_the_index(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path, labels="truth.csv")
    (tmp_path / "delivery" / "truth.csv").write_text(f"paths,image_id,label_color,\n{PATHS[1]},9, ,x\n")
    index = delivery.image_index()
    assert list(index.columns) == ["image_id", "image_path", "label_image_id", "label_color"]
    assert index["image_id"].tolist() == [0, 1, 2]
    assert index["label_image_id"][1] == "9"
    assert index["label_color"].isna().all()


@pytest.mark.parametrize(
    ("csv", "sentence"),
    [
        ("paths\na.jpg\n", "has no labels beside its paths"),
        ("paths,label\na,1\na,2\n", "lines 2 and 3"),
        ("paths,kind,label_kind\na,1,2\n", "with and without 'label_'"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(tmp_path: Path, csv: str, sentence: str) -> None:
    delivery = make_delivery(tmp_path, labels="truth.csv")
    (tmp_path / "delivery" / "truth.csv").write_text(csv)
    with pytest.raises(DeliveryError, match=sentence):
        delivery.image_index()


def test_configured_labels_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"truth\.csv; copy it there, or set delivery\.labels"):
        make_delivery(tmp_path, labels="truth.csv").image_index()


def test_a_descriptor_is_mapped(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    put_descriptor(delivery, VECTORS)
    matrix = delivery.matrix("net")
    assert isinstance(matrix, np.memmap)
    np.testing.assert_array_equal(matrix, VECTORS)


def test_keyed_vectors_are_put_into_the_order_of_the_paths(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    put_descriptor(delivery, {NORMALIZED[i]: VECTORS[i] for i in (2, 0, 1)})
    np.testing.assert_array_equal(delivery.matrix("net"), VECTORS)


def test_a_keyed_matrix_in_order_stays_mapped(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    put_descriptor(delivery, pd.DataFrame(VECTORS, index=PATHS))
    matrix = delivery.matrix("net")
    assert isinstance(matrix, np.memmap)
    np.testing.assert_array_equal(matrix, VECTORS)


def test_keys_that_lack_an_image_are_refused_by_its_path(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    put_descriptor(delivery, dict(zip([*PATHS[:2], "x.jpg"], VECTORS, strict=True)))
    with pytest.raises(DeliveryError, match=r"net\.pickle: has no vector of city/1/12/a\.jpg \(1 such"):
        delivery.matrix("net")


def test_another_number_of_rows_names_both_counts(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    put_descriptor(delivery, VECTORS[:2])
    with pytest.raises(DeliveryError, match=r"net\.pickle: has 2 rows, but .*images_paths\.csv has 3 paths"):
        delivery.matrix("net")


def test_an_unknown_descriptor_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no descriptor 'nat'; name one of net"):
        make_delivery(tmp_path).matrix("nat")


def test_a_missing_descriptor_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"net\.pickle: there is no such file; .* set descriptors\.net"):
        make_delivery(tmp_path).matrix("net")


def test_a_descriptor_with_another_suffix_is_read_and_reported(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    (delivery.folder / "descriptors").mkdir()
    assert not delivery.has("net")
    np.save(tmp_path / "delivery" / "descriptors" / "Net.npy", VECTORS)
    assert delivery.has("net")
    np.testing.assert_array_equal(delivery.matrix("net"), VECTORS)
    (notice,) = delivery.notices()
    assert str(notice).endswith(
        "Net.npy: read in place of descriptors/net.pickle, which is not there; "
        "set descriptors.net in pipeline.yaml to descriptors/Net.npy"
    )
    np.save(tmp_path / "delivery" / "descriptors" / "net.npy", VECTORS)
    with pytest.raises(
        DeliveryError,
        match=r"no such file, but descriptors/Net\.npy, descriptors/net\.npy; set descriptors\.net",
    ):
        delivery.matrix("net")


def test_a_missing_descriptor_lists_what_is_there(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    (delivery.folder / "descriptors").mkdir()
    (delivery.folder / "descriptors" / "mdc_type.pickle").write_bytes(b"")
    with pytest.raises(DeliveryError, match=r"no such file; the folder has mdc_type\.pickle; copy it there"):
        delivery.notices()


def test_notices_of_a_descriptor_are_those_of_the_delivery(tmp_path: Path) -> None:
    paths = [f"{i}.jpg" for i in range(20)]
    delivery = make_delivery(tmp_path, "\n".join(["paths", *paths]))
    frame = pd.DataFrame(np.random.default_rng(0).random((20, 3)), columns=list("abc"))
    put_descriptor(delivery, frame.assign(row=np.arange(20)))
    assert delivery.matrix("net").shape == (20, 3)
    (notice,) = delivery.notices()
    assert str(notice).endswith("net.pickle: column 'row' only counts the rows: it is not used as a feature")


def test_the_archive_is_found_and_matched_to_the_paths(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path, archive="images.zip")
    with zipfile.ZipFile(tmp_path / "delivery" / "images.zip", "w") as archive:
        archive.writestr("1/7/a.jpg", b"image")
    found = delivery.archive()
    assert found is not None
    assert found.read(PATHS[0]) == b"image"
    assert found.missing(delivery.paths) == NORMALIZED[1:]


@pytest.mark.parametrize("archive", [None, "none.zip"])
def test_a_delivery_may_have_no_archive(tmp_path: Path, archive: str | None) -> None:
    assert make_delivery(tmp_path, archive=archive).archive() is None


def test_a_delivery_may_lie_anywhere(tmp_path: Path) -> None:
    remote = UPath("memory://store/delivery")
    local = make_delivery(tmp_path)
    put_descriptor(local, VECTORS)
    for name in ("images_paths.csv", "descriptors/net.pickle"):
        (remote / name).parent.mkdir(parents=True, exist_ok=True)
        (remote / name).write_bytes((local.folder / name).read_bytes())
    delivery = Delivery(remote, DeliveryConfig(), local.files)
    assert delivery.image_index()["image_path"].tolist() == NORMALIZED
    np.testing.assert_array_equal(delivery.matrix("net"), VECTORS)


def test_the_index_of_a_hundred_thousand_images_takes_seconds_at_most(tmp_path: Path) -> None:
    paths = [f"city\\{i // 1000}\\{i // 10}\\{i}.jpg" for i in range(100_000)]
    delivery = make_delivery(tmp_path, "\n".join(["paths", *paths]), identity="([0-9]+)/[^/]+$")
    start = time.process_time()
    index = delivery.image_index()
    assert time.process_time() - start < 3  # 0.2 s on an idle machine
    assert index["vehicle_id"].iloc[-1] == "9999"


@pytest.mark.parametrize("root", ["/mnt/nas/photos/", "C:\\Users\\Анна\\photos\\", "../raw/", "photos/"])
def test_keys_with_other_folders_before_them_are_matched_by_their_ends_and_it_is_told(
    tmp_path: Path, root: str
) -> None:
    delivery = make_delivery(tmp_path)
    put_descriptor(delivery, {root + path: row for path, row in zip(PATHS[::-1], VECTORS[::-1], strict=True)})
    np.testing.assert_array_equal(delivery.matrix("net"), VECTORS)
    (notice,) = delivery.descriptor_notices("net")
    assert "net.pickle: 3 of 3 images are found under other names than their paths" in str(notice)


def test_keys_in_other_letter_case_are_matched(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    frame = pd.DataFrame(VECTORS[::-1], index=[path.upper() for path in PATHS[::-1]])
    put_descriptor(delivery, {path: frame.loc[path].to_numpy() for path in frame.index})
    np.testing.assert_array_equal(delivery.matrix("net"), VECTORS)


def test_a_key_that_fits_several_images_is_refused(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    keys = ["/x/7/a.jpg", "/y/7/a.jpg", "/z/12/a.jpg"]
    put_descriptor(delivery, dict(zip(keys, VECTORS, strict=True)))
    with pytest.raises(
        DeliveryError, match=r"no vector of city/1/7/a\.jpg, for which /x/7/a\.jpg and /y/7/a\.jpg"
    ):
        delivery.matrix("net")


def test_vectors_of_other_images_are_left_out_and_counted(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    more = {"city\\2\\1\\z.jpg": VECTORS[0], **dict(zip(PATHS, VECTORS, strict=True))}
    put_descriptor(delivery, more)
    np.testing.assert_array_equal(delivery.matrix("net"), VECTORS)
    (notice,) = delivery.descriptor_notices("net")
    assert "1 vectors are of images that the delivery lacks" in str(notice)


def test_two_vectors_of_one_image_are_refused_by_their_rows(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    keys = [PATHS[0], PATHS[1], PATHS[0].replace("\\", "/"), PATHS[2]]
    put_descriptor(delivery, list(zip(keys, np.arange(16.0).reshape(4, 4), strict=True)))
    with pytest.raises(
        DeliveryError, match=r"two vectors of city/1/7/a\.jpg, in rows 0 and 2 \(counted from 0\)"
    ):
        delivery.matrix("net")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (VECTORS.T, r"has 4 rows, but .* has 3 paths: it looks transposed; save it .*array\.T"),
        (np.ones((4, 5)), "has 4 rows, but .* has 3 paths: one row may be of the header line"),
        (np.ones((7, 5)), "has 7 rows, but .* has 3 paths; deliver the two"),
    ],
)
def test_another_number_of_rows_is_explained(tmp_path: Path, content: Any, sentence: str) -> None:
    delivery = make_delivery(tmp_path)
    put_descriptor(delivery, content)
    with pytest.raises(DeliveryError, match=sentence):
        delivery.matrix("net")


@pytest.mark.parametrize("change", [lambda p: f"/mnt/nas/{p}", str.upper, lambda p: p.partition("/")[2]])
def test_labels_with_other_spellings_of_the_paths_are_matched_and_it_is_told(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    delivery = make_delivery(tmp_path)
    rows = [f"{change(path)},{i}" for i, path in enumerate(NORMALIZED)]
    (delivery.folder / "labels.csv").write_text("\n".join(["paths,label", *rows, "other/x.jpg,9"]))
    assert delivery.image_index()["label"].to_list() == ["0", "1", "2"]
    found, strange = (str(notice) for notice in delivery.notices([]))
    assert "3 of 3 images are found under other names" in found
    assert "labels 1 images that the delivery lacks, such as other/x.jpg" in strange


@pytest.mark.parametrize("place", ["net.pickle", "Descriptors/net.npy", "from/network/NET.pkl"])
def test_a_descriptor_elsewhere_in_the_delivery_is_read_and_reported(tmp_path: Path, place: str) -> None:
    delivery = make_delivery(tmp_path)
    (delivery.folder / place).parent.mkdir(parents=True, exist_ok=True)
    (delivery.folder / place).write_bytes(pickle.dumps(VECTORS))
    np.testing.assert_array_equal(delivery.matrix("net"), VECTORS)
    (notice,) = delivery.descriptor_notices("net")
    assert f"which is not there; set descriptors.net in pipeline.yaml to {place}" in str(notice)


def test_a_path_list_in_other_letter_case_is_read_and_another_name_is_listed(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path)
    (delivery.folder / "images_paths.csv").rename(delivery.folder / "Images_Paths.CSV")
    assert delivery.paths == NORMALIZED
    (delivery.folder / "Images_Paths.CSV").rename(delivery.folder / "list.csv")
    again = Delivery(delivery.folder, delivery.config, delivery.files)
    with pytest.raises(
        DeliveryError, match=r"there is no file .*images_paths\.csv; the folder has list\.csv; copy"
    ):
        _ = again.paths
