"""Damaged files of all kinds, read as stages read them: usable, or refused in one sentence, and never changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from upath import UPath

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.config import Settings, load_config
from iv_pipeline.errors import InputError
from iv_pipeline.learn.image_quality import measure_images
from iv_pipeline.learn.pictures import picture_views
from iv_pipeline.report.contact_sheet import contact_sheet
from iv_pipeline.storage.answers import given_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
N = 10
N_FEATURES = 6
PATHS = [f"камера\\{i // 5}\\{i:03}.{('jpg', 'png', 'webp', 'bmp', 'gif')[i % 5]}" for i in range(N)]
NOT_IN_WORDS = re.compile(
    r"0x[0-9a-f]{6,}|\b[A-Z]\w+(Error|Exception|Warning)\b|Traceback|\[Errno|<[\w.]+ (object|at) "
)
"""What exceptions and objects look like when they are printed."""
QUIET = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def as_bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


X = np.random.default_rng(0).normal(size=(N, N_FEATURES)).astype(np.float32)
FRAME = pd.DataFrame(X, columns=[f"f{i}" for i in range(N_FEATURES)])
ARRAYS = {
    "array.pickle": pickle.dumps(X, protocol=4),
    "old.pickle": pickle.dumps(X.astype(np.float64), protocol=2),
    "dictionary.pickle": pickle.dumps(dict(zip(PATHS, X, strict=True)), protocol=5),
    "pairs.pickle": pickle.dumps([(p, row.tolist()) for p, row in zip(PATHS, X, strict=True)], protocol=3),
    "frame.pickle": pickle.dumps(FRAME.assign(paths=PATHS), protocol=5),
    "compressed.pickle": gzip.compress(pickle.dumps(X, protocol=4), mtime=0),
    "array.npy": as_bytes(lambda sink: np.save(sink, X)),
    "array.npz": as_bytes(lambda sink: np.savez_compressed(sink, X)),
    "frame.parquet": as_bytes(lambda sink: FRAME.assign(paths=PATHS).to_parquet(sink)),
    "frame.feather": as_bytes(FRAME.assign(paths=PATHS).to_feather),
}
"""One matrix in every way that a descriptor may be stored."""
ROWS = "\r\n".join(["id;paths;batch", *(f"{i};{path};1" for i, path in enumerate(PATHS)), ""])
CSVS = {
    "UTF-8": "\n".join(["paths", *PATHS, ""]).encode(),
    "BOM": ROWS.encode("utf-8-sig"),
    "Windows": ROWS.encode("cp1251"),
    "UTF-16": ROWS.replace(";", "\t").encode("utf-16"),
}
NAMES = {
    "UTF-8": "cluster,name\n0,белые седаны\n1,007\n".encode(),
    "Excel": "cluster;name\r\n0;белые седаны\r\n\r\n1;NA\r\n".encode("cp1251"),
}


def picture(i: int) -> bytes:
    """A picture of a format that is read."""
    pixels = np.random.default_rng(i).integers(0, 255, (24, 32, 3), np.uint8)
    return as_bytes(lambda sink: Image.fromarray(pixels).save(sink, FORMATS[i % len(FORMATS)]))


PICTURES = [picture(i) for i in range(N)]


def packed(method: int) -> bytes:
    def write(sink: io.BytesIO) -> None:
        with zipfile.ZipFile(sink, "w", method) as archive:
            for path, content in zip(PATHS, PICTURES, strict=True):
                archive.writestr(zipfile.ZipInfo(path.replace("\\", "/")), content, method)

    return as_bytes(write)


ARCHIVES = {"stored": packed(zipfile.ZIP_STORED), "deflated": packed(zipfile.ZIP_DEFLATED)}
OTHER_KINDS = [b"", b"\x00" * 512, ARRAYS["array.pickle"], CSVS["UTF-8"], ARCHIVES["stored"], PICTURES[0]]


@st.composite
def damaged(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """One of some contents with flipped bits, or with bytes gone, put in or moved; or a file of another kind."""
    content = draw(st.sampled_from(contents))
    place = st.integers(0, len(content) - 1)
    begin, end = sorted((draw(place), draw(place)))
    moved = content[draw(place) :][:48]
    return draw(
        st.one_of(
            st.just(content[:begin]),
            st.lists(place, min_size=1, max_size=8).map(lambda places: flipped(content, places)),
            st.just(content[:begin] + content[end:]),
            st.just(content[:begin] + moved + content[begin + len(moved) :]),
            st.binary(min_size=1, max_size=32).map(lambda new: content[:begin] + new + content[begin:]),
            st.binary(min_size=1, max_size=32).map(
                lambda new: content[:begin] + new + content[begin + len(new) :]
            ),
            st.sampled_from(OTHER_KINDS),
        )
    )


def flipped(content: bytes, places: Sequence[int]) -> bytes:
    """The content with a bit flipped at each of some places."""
    changed = bytearray(content)
    for at in places:
        changed[at] ^= 1 << (at % 8)
    return bytes(changed)


@dataclass(frozen=True)
class Folder:
    """A delivery and a data root, whole but for what a test puts there."""

    path: Path

    def put(self, name: str, content: bytes) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    @property
    def settings(self) -> Settings:
        delivery = UPath(self.path / "Intellivision_case")
        config = load_config(self.path / "pipeline.yaml", delivery)
        return Settings(UPath(self.path / "root"), delivery, config)

    def fingerprints(self) -> dict[str, str]:
        files = (file for file in sorted(self.path.rglob("*")) if file.is_file())
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A whole delivery, and a data root with names."""
    whole = Folder(tmp_path)
    whole.put("pipeline.yaml", b"descriptors: {vdc: descriptors/array.pickle}\n")
    whole.put("Intellivision_case/images_paths.csv", CSVS["UTF-8"])
    whole.put("Intellivision_case/descriptors/array.pickle", ARRAYS["array.pickle"])
    whole.put("Intellivision_case/raw_data/veriwild.zip", ARCHIVES["stored"])
    whole.put("root/Names/vdc.csv", NAMES["UTF-8"])
    return whole


