from __future__ import annotations

import io
import struct
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sklearn.metrics import average_precision_score
from upath import UPath

from iv_pipeline.errors import ENCRYPTED, PictureError
from iv_pipeline.learn import image_quality
from iv_pipeline.learn.decoding import decode
from iv_pipeline.learn.image_quality import (
    measure,
    measure_images,
    quality_outliers,
    read_enough,
)
from iv_pipeline.storage.archive import ImageArchive
from iv_pipeline_tests.conftest import TRAFFIC_CAMERA

if TYPE_CHECKING:
    from collections.abc import Callable

Pixels = NDArray[np.floating[Any]]


def encode(pixels: Pixels, image_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(buffer, image_format, **({"quality": 92} if image_format == "JPEG" else {}))
    return buffer.getvalue()


def scene(seed: int, paint: tuple[int, int, int] | None = None, vehicle: bool = True) -> Pixels:
    """A box with windows and wheels on a noisy road, 160 × 120 pixels."""
    rng = np.random.default_rng(seed)
    road = int(rng.integers(100, 140))
    image = Image.new("RGB", (160, 120), (road, road, road))
    if vehicle:
        draw = ImageDraw.Draw(image)
        color = paint or tuple(int(c) for c in rng.integers(20, 240, 3))
        x, y = (int(v) for v in rng.integers(-8, 9, 2))
        draw.rectangle((30 + x, 30 + y, 130 + x, 90 + y), fill=color)
        for left in (42, 74, 106):
            draw.rectangle((left + x, 38 + y, left + 18 + x, 54 + y), fill=(35, 40, 45))
        for left in (40, 100):
            draw.ellipse((left + x, 80 + y, left + 20 + x, 100 + y), fill=(15, 15, 15))
    noisy: Pixels = np.asarray(image, np.float64) + rng.normal(0, 4, (120, 160, 3))
    return noisy


def with_glare(pixels: Pixels, seed: int, strength: float = 350.0) -> Pixels:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    distance = np.hypot(y - rng.uniform(30, 90), x - rng.uniform(40, 120))
    dazzled: Pixels = pixels + (strength * np.exp(-np.square(distance / 32)))[..., None] * (1, 0.97, 0.9)
    return dazzled


def frame_of(images: list[bytes]) -> pd.DataFrame:
    stored = {f"{i:04d}.jpg": data for i, data in enumerate(images)}
    return measure_images(list(stored), stored.__getitem__)


CLEAN = [encode(scene(seed)) for seed in range(400)]


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    return frame_of(CLEAN)


def flat(level: float) -> bytes:
    return encode(np.full((90, 140, 3), level), "PNG")


def test_flat_images_have_the_brightness_they_were_painted_with() -> None:
    for level in (0, 51, 128, 204, 255):
        quality = measure(flat(level))
        assert quality.brightness == pytest.approx(level / 255, abs=1e-5)
        assert quality.contrast == pytest.approx(0, abs=1e-5)
        assert quality.entropy == pytest.approx(0, abs=1e-6)
        assert (quality.overexposed_share, quality.underexposed_share) == (level == 255, level == 0)


def test_clipped_and_black_shares_are_the_painted_areas() -> None:
    pixels = np.full((96, 96, 3), 128.0)
    pixels[:24] = 255
    pixels[72:84] = 0
    quality = measure(encode(pixels, "PNG"))
    assert quality.overexposed_share == pytest.approx(24 / 96)
    assert quality.underexposed_share == pytest.approx(12 / 96)
    assert quality.entropy == pytest.approx((0.25 * 2 + 0.125 * 3 + 0.625 * np.log2(1.6)) / 5, abs=1e-6)


def test_channel_means_are_those_of_the_paint() -> None:
    quality = measure(encode(np.full((50, 70, 3), (255.0, 102, 0)), "PNG"))
    assert (quality.red, quality.green, quality.blue) == pytest.approx((1, 0.4, 0), abs=1e-6)


def test_size_is_that_of_the_original_however_it_is_decoded() -> None:
    pixels = np.kron(scene(1), np.ones((9, 12, 1)))
    large = measure(encode(pixels))
    assert (large.width, large.height) == (1920, 1080)
    assert large.brightness == pytest.approx(measure(encode(scene(1))).brightness, abs=0.01)


def test_blur_lowers_sharpness_and_dimming_does_not() -> None:
    image = Image.fromarray(scene(3).clip(0, 255).astype(np.uint8))
    series = [measure(encode(np.asarray(image.filter(ImageFilter.GaussianBlur(r))))) for r in (0, 1, 2, 4, 8)]
    sharpness = [quality.sharpness for quality in series]
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] - sharpness[-1] > 1
    assert measure(encode(scene(3) / 3)).sharpness == pytest.approx(sharpness[0], abs=0.2)


