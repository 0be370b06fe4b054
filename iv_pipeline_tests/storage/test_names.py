from pathlib import Path

import pytest
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.storage.names import GivenNames, given_names, read_names


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
    assert read_names(write(tmp_path, content), "net") == GivenNames({0: "белые седаны", 3: "007"})


def test_names_in_a_code_page_are_read_and_told(tmp_path: Path) -> None:
    found = read_names(write(tmp_path, "cluster;name\r\n1;белые седаны\r\n".encode("cp1251")), "net")
    assert found.names == {1: "белые седаны"}
    assert "net.csv: is not in UTF-8 and was read as cp1251" in str(found.notices[0])


@pytest.mark.parametrize("name", ["NA", "None", "1e5", "2024-01-02", "nan", "0.10"])
def test_a_name_is_the_text_that_was_written(tmp_path: Path, name: str) -> None:
    assert given_names(write(tmp_path, f"cluster,name\n2,{name}\n".encode()), "net") == {2: name}


def test_without_a_file_there_are_no_names(tmp_path: Path) -> None:
    assert read_names(UPath(tmp_path), "net") == GivenNames()


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
        read_names(write(tmp_path, content), "net")
    assert sentence in str(refused.value)


def test_a_workbook_of_names_is_not_passed_over_silently(tmp_path: Path) -> None:
    (tmp_path / "Names").mkdir()
    for name in ("net.xlsx", "~$net.xlsx", "net2.csv"):
        (tmp_path / "Names" / name).write_bytes(b"x")
    found = read_names(UPath(tmp_path), "net")
    assert found.names == {}
    (notice,) = found.notices
    assert str(notice).endswith("net.xlsx: is not read; save it as CSV, as net.csv")


def test_names_are_found_in_other_letter_case(tmp_path: Path) -> None:
    (tmp_path / "Names").mkdir()
    (tmp_path / "Names" / "Net.CSV").write_text("cluster,name\n0,sedans\n")
    assert read_names(UPath(tmp_path), "net").names == {0: "sedans"}
