import re
from pathlib import Path

import pytest
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.storage.answers import (
    ClusterAnswers,
    ImageAnswers,
    given_names,
    read_answers,
    read_image_answers,
)


def write(root: Path, content: bytes) -> UPath:
    (root / "Names").mkdir()
    (root / "Names" / "net.csv").write_bytes(content)
    return UPath(root)


@pytest.mark.parametrize(
    "content",
    [
        "cluster,name\n0,белые седаны\n3,007\n".encode(),
        "cluster;name\r\n0;белые седаны\r\n3;007\r\n\r\n;\r\n".encode("utf-8-sig"),
        "Cluster\tName\tnote\r\n\r\n0\tбелые седаны\t\r\n3\t007\t\r\n".encode("utf-16"),
        "name,cluster\r\n белые седаны ,0.0\r007,3\r,5\r".encode(),
    ],
)
def test_names_are_read_as_table_programs_save_them(tmp_path: Path, content: bytes) -> None:
    assert read_answers(write(tmp_path, content), "net") == ClusterAnswers({0: "белые седаны", 3: "007"})


def test_names_in_a_code_page_are_read_and_told(tmp_path: Path) -> None:
    found = read_answers(write(tmp_path, "cluster;name\r\n1;белые седаны\r\n".encode("cp1251")), "net")
    assert found.names == {1: "белые седаны"}
    assert "net.csv: is not in UTF-8 and was read as cp1251" in str(found.notices[0])


@pytest.mark.parametrize("name", ["NA", "None", "1e5", "2024-01-02", "nan", "0.10"])
def test_a_name_is_the_text_that_was_written(tmp_path: Path, name: str) -> None:
    assert given_names(write(tmp_path, f"cluster,name\n2,{name}\n".encode()), "net") == {2: name}


def test_without_a_file_there_are_no_names(tmp_path: Path) -> None:
    assert read_answers(UPath(tmp_path), "net") == ClusterAnswers()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "net.csv: is empty"),
        (
            b"number,name\n1,a\n",
            "net.csv, line 1: there are no columns 'cluster' and 'name', only 'number', 'name'",
        ),
        (b"cluster,name\n\nx,a\n", "net.csv, line 3: 'x' is no cluster number"),
        (b"cluster,name\n,a\n", "net.csv, line 2: '' is no cluster number"),
        (b"cluster,name\n1.5,a\n", "net.csv, line 2: '1.5' is no cluster number"),
        (b"cluster,name\n1,a\n1,b\n", "net.csv, line 3: cluster 1 is named both 'a' and 'b'"),
        (b"cluster,name\n1,a, b\n", "net.csv, line 2: has 3 columns"),
        (b"cluster,name\n1,\x81\xb0\n", "net.csv: line 2 is no text"),
    ],
)
def test_names_that_cannot_be_read_are_refused_by_line(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        read_answers(write(tmp_path, content), "net")
    assert sentence in str(refused.value)


ATTRIBUTES = {"type": None, "color": ("red", "Blue")}


def test_answers_about_clusters_are_values_by_attribute(tmp_path: Path) -> None:
    content = b"cluster,name,type,color\n0,white vans,van,\n3,,007,BLUE\n5,,,\n"
    found = read_answers(write(tmp_path, content), "net", ATTRIBUTES)
    assert found.names == {0: "white vans"}
    assert found.said == {"type": {0: "van", 3: "007"}, "color": {3: "Blue"}}
    assert found.asked == {0, 3, 5}


def test_a_file_of_names_alone_answers_nothing(tmp_path: Path) -> None:
    found = read_answers(write(tmp_path, b"cluster,name\n0,white vans\n"), "net", ATTRIBUTES)
    assert (found.said, found.asked) == ({}, frozenset())


def test_a_value_that_an_attribute_cannot_have_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"net.csv, line 3: 'green' is no value of 'color'; choose one of red, Blue"
    ):
        read_answers(write(tmp_path, b"cluster,color\n1,red\n2,green\n"), "net", ATTRIBUTES)


def test_two_values_of_one_cluster_are_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"net.csv, line 3: cluster 1 has as type both 'van' and 'bus'"):
        read_answers(write(tmp_path, b"cluster,type\n1,van\n1,bus\n"), "net", ATTRIBUTES)


def write_images(root: Path, content: bytes) -> UPath:
    (root / "Names").mkdir()
    (root / "Names" / "images.csv").write_bytes(content)
    return UPath(root)


def test_answers_about_images_are_facts_by_path(tmp_path: Path) -> None:
    content = "image_path;type;is_outlier\r\na\\1.jpg;van;\r\nb/2.jpg;;ИСТИНА\r\nc.jpg;1e5;no\r\n".encode(
        "utf-8-sig"
    )
    found = read_image_answers(write_images(tmp_path, content), ATTRIBUTES)
    assert found.said == {"type": {"a/1.jpg": "van", "c.jpg": "1e5"}}
    assert found.outliers == {"b/2.jpg": True, "c.jpg": False}
    assert found.asked == {"a/1.jpg", "b/2.jpg", "c.jpg"}


def test_without_a_file_there_are_no_answers_about_images(tmp_path: Path) -> None:
    assert read_image_answers(UPath(tmp_path), ATTRIBUTES) == ImageAnswers()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"path,type\na,van\n", "images.csv, line 1: there are no columns 'image_path' and"),
        (b"image_path\na\n", "images.csv, line 1: there are no columns 'image_path' and"),
        (
            b"image_path,is_outlier\na,maybe\n",
            "images.csv, line 2: 'maybe' in 'is_outlier' is neither true nor false",
        ),
        (b"image_path,type\na,van\na,bus\n", "images.csv, line 3: image a has as type both 'van' and 'bus'"),
    ],
)
def test_answers_about_images_that_cannot_be_read_are_refused_by_line(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        read_image_answers(write_images(tmp_path, content), ATTRIBUTES)


def test_a_workbook_of_answers_is_not_passed_over_silently(tmp_path: Path) -> None:
    (tmp_path / "Names").mkdir()
    for name in ("net.xlsx", "~$net.xlsx", "net2.csv"):
        (tmp_path / "Names" / name).write_bytes(b"x")
    found = read_answers(UPath(tmp_path), "net")
    assert found.names == {}
    (notice,) = found.notices
    assert str(notice).endswith("net.xlsx: is not read; save it as CSV, as net.csv")


def test_answers_are_found_in_other_letter_case(tmp_path: Path) -> None:
    (tmp_path / "Names").mkdir()
    (tmp_path / "Names" / "Net.CSV").write_text("cluster,name\n0,sedans\n")
    assert read_answers(UPath(tmp_path), "net").names == {0: "sedans"}
