import base64
import os
import pickle
import zlib
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from upath import UPath

from iv_pipeline.errors import DeliveryError
from iv_pipeline.storage.matrices import open_matrix
from iv_pipeline.storage.matrix import Matrix

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
KEYS = ["b\\1.jpg", "a\\2.jpg", "ç/3.jpg"]
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])

FROM_PANDAS_2 = """
c-oCq&2H2%5KgiQ<xi9f0YyRxaVnQoa6$rU5k&|Z5v1NY6w67xNvPvQwxf0tmEb^sB;Pu`7mvUr@CGn;cGWHPfTeiG$;^D;c)olI
zke8cZkd&iih`;*ZzYQ-k~R#?rI%FGSI$3yhhJeI)=Ws6Qi8d+7+wp_q@Y~I4HdLxQh~Ypg17n3+u@Aq=GH8O@H$hcDPWdKFS<J4
;f!Q9#|GaNebY^c>P^peO{Jt$tV$%yTcNb<b8Q177YJqvYrBvWNW5>b;b(9NTd<b+Nst5wP%WFN(9_O#VuHyNI6fM_kBt8e(lp)t
jmvF`ry)DuxIbLXukm2L=Y#n<JO3C1hM9|5Un4z%eME}axvh_wQ4-kl!(Lsfu2n0RR&`@e%6FtzO;9gTsqUUf<hnm&5X`Ivt{z}t
qs0GDly_$u{`^<NV~ewm!(F25kK&JAiT9bUKXx7)z&u;+6zmXe`07~^6l{;FIHL-sbD0RXOWxRbcq7$o6U}`mq5_2l|MCs-@YFH!
J23tpJ~&(dlVf2*VU?Kn2e#WybLTvCNkwVlx2#=&tlp<MAWfx4eV9<`w!>De!_e_vO=dR~ILZXIZz<0I1JW=}9p`PFGu0Xuz7OUC
nQ&S<_crCc-BqOMJ5&MHjBuJUl=qS9v-l4P<4Tt
"""
"""A DataFrame of pandas 2.2 and NumPy 1.26: text column p, and numbers x, y (int64) and z in two blocks."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> UPath:
    return UPath(tmp_path_factory.mktemp("pickles") / "net.pickle")


def opened(file: UPath, content: Any, protocol: int = 4) -> Matrix:
    return opened_bytes(file, pickle.dumps(content, protocol))


def opened_bytes(file: UPath, content: bytes) -> Matrix:
    file.unlink(missing_ok=True)  # a new file: tests before may still map the old one
    file.write_bytes(content)
    return open_matrix(file)


@settings(max_examples=200, deadline=None)
@given(
    array=npst.arrays(
        st.one_of(
            npst.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
            npst.integer_dtypes(endianness="?"),
            npst.unsigned_integer_dtypes(endianness="?"),
        ),
        npst.array_shapes(min_dims=2, max_dims=2, max_side=40),
    ),
    order=st.sampled_from("CF"),
    protocol=st.integers(2, 5),
)
def test_an_array_is_mapped_and_equal_to_what_was_pickled(
    file: UPath, array: np.ndarray, order: Any, protocol: int
) -> None:
    array = np.array(array, order=order)
    matrix = opened(file, array, protocol)
    np.testing.assert_array_equal(matrix.array, array, strict=True)
    assert matrix.keys is None
    assert isinstance(matrix.array, np.memmap) == (protocol > 2)
    assert not matrix.array.flags.writeable or protocol == 2


@PROTOCOLS
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_outside_the_frames_is_mapped(file: UPath, order: Any, protocol: int) -> None:
    array = np.asarray(np.random.default_rng(0).random((300, 200)), order=order)
    matrix = opened(file, array, protocol)
    np.testing.assert_array_equal(matrix.array, array)
    assert isinstance(matrix.array, np.memmap) == (protocol > 2)


def test_a_matrix_is_opened_without_reading_its_rows(file: UPath) -> None:
    n_rows, n_bytes = 2**18, 2**30
    content = pickle.dumps(np.zeros((1000, 1024), np.float32), 4)
    head, bytes_opcode, _ = content.partition(b"B" + (1000 * 4096).to_bytes(4, "little"))
    assert bytes_opcode
    head = head.replace(b"M\xe8\x03M\x00\x04", b"J" + n_rows.to_bytes(4, "little") + b"M\x00\x04")
    file.unlink(missing_ok=True)
    with file.open("wb") as sink:  # a gigabyte, all of it a hole in the file
        sink.write(head + b"B" + n_bytes.to_bytes(4, "little"))
        sink.seek(n_bytes, os.SEEK_CUR)
        sink.write(content[-5:])
    before = psutil.Process().memory_info().rss
    matrix = open_matrix(file)
    assert matrix.array.shape == (n_rows, 1024)
    assert matrix.array[-1, -1] == 0
    assert psutil.Process().memory_info().rss - before < 2**26
    file.unlink()


@pytest.mark.parametrize("old", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_either_spelling_of_numpys_modules_is_read(file: UPath, old: bytes) -> None:
    content = pickle.dumps(ROWS, 3).replace(b"numpy._core.multiarray", old)
    np.testing.assert_array_equal(opened_bytes(file, content).array, ROWS)


@PROTOCOLS
@pytest.mark.parametrize(
    "content",
    [
        ROWS.tolist(),
        list(ROWS),
        tuple(ROWS),
        [tuple(row) for row in ROWS.tolist()],
        ROWS.astype(int).tolist(),
        [[np.float32(x) for x in row] for row in ROWS],
        [[0, 1.0, 2.0, 3], [4.0, 5, 6, 7.0], [8.0, 9.0, 10.0, 11.0]],
        list(ROWS[:, None, :]),
        ROWS[:, None, :],
        ROWS[:, :, None, None],
    ],
)
def test_lists_of_vectors_and_needless_axes_are_read(file: UPath, content: Any, protocol: int) -> None:
    matrix = opened(file, content, protocol)
    np.testing.assert_array_equal(matrix.array, ROWS)
    assert matrix.keys is None


@given(
    rows=npst.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 5))),
    kind=st.sampled_from([list, tuple]),
    protocol=st.integers(2, 5),
)
@settings(deadline=None)
def test_lists_of_floats_are_read_to_the_bit(file: UPath, rows: np.ndarray, kind: Any, protocol: int) -> None:
    matrix = opened(file, kind(kind(row) for row in rows.tolist()), protocol)
    np.testing.assert_array_equal(matrix.array, rows, strict=True)


@PROTOCOLS
@pytest.mark.parametrize("n", [999, 1000, 1001, 2000, 2560, 20_000])
def test_lists_longer_than_a_batch_of_the_pickler_are_read(file: UPath, n: int, protocol: int) -> None:
    rows = np.random.default_rng(n).random((2, n))
    np.testing.assert_array_equal(opened(file, rows.tolist(), protocol).array, rows)
    np.testing.assert_array_equal(opened(file, tuple(map(tuple, rows.tolist())), protocol).array, rows)


@PROTOCOLS
@pytest.mark.parametrize(
    "content",
    [
        dict(zip(KEYS, ROWS, strict=True)),
        dict(zip(KEYS, ROWS.tolist(), strict=True)),
        OrderedDict(zip(KEYS, ROWS, strict=True)),
        list(zip(KEYS, ROWS, strict=True)),
        tuple(zip(KEYS, ROWS.tolist(), strict=True)),
        list(zip(ROWS, KEYS, strict=True)),
        (ROWS, KEYS),
        [KEYS, ROWS],
        (ROWS, np.array(KEYS)),
        pd.DataFrame(ROWS, index=KEYS),
        pd.DataFrame(ROWS).assign(path=KEYS),
        pd.DataFrame({"path": KEYS, **{str(i): ROWS[:, i] for i in range(4)}}),
        pd.DataFrame({"x": ROWS[:, 0], "path": KEYS, "y": [1, 5, 9], "z": ROWS[:, 2], "w": [3, 7, 11]}),
        pd.DataFrame({"path": KEYS}, dtype=object).join(pd.DataFrame(ROWS)),
    ],
)
def test_vectors_with_paths_are_read_with_their_keys(file: UPath, content: Any, protocol: int) -> None:
    matrix = opened(file, content, protocol)
    np.testing.assert_array_equal(matrix.array, ROWS)
    assert matrix.keys == KEYS


@PROTOCOLS
def test_a_frame_of_numbers_is_mapped_and_has_no_keys(file: UPath, protocol: int) -> None:
    matrix = opened(file, pd.DataFrame(ROWS), protocol)
    np.testing.assert_array_equal(matrix.array, ROWS)
    assert matrix.keys is None
    assert isinstance(matrix.array, np.memmap) == (protocol > 2)


@PROTOCOLS
def test_text_without_arrow_is_read(file: UPath, protocol: int) -> None:
    with pd.option_context("mode.string_storage", "python"):
        frame = pd.DataFrame({"path": KEYS}).join(pd.DataFrame(ROWS))
        assert opened(file, frame, protocol).keys == KEYS


def test_a_frame_of_an_older_pandas_is_read(file: UPath) -> None:
    content = zlib.decompress(base64.b85decode("".join(FROM_PANDAS_2.split())))
    matrix = opened_bytes(file, content)
    assert matrix.keys == ["a/1.jpg", "b/2.jpg"]
    np.testing.assert_array_equal(matrix.array, [[1, 1, 0.5], [2, 2, 0.25]])


def test_a_remote_pickle_is_read() -> None:
    remote = UPath("memory://pickles/net.pickle")
    remote.write_bytes(pickle.dumps(ROWS, 5))
    np.testing.assert_array_equal(open_matrix(remote).array, ROWS)


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: [ROWS[0], evil], lambda evil: {"a": evil}])
def test_a_pickle_that_wants_to_run_code_runs_none(
    file: UPath, tmp_path: Path, protocol: int, wrap: Any
) -> None:
    content = wrap(Evil(tmp_path / "trace"))
    with pytest.raises(DeliveryError) as refused:
        opened(file, content, protocol)
    assert not (tmp_path / "trace").exists()
    assert "net.pickle" in str(refused.value)
    assert f"wants to run {os.system.__module__}.system" in str(refused.value)


def test_a_pickle_written_by_hand_to_run_code_is_refused_by_name(file: UPath) -> None:
    with pytest.raises(DeliveryError, match=r"wants to run os\.system"):
        opened_bytes(file, b"cos\nsystem\n(S'false'\ntR.")


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "eval"), ("numpy.testing", "run"), ("pandas", "read_pickle"), ("numpy", "load")],
)
def test_only_constructors_are_admitted(file: UPath, module: str, name: str) -> None:
    with pytest.raises(DeliveryError, match=rf"wants to run {module}\.{name}"):
        opened_bytes(file, f"\x80\x02c{module}\n{name}\n".encode("latin1") + b")R.")


@PROTOCOLS
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([[1.0, 2.0], [3.0, 4.0], [5.0]], r"row 2 \(counted from 0\) has 1 numbers, the first has 2"),
        ({"a": ROWS[0], "b": ROWS[0, :2]}, "the vector of 'b' has 2 numbers"),
        (ROWS.astype(complex), "holds complex numbers"),
        (ROWS > 0, "holds booleans"),
        (ROWS.astype(str), "holds text"),
        (ROWS.astype("M8[s]"), "holds dates"),
        (np.ma.masked_array(ROWS, ROWS > 3), "holds a masked array"),
        (ROWS[0], r"holds an array of shape \(4,\)"),
        (ROWS.reshape(3, 2, 2), r"holds an array of shape \(3, 2, 2\)"),
        (ROWS.reshape(1, 3, 4), r"holds an array of shape \(1, 3, 4\)"),
        (ROWS[:0].tolist(), "holds no rows"),
        ([[], []], r"holds no numbers, but an array of shape \(2, 0\)"),
        ([1.0, 2.0], "row 0 .* is not a vector"),
        ([ROWS, ROWS[:, :2]], r"batch 1 .* has 2 features, the first has 4"),
        ({"a": ROWS, "b": ROWS}, r"several matrices: 'a' \(3 × 4\), 'b' \(3 × 4\)"),
        ([[1.0, "x"]], "something in row 0 .* no real number"),
        ([[1.0, None]], "something in row 0 .* no real number"),
        ([[1.0, 2**70]], "something in row 0 .* no real number"),
        ({1: ROWS[0]}, "keys are no text"),
        ({"a": ROWS[0], 1: ROWS[1]}, "keys are no text"),
        ("text", "holds no rows of numbers"),
        (None, "holds no rows of numbers"),
        (pd.Series(ROWS[0]), "holds a pandas Series, not an array; save its vectors"),
        (pd.DataFrame({"p": KEYS, "q": KEYS, "x": 1.0}), "several columns of text"),
        (pd.DataFrame({"p": [*KEYS[:2], None], "x": 1.0}), "lacks an entry"),
        (pd.DataFrame({"p": pd.Series(["a", 1], dtype=object), "x": 1.0}), "a column 'p' that holds Python"),
        (pd.DataFrame({"p": KEYS}), "without columns of numbers"),
        (pd.DataFrame({"x": pd.Categorical(KEYS)}), "a column 'x' that holds a pandas Categorical"),
    ],
)
def test_what_is_no_matrix_is_refused_in_one_sentence(
    file: UPath, content: Any, sentence: str, protocol: int
) -> None:
    with pytest.raises(DeliveryError, match=sentence) as refused:
        opened(file, content, protocol)
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_array_without_numbers_is_refused(file: UPath, shape: tuple[int, int], protocol: int) -> None:
    with pytest.raises(DeliveryError, match="holds no numbers"):
        opened(file, np.empty(shape), protocol)


@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("content", [ROWS, ROWS.tolist(), list(ROWS), dict(zip(KEYS, ROWS, strict=True))])
def test_the_oldest_protocols_are_read(file: UPath, content: Any, protocol: int) -> None:
    np.testing.assert_array_equal(opened(file, content, protocol).array, ROWS)


def test_an_empty_file_is_refused(file: UPath) -> None:
    with pytest.raises(DeliveryError, match="is empty"):
        opened_bytes(file, b"")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"none\.pickle: there is no such file"):
        open_matrix(UPath(tmp_path / "none.pickle"))


def test_several_pickles_in_one_file_are_not_read_in_part(file: UPath) -> None:
    with pytest.raises(DeliveryError, match="goes on after its first pickle"):
        opened_bytes(file, pickle.dumps(ROWS) + pickle.dumps(ROWS))


@PROTOCOLS
def test_every_truncation_is_refused(file: UPath, protocol: int) -> None:
    for content in (ROWS, ROWS.tolist(), dict(zip(KEYS, ROWS, strict=True))):
        whole = pickle.dumps(content, protocol)
        for n in range(2, len(whole)):
            with pytest.raises(DeliveryError, match="ends in the middle"):
                opened_bytes(file, whole[:n])


def of_python_2(array: np.ndarray) -> bytes:
    """What cPickle of Python 2 writes at protocol 2: text and bytes alike are byte strings."""
    raw, (n_rows, n_columns) = array.tobytes(), array.shape
    shape = b"K" + bytes([n_rows]) + b"K" + bytes([n_columns]) + b"\x86"
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + (
            shape
            + b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        )
        + (len(raw).to_bytes(4, "little") + raw + b"tb.")
    )


def test_an_array_of_python_2_is_read_and_mapped_if_it_is_long(file: UPath) -> None:
    short = opened_bytes(file, of_python_2(ROWS))
    np.testing.assert_array_equal(short.array, ROWS, strict=True)
    long = np.arange(200 * 100, dtype=np.float32).reshape(200, 100)[::-1]
    matrix = opened_bytes(file, of_python_2(long))
    np.testing.assert_array_equal(matrix.array, long)
    assert isinstance(matrix.array, np.memmap)


def test_a_frame_of_pandas_1_with_an_index_of_integers_is_read(file: UPath) -> None:
    content = pickle.dumps(pd.DataFrame(ROWS, index=[4, 7, 9], columns=list("abcd")), 2)
    old = content.replace(b"cpandas\nIndex\n", b"cpandas.core.indexes.numeric\nInt64Index\n")
    old = old.replace(b"cpandas.core.indexes.base\nIndex\n", b"cpandas.core.indexes.numeric\nInt64Index\n")
    assert b"Int64Index" in old
    np.testing.assert_array_equal(opened_bytes(file, old).array, ROWS)


@PROTOCOLS
@pytest.mark.parametrize(
    "content",
    [
        [ROWS[:2], ROWS[1:]],
        [ROWS[:2].tolist(), ROWS[1:].tolist()],
    ],
)
def test_batches_are_read_one_below_the_other(file: UPath, content: Any, protocol: int) -> None:
    np.testing.assert_array_equal(opened(file, content, protocol).array, np.vstack([ROWS[:2], ROWS[1:]]))


@PROTOCOLS
def test_a_matrix_is_read_with_the_file_names_beside_it(file: UPath, protocol: int) -> None:
    names = np.array([key + "\n" for key in KEYS])
    matrix = opened(file, {"features": ROWS, "files": names, "labels": np.arange(3)}, protocol)
    np.testing.assert_array_equal(matrix.array, ROWS)
    assert matrix.keys == KEYS
    assert [str(notice) for notice in matrix.notices] == [
        f"{file}: not read: 'labels', beside the matrix 'features'"
    ]


@PROTOCOLS
@pytest.mark.parametrize("storage", ["python", "pyarrow"])
def test_a_frame_with_a_column_of_vectors_is_read(file: UPath, protocol: int, storage: str) -> None:
    with pd.option_context("mode.string_storage", storage):
        frame = pd.DataFrame({"paths": KEYS, "embedding": list(ROWS), "label": [0, 1, 0]})
        matrix = opened(file, frame, protocol)
        mixed = opened(file, frame.astype({"paths": object}), protocol)
    for found in (matrix, mixed):
        np.testing.assert_array_equal(found.array, ROWS)
        assert found.keys == KEYS
        assert "not read: 'label', beside the vectors, 'embedding'" in str(found.notices[0])


@PROTOCOLS
def test_objects_that_are_numbers_are_read(file: UPath, protocol: int) -> None:
    of_rows = np.empty(3, object)
    of_rows[:] = list(ROWS)
    with_paths = np.column_stack([np.array(KEYS, object), ROWS.astype(object)])
    for content in (ROWS.astype(object), np.asfortranarray(ROWS.astype(object)), of_rows, with_paths):
        np.testing.assert_array_equal(opened(file, content, protocol).array, ROWS)
    assert opened(file, with_paths, protocol).keys == KEYS


@PROTOCOLS
def test_keys_may_be_paths_of_pathlib_or_text_of_numpy(file: UPath, protocol: int) -> None:
    keys = ["a/1.jpg", "b/2.jpg", "c/3.jpg"]
    for kind in (PurePosixPath, np.str_):
        matrix = opened(file, {kind(key): row for key, row in zip(keys, ROWS, strict=True)}, protocol)
        assert matrix.keys == keys


def test_an_array_of_joblib_is_mapped(file: UPath) -> None:
    joblib.dump(ROWS, str(file))
    matrix = open_matrix(file)
    np.testing.assert_array_equal(matrix.array, ROWS, strict=True)
    assert isinstance(matrix.array, np.memmap)
    joblib.dump({"features": ROWS, "paths": KEYS}, str(file), compress=3)
    assert open_matrix(file).keys == KEYS


@pytest.mark.parametrize(
    ("module", "name", "sentence"),
    [
        ("torch._utils", "_rebuild_tensor_v2", r"holds a PyTorch tensor.*tensor\.cpu\(\)\.numpy\(\)"),
        ("scipy.sparse._csr", "csr_matrix", r"holds a sparse matrix of SciPy.*toarray"),
        ("tensorflow.python.framework.ops", "convert_to_tensor", "holds a TensorFlow tensor"),
        ("sklearn.decomposition._pca", "PCA", "holds an object of scikit-learn"),
        ("PIL.Image", "Image", "holds an image of Pillow"),
        ("datetime", "datetime", "holds dates"),
    ],
)
def test_objects_of_other_libraries_are_named_without_alarm(
    file: UPath, module: str, name: str, sentence: str
) -> None:
    with pytest.raises(DeliveryError, match=sentence) as refused:
        opened_bytes(file, f"\x80\x02c{module}\n{name}\n)R}}U\x01aK\x01sb.".encode("latin1"))
    assert "run" not in str(refused.value)


def test_a_harmless_object_does_not_hide_a_dangerous_one(file: UPath) -> None:
    content = b"\x80\x02(ctorch._utils\n_rebuild_tensor_v2\n)Rcos\nsystem\nU\x04true\x85Rt."
    with pytest.raises(DeliveryError, match=r"wants to run os\.system"):
        opened_bytes(file, content)


CONTENTS = [
    ROWS,
    np.asfortranarray(ROWS.astype(">f8")),
    ROWS.tolist(),
    dict(zip(KEYS, ROWS, strict=True)),
    pd.DataFrame(ROWS, index=KEYS),
    pd.DataFrame({"path": KEYS, "x": ROWS[:, 0], "y": [1, 2, 3]}),
    pd.DataFrame({"path": KEYS, "x": list(ROWS)}),
    {"features": ROWS, "paths": np.array(KEYS)},
    [ROWS, ROWS.astype(object)],
]


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(range(len(CONTENTS))), st.integers(0, 5), st.data())
def test_a_flipped_byte_yields_a_matrix_or_a_delivery_error(
    file: UPath, which: int, protocol: int, data: st.DataObject
) -> None:
    content = bytearray(pickle.dumps(CONTENTS[which], protocol))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        matrix = opened_bytes(file, bytes(content))
    except DeliveryError as error:
        sentence = str(error)
        assert sentence.startswith(f"{file}: ")
        return
    assert matrix.array.ndim == 2
    assert matrix.array.dtype.kind in "fiu"
    if which < 2:
        assert matrix.array.shape == ROWS.shape


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"\x80\x05"]))
def test_any_bytes_yield_a_matrix_or_a_delivery_error(file: UPath, content: bytes, head: bytes) -> None:
    try:
        matrix = opened_bytes(file, head + content)
    except DeliveryError:
        return
    assert matrix.array.ndim == 2
