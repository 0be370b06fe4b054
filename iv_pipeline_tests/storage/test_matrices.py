import bz2
import gzip
import io
import lzma
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from iv_pipeline.errors import DeliveryError
from iv_pipeline.storage.matrices import open_matrix
from iv_pipeline.storage.matrix import ChunkedRows, Matrix

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
KEYS = ["b\\1.jpg", "a\\2.jpg", "ç/3.jpg"]
N = 3000
RANDOM = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> UPath:
    return UPath(tmp_path_factory.mktemp("matrices") / "net.pickle")


def opened(file: UPath, content: bytes) -> Matrix:
    file.unlink(missing_ok=True)  # a new file: tests before may still map the old one
    file.write_bytes(content)
    return open_matrix(file)


def npy(array: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, **options)
    return sink.getvalue()


def npz(save: Callable[..., None], **arrays: Any) -> bytes:
    sink = io.BytesIO()
    save(sink, **arrays)
    return sink.getvalue()


def parquet(frame: pd.DataFrame | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame)
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def arrow(frame: pd.DataFrame | pa.Table, compression: str | None = None, chunk: int = 700) -> bytes:
    sink = io.BytesIO()
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame)
    pyarrow.feather.write_feather(table, sink, compression=compression or "uncompressed", chunksize=chunk)
    return sink.getvalue()


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, 2)
    return sink.getvalue()


TABLES = {
    "parquet": parquet,
    "arrow": arrow,
    "lz4": lambda table: arrow(table, "lz4"),
    "zstd": lambda table: arrow(table, "zstd"),
}
TABLE = pytest.mark.parametrize("write", TABLES.values(), ids=TABLES.keys())


@pytest.mark.parametrize("array", [ROWS, np.asfortranarray(ROWS), ROWS.astype(">f8"), ROWS.astype(np.int16)])
def test_an_npy_file_is_mapped_whatever_its_suffix(file: UPath, array: np.ndarray) -> None:
    for content in (npy(array), npz(np.savez, net=array)):
        matrix = opened(file, content)
        np.testing.assert_array_equal(matrix.array, array, strict=True)
        assert isinstance(matrix.array, np.memmap)


def test_an_npz_file_with_one_matrix_is_read(file: UPath) -> None:
    np.testing.assert_array_equal(opened(file, npz(np.savez_compressed, net=ROWS)).array, ROWS)
    matrix = opened(file, npz(np.savez, net=ROWS, files=np.array(KEYS), labels=np.arange(3)))
    np.testing.assert_array_equal(matrix.array, ROWS)
    assert matrix.keys == KEYS
    assert "not read: 'labels'" in str(matrix.notices[0])


def test_an_npy_file_of_objects_is_read_without_running_it(file: UPath, tmp_path: Path) -> None:
    content = npy(np.array({"features": ROWS, "paths": KEYS}, object), allow_pickle=True)
    matrix = opened(file, content)
    np.testing.assert_array_equal(matrix.array, ROWS)
    assert matrix.keys == KEYS
    head = content[: content.index(b"\x80")]
    with pytest.raises(DeliveryError, match=r"wants to run os\.system"):
        opened(file, head + f"\x80\x02cos\nsystem\n(U\x01attR.{tmp_path}".encode("latin1"))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, pa.Codec("zstd").compress])
@pytest.mark.parametrize("content", [pickle.dumps(ROWS), npy(ROWS), pickle.dumps(ROWS.tolist(), 2)])
def test_a_compressed_file_is_read(file: UPath, pack: Any, content: bytes) -> None:
    np.testing.assert_array_equal(opened(file, bytes(pack(content))).array, ROWS)


def test_a_file_that_unpacks_to_absurdly_much_is_refused(file: UPath) -> None:
    bomb = gzip.compress(npy(np.zeros((1000, 20_000), np.float32)))
    with pytest.raises(DeliveryError, match="takes more than 100 times its size"):
        opened(file, bomb)
    with pytest.raises(DeliveryError, match="takes more than 100 times its size"):
        opened(file, npz(np.savez_compressed, net=np.zeros((1000, 20_000), np.float32)))