def test_glare_fades_out_where_a_white_lorry_has_an_edge() -> None:
    lorry = measure(encode(scene(4, paint=(255, 255, 255))))
    dazzled = measure(encode(with_glare(scene(4, paint=(90, 30, 30)), 4)))
    assert lorry.overexposed_share > 0.1
    assert dazzled.glare_share > 0.03 > 4 * lorry.glare_share


def test_a_red_vehicle_as_light_as_the_road_is_not_an_empty_frame() -> None:
    empty = scene(5, vehicle=False)
    full = empty.copy()
    full[30:90, 40:120] = (230, 80, 60)  # luma 123 against a road of 100 to 140
    with_vehicle, without = measure(encode(full)), measure(encode(empty))
    assert with_vehicle.edge_share > 5 * without.edge_share + 0.05
    assert with_vehicle.centre_difference > 5 * without.centre_difference


def test_many_images_measure_as_one_by_one_and_in_order(clean: pd.DataFrame) -> None:
    assert clean["image_path"].tolist() == [f"{i:04d}.jpg" for i in range(len(CLEAN))]
    assert clean["error"].isna().all()
    assert clean["phash"].dtype == np.uint64
    for i in (0, 63, 64, 399):
        for name, value in asdict(measure(CLEAN[i])).items():
            assert clean[name].iloc[i] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_many_images_measured_in_processes_are_the_same(
    clean: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_quality, "MANY_IMAGES", 1)
    monkeypatch.setattr(image_quality, "_CHUNK", 100)
    monkeypatch.setenv("IV_THREADS", "2")
    pd.testing.assert_frame_equal(frame_of(CLEAN), clean)


