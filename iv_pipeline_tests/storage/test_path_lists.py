from pathlib import Path

import pytest
from upath import UPath

from iv_pipeline.errors import DeliveryError
from iv_pipeline.storage.path_lists import PathList, read_path_list


def read(folder: Path, csv: bytes, archive: str | None = "raw_data/veriwild.zip") -> PathList:
    file = UPath(folder / "images_paths.csv")
    file.write_bytes(csv)
    return read_path_list(file, "delivery.paths", archive)


@pytest.mark.parametrize(
    "csv",
    [
        b"\xef\xbb\xbfpaths\r\n./a,1.jpg\r\nb.jpg\r\n\r\n",
        b'"path"\n"a,1.jpg"\n"b.jpg"',
        b'image_path;size\n"a,1.jpg";1\nb.jpg;2\n',
        b',paths\n0,"a,1.jpg"\n1,.\\b.jpg\n',
        b"PATHS_IGNORED\tpaths\nx\ta,1.jpg\ny\tb.jpg\n",
        b"Paths\ra,1.jpg\rb.jpg\r",
        b"sep=;\r\nid;paths\r\n0;a,1.jpg\r\n1;b.jpg\r\n",
        b"Unnamed: 0,paths\n0,./a,1.jpg\n".replace(b"./a,1.jpg", b'"a,1.jpg"') + b"1,b.jpg\n,\n,\n",
        "paths\tlabel\r\na,1.jpg\tcar\r\nb.jpg\tcar\r\n".encode("utf-16"),
        b"a, b;paths\n1;a,1.jpg\n2;b.jpg;\n",
        b"\n \npaths\na,1.jpg\nb.jpg\n",
        b"paths\na,1.jpg,\nb.jpg,\n",
        b"id|paths\n0|a,1.jpg\n1|b.jpg\n",
        "id;paths\n0;a,1.jpg\n1;b.jpg\n".encode("utf-16-le"),
        "id;paths\n0;a,1.jpg\n1;b.jpg\n".encode("utf-16-be"),
    ],
)
def test_spellings_of_the_csv_mean_the_same(tmp_path: Path, csv: bytes) -> None:
    found = read(tmp_path, csv)
    assert found.paths == ["a,1.jpg", "b.jpg"]
    assert found.notices == ()


@pytest.mark.parametrize("name", ["image", "filename", "0", "имя файла"])
def test_the_only_column_that_looks_like_paths_is_taken_for_them_and_it_is_told(
    tmp_path: Path, name: str
) -> None:
    found = read(tmp_path, f"id,{name},kind\n1,a\\1.jpg,car\n2,b.png,bus\n".encode())
    assert found.paths == ["a/1.jpg", "b.png"]
    assert list(found.others) == ["id", "kind"]
    (notice,) = found.notices
    assert f"images_paths.csv: the column {name!r} is taken for the paths; name it 'paths'" in str(notice)


@pytest.mark.parametrize("page", ["cp1251", "cp866"])
def test_a_cyrillic_code_page_is_read_and_told(tmp_path: Path, page: str) -> None:
    found = read(tmp_path, "№;paths\r\n1;камеры\\Ёж.jpg\r\n2;b.jpg\r\n".encode(page))
    assert found.paths == ["камеры/Ёж.jpg", "b.jpg"]
    (notice,) = found.notices
    assert f"images_paths.csv: is not in UTF-8 and was read as {page}" in str(notice)


@pytest.mark.parametrize(
    ("before", "separator"),
    [("/kaggle/input/intellivision-case/", "/"), ("C:\\data\\", "\\"), ("\\\\server\\share\\", "\\")],
)
def test_absolute_paths_are_read_from_the_folder_that_is_named_as_the_archive(
    tmp_path: Path, before: str, separator: str
) -> None:
    names = [["veriwild", "1", "a.jpg"], ["veriwild", "2", "a.jpg"]]
    csv = "\n".join(["paths", *(before + separator.join(name) for name in names)])
    found = read(tmp_path, csv.encode())
    assert found.paths == ["veriwild/1/a.jpg", "veriwild/2/a.jpg"]
    (notice,) = found.notices
    assert "its 2 paths are absolute, and are read without" in str(notice)