@TABLE
def test_columns_of_numbers_are_read_with_their_paths(file: UPath, write: Any) -> None:
    keys = [f"{i}.jpg" for i in range(N)]
    frame = pd.DataFrame(RANDOM, columns=list("abcde")).astype({"b": float})
    for table in (frame.assign(path=keys), frame.set_axis(keys), frame.assign(path=pd.Categorical(keys))):
        matrix = opened(file, write(table))
        np.testing.assert_array_equal(matrix.array[:], RANDOM)
        assert matrix.keys == keys
    np.testing.assert_array_equal(
        opened(file, write(frame[RANDOM[:, 0] > 0])).array[:], RANDOM[RANDOM[:, 0] > 0]
    )


@TABLE
@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 5), pa.large_list(pa.float64())]
)
def test_one_column_of_vectors_is_read(file: UPath, write: Any, kind: pa.DataType) -> None:
    vectors = RANDOM.tolist()
    vectors[1700] = None
    table = pa.table({"v": pa.array(vectors, kind), "label": np.arange(N) % 7})
    matrix = opened(file, write(table))
    expected = RANDOM.copy()
    expected[1700] = np.nan
    np.testing.assert_array_equal(matrix.array[:], expected)
    assert "not read: 'label', beside the vectors, 'v'" in str(matrix.notices[0])


def test_rows_of_an_uncompressed_arrow_file_stay_in_it(file: UPath) -> None:
    matrix = opened(file, arrow(pd.DataFrame(RANDOM, columns=list("abcde")).assign(index=np.arange(N))))
    assert isinstance(matrix.array, ChunkedRows)
    assert matrix.array.shape == RANDOM.shape
    for rows in (slice(0, 10), slice(690, 1500), slice(5, 5), slice(2900, None)):
        np.testing.assert_array_equal(matrix.array[rows], RANDOM[rows])
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_array_equal(matrix.array[order], RANDOM[order])
    assert len(matrix.notices) == 1


def test_a_stream_of_arrow_batches_is_read(file: UPath) -> None:
    np.testing.assert_array_equal(
        opened(file, stream(pa.table(list(ROWS.T), names=list("abcd")))).array[:], ROWS
    )


@TABLE
@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"a": [1.0], "flag": [True]}, "a column 'flag' that holds bool, not real numbers"),
        ({"a": ["x"], "b": ["y"], "c": [1.0]}, "several columns of text"),
        ({"a": ["x", None], "c": [1.0, 2.0]}, "lacks an entry in column 'a'"),
        ({"a": ["x"]}, "no columns of numbers"),
        ({"v": [[1.0], [1.0, 2.0]]}, "is ragged"),
        ({"v": [[1.0]], "w": [[1.0]]}, "several matrices: 'v' .*'w'"),
    ],
)
def test_a_table_that_is_no_matrix_is_refused_by_its_column(
    file: UPath, write: Any, columns: Any, sentence: str
) -> None:
    with pytest.raises(DeliveryError, match=sentence) as refused:
        opened(file, write(pa.table(columns)))
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)


def counted(name: str, values: Any) -> pd.DataFrame:
    frame = pd.DataFrame(RANDOM, columns=list("abcde"))
    frame.insert(1, name, values)
    return frame


SHUFFLED = np.random.default_rng(2).permutation(N)


@pytest.mark.parametrize("write", [*TABLES.values(), pickle.dumps], ids=[*TABLES, "pickle"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Unnamed: 0", np.arange(N)),
        ("Unnamed: 0", SHUFFLED),
        ("index", np.cumsum(1 + SHUFFLED % 3)),
        ("row", np.arange(1, N + 1)),
        ("row", np.arange(N, dtype=np.float64)),
    ],
)
def test_a_column_that_counts_rows_is_no_feature(file: UPath, write: Any, name: str, values: Any) -> None:
    matrix = opened(file, write(counted(name, values)))
    np.testing.assert_array_equal(matrix.array[:], RANDOM)
    (notice,) = matrix.notices
    assert str(notice) == f"{file}: column {name!r} only counts the rows: it is not used as a feature"