def test_a_broken_image_is_reported_and_stops_nothing() -> None:
    good = encode(scene(6))
    stored = {
        "good.jpg": good,
        "truncated.jpg": good[: len(good) // 2],
        "text.jpg": b"this is no image",
        "empty.jpg": b"",
        "bomb.png": png_that_claims(60_000, 60_000),
        "large.png": png_that_claims(9_100, 9_100),
    }

    def read(path: str) -> bytes:
        if path == "lost.jpg":
            raise PictureError(ENCRYPTED, where="/somewhere/a.zip: lost.jpg")
        return stored[path]

    frame = measure_images([*stored, "absent.jpg", "lost.jpg"], read)
    assert frame["error"].isna().tolist() == [True] + [False] * 7
    assert frame["error"].fillna("").tolist() == [
        "",
        "cut off before its end",
        "not a picture",
        "empty file",
        "too large to be read",
        "too large to be read",
        "not in the archive",
        "encrypted",
    ]
    assert frame.loc[1:, "brightness"].isna().all()
    outliers = quality_outliers(frame)
    assert outliers["score"].iloc[0] < 0.5
    assert (outliers["score"].iloc[1:] == 1).all()
    assert outliers["reasons"].str.startswith("unreadable: ").tolist() == [False] + [True] * 7


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_a_picture_is_decoded_again_only_if_its_bytes_are_others_or_it_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = {"same.jpg": CLEAN[0], "other.jpg": CLEAN[1], "broken.jpg": CLEAN[2][:300], "gone.jpg": CLEAN[3]}
    before = measure_images(list(stored), stored.__getitem__)
    assert before["error"].notna().tolist() == [False, False, True, False]
    stored |= {"other.jpg": CLEAN[4], "broken.jpg": CLEAN[2], "new.jpg": CLEAN[5]}
    decoded = []
    monkeypatch.setattr(
        "iv_pipeline.learn.decoding.decode", lambda data, side: decoded.append(data) or decode(data, side)
    )
    paths = ["new.jpg", "same.jpg", "other.jpg", "broken.jpg"]
    again = measure_images(paths, stored.__getitem__, before)
    assert sorted(decoded) == sorted([CLEAN[5], CLEAN[4], CLEAN[2]])
    pd.testing.assert_frame_equal(again, measure_images(paths, stored.__getitem__))
    decoded.clear()
    pd.testing.assert_frame_equal(measure_images(paths, stored.__getitem__, again), again)
    assert decoded == []


@pytest.mark.parametrize(("n_read", "enough"), [(0, False), (4, False), (5, True), (10, True)])
def test_pictures_judge_only_if_half_of_them_were_read(n_read: int, enough: bool) -> None:
    frame = pd.DataFrame({"error": pd.array([None] * n_read + ["encrypted"] * (10 - n_read), "string")})
    assert read_enough(frame) is enough


def test_an_error_of_the_program_is_not_mistaken_for_a_broken_image() -> None:
    def read(path: str) -> bytes:
        raise ZeroDivisionError(path)

    with pytest.raises(ZeroDivisionError):
        measure_images(["a.jpg"], read)


def test_no_images_give_an_empty_frame_with_all_columns(clean: pd.DataFrame) -> None:
    empty = measure_images([], {"a.jpg": CLEAN[0]}.__getitem__)
    assert empty.columns.tolist() == clean.columns.tolist()
    assert len(quality_outliers(empty)) == 0


def test_a_clean_delivery_is_not_flagged(clean: pd.DataFrame) -> None:
    outliers = quality_outliers(clean)
    assert (outliers["reasons"] == "").all()
    assert outliers["score"].between(0, 0.5).all()


PLANTS: dict[str, Callable[[int], Pixels]] = {
    "glare": lambda i: with_glare(scene(1000 + i), i),
    "dark": lambda i: scene(1000 + i) * (0.08 + 0.01 * i),
    "overexposed": lambda i: scene(1000 + i) * 2 + 90 + 10 * i,
    "empty": lambda i: scene(1000 + i, vehicle=False),
}


def test_planted_faults_are_ranked_first_and_named(clean: pd.DataFrame) -> None:
    planted = frame_of([encode(plant(i)) for plant in PLANTS.values() for i in range(3)])
    outliers = quality_outliers(pd.concat([clean, planted], ignore_index=True))
    found, rest = outliers["score"].iloc[len(clean) :], outliers["score"].iloc[: len(clean)]
    assert found.min() > rest.max()
    reasons = outliers["reasons"].iloc[len(clean) :].tolist()
    for i, reason in enumerate(reasons):
        assert reason.startswith(list(PLANTS)[i // 3] + ": "), reason


def test_at_night_every_image_is_dark_and_none_is_flagged_for_it() -> None:
    night = frame_of([encode(scene(seed) * 0.2) for seed in range(200)])
    assert (quality_outliers(night)["reasons"] == "").all()


def test_a_night_image_is_flagged_against_the_days_before(clean: pd.DataFrame) -> None:
    night = frame_of([encode(scene(5) * 0.15)])
    assert quality_outliers(night)["reasons"].tolist() == [""]
    assert quality_outliers(night, reference=clean)["reasons"].iloc[0].startswith("dark: ")


def test_score_grows_with_the_fault(clean: pd.DataFrame) -> None:
    plants: list[Callable[[float], Pixels]] = [
        lambda x: scene(8) * (1 - 0.95 * x),
        lambda x: scene(8) * (1 + 3 * x),
        lambda x: scene(8) + 200 * x,
    ]
    for plant in plants:
        series = frame_of([encode(plant(x)) for x in np.linspace(0, 1, 12)])
        score = quality_outliers(series, reference=clean)["score"]
        assert score.diff().dropna().min() > -0.02
        assert score.iloc[0] < 0.5
        assert score.iloc[-1] > 0.9


def test_hash_survives_recompression_and_scaling_but_not_another_scene() -> None:
    image = Image.fromarray(scene(9, paint=(200, 60, 60)).clip(0, 255).astype(np.uint8))
    original = measure(encode(np.asarray(image))).phash
    again = measure(encode(np.asarray(image.resize((320, 240))))).phash
    other = measure(encode(scene(9, paint=(200, 60, 60))[:, ::-1].T.reshape(120, 160, 3))).phash
    assert (original ^ again).bit_count() <= 2
    assert (original ^ other).bit_count() > 10


def test_flat_images_have_no_hash() -> None:
    assert measure(flat(100)).phash == 0


def test_faults_planted_among_real_photos_are_ranked_before_them() -> None:
    if not TRAFFIC_CAMERA.is_dir():
        pytest.skip(f"there is no delivery at {TRAFFIC_CAMERA}")
    archive = ImageArchive(UPath(TRAFFIC_CAMERA / "raw_data" / "veriwild.zip"))
    listed = pd.read_csv(TRAFFIC_CAMERA / "images_paths.csv")["paths"].str.replace("\\", "/", regex=False)
    rng = np.random.default_rng(0)
    faults: tuple[Callable[[Pixels], Pixels], ...] = (
        lambda pixels: pixels * rng.uniform(2, 4) + rng.uniform(60, 120),
        lambda pixels: pixels * rng.uniform(0.04, 0.15) + rng.normal(0, 2, pixels.shape),
        lambda pixels: hazy(pixels, rng),
    )
    planted = {listed[row]: faults[i % 3] for i, row in enumerate(rng.choice(len(listed), 48, replace=False))}

    def read(path: str) -> bytes:
        data = archive.read(path)
        if path not in planted:
            return data
        return encode(planted[path](np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64)))

    ranked = quality_outliers(measure_images(listed.to_list(), read))
    is_planted = ranked["image_path"].isin(list(planted))
    assert average_precision_score(is_planted, ranked["score"]) >= 0.95
    flagged = ranked.nlargest(48, "score")  # a contamination of one in a hundred
    assert is_planted[flagged.index].mean() >= 0.9


def hazy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Light that strays in the lens from a point in the picture."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - rng.uniform(0.2, 0.8) * height, x - rng.uniform(0.2, 0.8) * width)
    spread = rng.uniform(0.15, 0.3) * min(height, width)
    hazed: Pixels = pixels + 420 * np.exp(-np.square(distance / spread) / 2)[..., None]
    return hazed


def test_real_vehicles_that_fill_the_frame_are_not_empty() -> None:
    if not TRAFFIC_CAMERA.is_dir():
        pytest.skip(f"there is no delivery at {TRAFFIC_CAMERA}")
    archive = ImageArchive(UPath(TRAFFIC_CAMERA / "raw_data" / "veriwild.zip"))
    listed = pd.read_csv(TRAFFIC_CAMERA / "images_paths.csv")["paths"].str.replace("\\", "/", regex=False)

    def cropped(path: str) -> bytes:
        image = Image.open(io.BytesIO(archive.read(path))).convert("RGB")
        width, height = image.size
        box = (width // 10, height // 10, width - width // 10, height - height // 10)
        return encode(np.asarray(image.crop(box), np.float64))

    for read in (archive.read, cropped):
        reasons = quality_outliers(measure_images(listed.to_list()[:1200], read))["reasons"]
        assert reasons.str.contains("empty").sum() <= 1