@pytest.mark.parametrize(
    ("csv", "sentence"),
    [
        (b"", ": is empty; copy it again"),
        (b"\n\n", ": is empty; copy it again"),
        (b"paths\n", ": has a header and no rows"),
        (b"file\na\n", ", line 1: there is no column paths, path or image_path, only 'file'"),
        (b"a\\b.jpg\nc.jpg\n", r", line 1: holds a path, a\b.jpg, and not the name of a column; put a line"),
        (b"0,b.jpg\n1,c.jpg\n", ", line 1: holds a path, b.jpg, and not"),
        (b"paths\na.jpg\n\nb.jpg\n", ", line 3: the path is blank"),
        (b"paths,x\na.jpg,1\n ,2\n", ", line 3: the path is blank"),
        (b"sep=,\npaths,x\na.jpg,1\n ,2\n", ", line 4: the path is blank"),
        (b"paths\na/b.jpg\nc.jpg\n.\\a\\b.jpg\n", ": lines 2 and 4 have the same path, a/b.jpg"),
        (b"paths\na.jpg\n/etc/passwd\n", ", line 3: the path /etc/passwd leads out"),
        (b"paths\nC:\\a.jpg\n", r", line 2: the path C:\a.jpg leads out"),
        (b"paths\ns3://bucket/a.jpg\n", ", line 2: the path s3://bucket/a.jpg leads out"),
        (b"paths\n/x/y/1/a.jpg\n/x/y/2/a.jpg\n", "cut off /x/y/, or the part of it that stands before"),
        (b"paths\n\\\\server\\a.jpg\n", r", line 2: the path \\server\a.jpg leads out"),
        (b"paths\na\\..\\..\\b.jpg\n", r", line 2: the path a\..\..\b.jpg leads out"),
        (b'paths\n"a\nb.jpg"\n', ", line 2: the path has a line break"),
        (b"paths\na.jpg\n\x81\xb0.jpg\n", ": line 3 is no text in UTF-8, UTF-16 or a Cyrillic code page"),
        (b"paths\na\0.jpg\n", ": line 2 holds a zero byte"),
        (b"paths,x\na.jpg,1\nb.jpg\n", ", line 3: has 1 columns, and the line with the names has 2"),
        (b"paths,paths\na,b\n", ", line 1: has two columns 'paths'"),
        (b"paths\na.jpg\npaths\nb.jpg\n", ", line 3: the header is repeated"),
        ("paths\ncaméra/a.jpg\n".encode("latin-1"), ": line 2 is no text in UTF-8, UTF-16 or a Cyrillic"),
        (b"one,two\na.jpg,b.jpg\n", ", line 1: there is no column paths, path or image_path"),
        (b"PK\x03\x04rest", ": is an Excel workbook or a zip archive, no CSV"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused_by_line(tmp_path: Path, csv: bytes, sentence: str) -> None:
    with pytest.raises(DeliveryError) as refused:
        read(tmp_path, csv)
    assert f"images_paths.csv{sentence}" in str(refused.value) or sentence.startswith("cut off")
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_dots_within_a_name_are_no_way_out(tmp_path: Path) -> None:
    assert read(tmp_path, b"paths\na..b/c..jpg\n").paths == ["a..b/c..jpg"]


@pytest.mark.parametrize("text", ["007", "1e5", "NA", "None", "nan", "2024-01-02", "True", "1_000", "-0"])
def test_other_columns_are_the_text_that_was_written(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"paths,label\n{text},{text}\n".encode()) == PathList(
        UPath(tmp_path / "images_paths.csv"), [text], {"label": [text]}
    )
