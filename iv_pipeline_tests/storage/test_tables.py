import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from iv_pipeline.storage.tables import (
    VectorTable,
    as_matrix,
    as_strings,
    read_table,
    replacing,
    table_from_arrays,
    write_table,
)


def small_table(n_rows: int = 25, batch_rows: int = 8) -> tuple[VectorTable, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(n_rows, 3)).astype(np.float32)
    paths = [f"batch/1/{i:06}.jpg" for i in range(n_rows)]
    return table_from_arrays({"image_path": pa.array(paths), "v": X}, batch_rows), X


@given(n_rows=st.integers(1, 60), batch_rows=st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, n_rows: int, batch_rows: int
) -> None:
    path = UPath(tmp_path_factory.mktemp("t") / "t.arrow")
    table, X = small_table(n_rows, batch_rows)
    write_table(table, path)
    found = read_table(path)
    assert found.n_rows == n_rows
    np.testing.assert_array_equal(found.vectors("v").to_array(), X)
    assert found.column("image_path").to_pylist() == table.column("image_path").to_pylist()


def test_a_local_table_is_mapped_not_copied(tmp_path: Path) -> None:
    table, _ = small_table()
    write_table(table, UPath(tmp_path / "t.arrow"))
    before = pa.total_allocated_bytes()
    view = read_table(UPath(tmp_path / "t.arrow")).vectors("v").batch(0)
    assert pa.total_allocated_bytes() == before
    assert not view.flags.owndata
    assert not view.flags.writeable


def test_pandas_reads_the_files_as_they_are(tmp_path: Path) -> None:
    table, X = small_table()
    write_table(table, UPath(tmp_path / "t.arrow"))
    frame = pd.read_feather(tmp_path / "t.arrow")
    np.testing.assert_array_equal(np.vstack(frame["v"].to_list()), X)


def test_a_table_in_an_object_store_reads_the_same() -> None:
    table, X = small_table()
    path = UPath("memory://bucket/t.arrow")
    write_table(table, path)
    np.testing.assert_array_equal(read_table(path).vectors("v").to_array(), X)
    assert [p.name for p in path.parent.iterdir()] == ["t.arrow"]


def test_rows_are_taken_across_batches() -> None:
    table, X = small_table()
    rows = np.array([0, 7, 8, 15, 24])
    np.testing.assert_array_equal(table.vectors("v").take(rows), X[rows])
    assert table.vectors("v").take(np.array([], np.int64)).shape == (0, 3)


def test_derived_vectors_are_computed_from_batches_on_demand() -> None:
    table, X = small_table()
    calls = []

    def double(batch: pa.RecordBatch) -> list[np.ndarray]:
        calls.append(batch.num_rows)
        return [2 * as_matrix(batch.column("v"))]

    derived = table.derive({"twice": 3}, double)
    assert calls == []
    np.testing.assert_array_equal(derived.vectors("twice").to_array(), 2 * X)
    assert calls == [8, 8, 8, 1]


def test_strings_that_pandas_holds_in_chunks_become_one_array() -> None:
    chunked = pa.chunked_array([["a", "b"], ["c"]])
    series = pd.Series(chunked, dtype=pd.ArrowDtype(pa.string()))
    for values in (series, pd.concat([pd.Series(["a", "b"]), pd.Series(["c"])]), ["a", "b", "c"]):
        strings = as_strings(values)
        assert isinstance(strings, pa.StringArray)
        assert strings.to_pylist() == ["a", "b", "c"]


def test_a_missing_column_is_told_which_there_are() -> None:
    with pytest.raises(KeyError, match="no vectors 'w' in this table, only v"):
        small_table()[0].vectors("w")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = UPath(tmp_path / "t.arrow")
    table, X = small_table()
    write_table(table, path)

    def fail(index: int) -> pa.RecordBatch:
        if index == 2:
            raise OSError("disk full")
        return table.read(index)

    with pytest.raises(OSError, match="disk full"):
        write_table(VectorTable(table.schema, table.n_rows, fail, table.batch_rows), path)
    np.testing.assert_array_equal(read_table(path).vectors("v").to_array(), X)
    assert [p.name for p in tmp_path.iterdir()] == ["t.arrow"]


KILLED = """
import sys, time
from upath import UPath
from iv_pipeline.storage.tables import replacing
with replacing(UPath(sys.argv[1])) as sink:
    sink.write(b"half")
    sink.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_write_leaves_what_was_there_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("whole")
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert path.read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(UPath(path)) as sink:
        sink.write(b"new")
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_another_writer_that_lives_keeps_its_temporary_file(tmp_path: Path) -> None:
    path = UPath(tmp_path / "t.csv")
    with replacing(path) as first:
        first.write(b"first")
        with replacing(path) as second:
            second.write(b"second")
    assert path.read_bytes() == b"first"
