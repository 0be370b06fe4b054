from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.storage.columns import TEXT
from iv_pipeline.storage.hand_off import read_csv, write_csv

LOOK_LIKE_SOMETHING_ELSE = (
    "007",
    "1e5",
    "NA",
    "None",
    "nan",
    "",
    "2024-01-02",
    "True",
    "-0",
    "1_000",
    "inf",
    "#N/A",
)
# a lone carriage return ends a line for readers of CSVs, and no path that is read holds one
texts = st.sampled_from(LOOK_LIKE_SOMETHING_ELSE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")
)


@pytest.mark.parametrize("column", sorted(TEXT))
@given(values=st.lists(texts, min_size=1, max_size=6))
def test_text_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, column: str, values: list[str]
) -> None:
    path = UPath(tmp_path_factory.getbasetemp() / "text.csv")
    write_csv(pd.DataFrame({column: pd.Series(values, dtype="str"), "cluster": range(len(values))}), path)
    read = read_csv(path)
    assert read[column].tolist() == values
    assert read["cluster"].tolist() == list(range(len(values)))


def test_numbers_and_verdicts_come_back_as_such_and_missing_ones_as_nan(tmp_path: Path) -> None:
    path = UPath(tmp_path / "numbers.csv")
    frame = pd.DataFrame(
        {"name": ["NA", ""], "score": [0.5, None], "cluster": [-1, 3], "is_outlier": [True, False]}
    )
    write_csv(frame, path)
    read = read_csv(path)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)
    assert [read[c].dtype.kind for c in ("score", "cluster", "is_outlier")] == ["f", "i", "b"]


@pytest.mark.parametrize(
    "content", [b"", b"image_path,name\na,\xff\n", b"image_path,name\na,b,c,d\ne\nf,g,h,i,j\n"]
)
def test_a_table_that_another_program_damaged_is_named(tmp_path: Path, content: bytes) -> None:
    path = UPath(tmp_path / "final.csv")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"final\.csv: cannot be read .*; remove it"):
        read_csv(path)