@pytest.mark.parametrize("write", [*TABLES.values(), pickle.dumps], ids=[*TABLES, "pickle"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Unnamed: 0", np.arange(N) % 100),
        ("index", np.linspace(0, 1, N)),
        ("growing", np.arange(N) * 2),
        ("growing", np.arange(N) + 0.5),
        ("growing", [*range(N - 1), 5]),
    ],
)
def test_a_feature_that_grows_is_kept(file: UPath, write: Any, name: str, values: Any) -> None:
    matrix = opened(file, write(counted(name, values)))
    np.testing.assert_array_equal(np.float32(matrix.array[:]), counted(name, values).to_numpy(np.float32))
    assert matrix.notices == ()


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_of_an_array_that_counts_rows_is_no_feature_and_the_rest_stays_mapped(
    file: UPath, first: int
) -> None:
    matrix = opened(file, npy(np.column_stack([np.arange(first, N + first), RANDOM]).astype(np.float32)))
    np.testing.assert_array_equal(matrix.array, RANDOM)
    assert isinstance(matrix.array, np.memmap)
    assert str(matrix.notices[0]) == f"{file}: column 0 only counts the rows: it is not used as a feature"


def test_few_rows_and_an_only_column_are_kept(file: UPath) -> None:
    for array in (np.arange(9.0)[:, None] * [1, 2], np.arange(100.0)[:, None]):
        assert opened(file, npy(array)).array.shape == array.shape


def zipped(**entries: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hell\0", "is no pickle, .npy, .npz, Parquet, Feather or Arrow file"),
        (b"path,x\na.jpg,1\n", "is a text, such as CSV or JSON, not an array; load it, and save"),
        (b"[[0.5, 1.5], [2, 3]]", "is a text"),
        (npy(ROWS.astype("U9")), "holds text"),
        (npz(np.savez, a=ROWS.astype("U9")), "holds text"),
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "pointer of Git LFS, not the file; get it: git lfs pull",
        ),
        (b"<!DOCTYPE html>", "is a page of HTML"),
        (zipped(net__data_DOT_pkl=b"", net__data__0=b""), "was written by torch.save; save an array instead"),
        (zipped(a_DOT_jpg=b""), "is a zip archive of a.jpg"),
        (npy(ROWS) + npy(ROWS), "goes on after its first array ends"),
        (npy(ROWS > 1), "holds booleans"),
        (npy(ROWS[0]), "holds an array of shape"),
        (npz(np.savez, a=ROWS, b=ROWS), "several matrices: 'a' .3 × 4., 'b'"),
        (npy(np.zeros(3, [("a", "f4"), ("b", "f4")])), "holds records"),
    ],
)
def test_what_holds_no_matrix_is_named_for_what_it_is(file: UPath, content: bytes, sentence: str) -> None:
    with pytest.raises(DeliveryError, match=sentence) as refused:
        opened(file, content)
    assert str(refused.value).startswith(f"{file}: ")


SMALL = pd.DataFrame(ROWS, columns=list("abcd")).assign(path=KEYS)
VECTORS = pa.table({"v": pa.array(ROWS.tolist(), pa.list_(pa.float32())), "path": KEYS})
CONTENTS = [
    npy(ROWS),
    npz(np.savez, net=ROWS, paths=np.array(KEYS)),
    npz(np.savez_compressed, net=ROWS),
    parquet(SMALL),
    parquet(VECTORS),
    arrow(SMALL),
    arrow(SMALL, "lz4"),
    arrow(VECTORS),
    stream(VECTORS),
    gzip.compress(pickle.dumps(ROWS)),
    bytes(pa.Codec("zstd").compress(pickle.dumps(ROWS))),
]


@pytest.mark.parametrize("which", range(len(CONTENTS)))
def test_every_truncation_is_refused(file: UPath, which: int) -> None:
    content = CONTENTS[which]
    for n in range(0, len(content), max(len(content) // 150, 1)):
        with pytest.raises(DeliveryError):
            opened(file, content[:n])


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(CONTENTS), st.data())
def test_a_flipped_byte_yields_a_matrix_or_a_delivery_error(
    file: UPath, content: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        matrix = opened(file, bytes(damaged))
    except DeliveryError as error:
        sentence = str(error)
        assert sentence.startswith(f"{file}: ")
        return
    assert matrix.array[:].ndim == 2
    assert matrix.array.shape[0] * matrix.array.shape[1] < 10_000