def read_tables(chosen: Settings) -> list[str]:
    """Paths, labels, vectors and names, as stages read them; the notices."""
    delivery = open_delivery(chosen)
    index, vectors = delivery.image_index(), delivery.vectors("vdc")
    assert vectors.batch(0).shape == vectors.shape
    assert vectors.shape[0] == len(index)
    assert all(name.strip() for name in given_names(chosen.data_root, "vdc").values())
    return list(map(str, delivery.notices()))


def read_pictures(chosen: Settings) -> list[str]:
    """Pictures, as stages read them; why some of them cannot be read."""
    delivery = open_delivery(chosen)
    archive, paths = delivery.archive(), delivery.paths
    assert archive is not None
    contact_sheet([(path, archive.glimpse(path)) for path in paths])
    there = sorted(set(paths) - set(archive.missing(paths)))
    reasons: list[str] = measure_images(there, archive.read)["error"].dropna().to_list()
    # they are handed on in tables that are the same wherever the delivery lies
    assert not [reason for reason in reasons if str(chosen.delivery) in reason]
    return reasons


def require_words(sentences: Iterable[str]) -> None:
    """What is told is for people, each on one line."""
    for sentence in sentences:
        assert sentence.strip()
        assert "\n" not in sentence
        assert not NOT_IN_WORDS.search(sentence), sentence


def usable_or_refused(folder: Folder, read: Callable[[Settings], list[str]]) -> None:
    """Only the project's own errors come out, in one line that says where; no file appears or changes."""
    before = folder.fingerprints()
    refusals = []
    try:
        require_words(read(folder.settings))
    except InputError as error:
        refusals.append(str(error))
    assert all(str(folder.path) in refusal or "vdc" in refusal for refusal in refusals), refusals
    require_words(refusals)
    assert folder.fingerprints() == before


@pytest.mark.parametrize("method", sorted(ARCHIVES))
def test_what_is_whole_is_read(folder: Folder, method: str) -> None:
    folder.put("Intellivision_case/raw_data/veriwild.zip", ARCHIVES[method])
    assert read_tables(folder.settings) == []
    assert given_names(folder.settings.data_root, "vdc") == {0: "белые седаны", 1: "007"}
    assert read_pictures(folder.settings) == []


@pytest.mark.parametrize("file", sorted(ARRAYS))
@QUIET
@given(data=st.data())
def test_a_damaged_descriptor(folder: Folder, file: str, data: st.DataObject) -> None:
    folder.put(f"Intellivision_case/descriptors/{file}", data.draw(damaged([ARRAYS[file]])))
    folder.put("pipeline.yaml", f"descriptors: {{vdc: descriptors/{file}}}\n".encode())
    usable_or_refused(folder, read_tables)


@pytest.mark.parametrize("name", ["images_paths", "labels"])
@QUIET
@given(data=st.data())
def test_a_damaged_csv(folder: Folder, name: str, data: st.DataObject) -> None:
    folder.put(f"Intellivision_case/{name}.csv", data.draw(damaged(list(CSVS.values()))))
    usable_or_refused(folder, read_tables)


@QUIET
@given(data=st.data())
def test_a_damaged_file_of_names(folder: Folder, data: st.DataObject) -> None:
    folder.put("root/Names/vdc.csv", data.draw(damaged(list(NAMES.values()))))
    usable_or_refused(folder, read_tables)


@QUIET
@given(data=st.data())
def test_damaged_settings_of_a_delivery(folder: Folder, data: st.DataObject) -> None:
    own = b'paths: images_paths.csv\nidentity: "([^/]+)/[^/]+$"\nlabels: null\n'
    folder.put("Intellivision_case/delivery.yaml", data.draw(damaged([own])))
    usable_or_refused(folder, read_tables)


@pytest.mark.parametrize("method", sorted(ARCHIVES))
@QUIET
@given(data=st.data())
def test_a_damaged_archive(folder: Folder, method: str, data: st.DataObject) -> None:
    folder.put("Intellivision_case/raw_data/veriwild.zip", data.draw(damaged([ARCHIVES[method]])))
    usable_or_refused(folder, read_pictures)


@pytest.mark.parametrize("kind", range(len(FORMATS)), ids=FORMATS)
@QUIET
@given(data=st.data())
def test_a_damaged_picture_is_measured_or_has_a_reason_in_words(kind: int, data: st.DataObject) -> None:
    pictures = {"whole": PICTURES[kind], "damaged": data.draw(damaged([PICTURES[kind]]))}
    quality = measure_images(list(pictures), pictures.__getitem__)
    assert quality["error"].isna()[0]
    numbers = quality.select_dtypes("number").drop(columns=["phash", "width", "height"])
    assert (numbers.notna().all(axis=1) == quality["error"].isna()).all()
    require_words(quality["error"].dropna())
    views: dict[str, Any] = picture_views(list(pictures), pictures.__getitem__)
    assert all(np.isfinite(view[0]).all() for view in views.values())
    assert contact_sheet(list(pictures.items()))
