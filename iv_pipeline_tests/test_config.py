from pathlib import Path

import pytest
from upath import UPath

from iv_pipeline.config import Settings, load_config
from iv_pipeline.errors import ConfigError

MINIMAL = "descriptors: {a: a.pickle, b: b.pickle}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_projects_own_configuration_is_valid_and_lists_the_heaviest_first() -> None:
    config = load_config(Path(__file__).parent.parent / "pipeline.yaml")
    four = ["efficientnet-b7", "osnet", "vdc_type", "vdc_color"]
    assert config.partitions == [*four, "vdc_type+vdc_color", "all"]
    assert config.blocks("all") == tuple(four)
    assert config.blocks("vdc_type+vdc_color") == ("vdc_type", "vdc_color")
    assert config.delivery.identity == "auto"


def test_a_few_lines_are_enough(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, MINIMAL))
    assert config.partitions == ["a", "b"]
    assert config.trials.naming_budget == 50
    assert config.pca.variance == 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "combinations: {c: [a, z]}", "names the unknown descriptor 'z'; known are a, b"),
        (MINIMAL + "combinations: {a: [a, b]}", "'a' is both a descriptor and a combination"),
        (MINIMAL + "combinations: {c: [a, a]}", "names a descriptor twice"),
        (MINIMAL + "combinations: {c: [a]}", "combinations.c.of"),
        ("descriptors: {a: {file: f, choose: {representation: fusion}}}", "nothing to fuse it with"),
        ("descriptors: {a: {file: f, choose: {representation: umap, scaler: robust}}}", "leave scaler out"),
        (MINIMAL + "trials: {representations: [fusion]}", "needs one that a single descriptor can have"),
        (MINIMAL + "pca: {variance: 1.5}", "pca.variance: Input should be less than or equal to 1"),
        (MINIMAL + "pca: {varience: 0.5}", "pca.varience: there is no such setting"),
        (MINIMAL + "delivery: {identity: '['}", "identity is no regular expression"),
        (MINIMAL + "delivery: {identity: 'abc'}", "identity needs a group"),
        ("descriptors: {'../x': a.pickle}", "cannot be a partition"),
        ("descriptors: {attributes: a.pickle}", "Final/attributes.csv is of all descriptors"),
        ("descriptors: {}", "descriptors"),
        ("{unclosed", "is no YAML"),
        (
            "descriptors:\n\ta: a.pickle\n",
            "line 2: is indented with a tab, which YAML does not allow; use blanks",
        ),
        (MINIMAL + "seed: 1\nseed: 2\n", "line 3: is no YAML ('seed' is there twice)"),
        ("seed: 1\n", "descriptors: it is missing"),
        (MINIMAL + "trials:\n", "trials: there is nothing below it"),
        (MINIMAL + "trials: 5\n", "trials: it has 5 where settings with names are expected"),
        ("- a list", "write a mapping"),
        ("", "write a mapping"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes((MINIMAL + "# камеры\n").encode("cp1251"))
    with pytest.raises(ConfigError, match=r"pipeline\.yaml: is not in UTF-8; save it as UTF-8"):
        load_config(path)


def test_a_byte_order_mark_and_paths_of_windows_are_read(tmp_path: Path) -> None:
    config = load_config(
        written(tmp_path, "\ufeffdescriptors: {a: net\\a.pickle}\ndelivery: {archive: raw\\x.zip}\n")
    )
    assert config.descriptors["a"].file == "net/a.pickle"
    assert config.delivery.archive == "raw/x.zip"


def test_a_missing_file_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set IV_CONFIG"):
        load_config(tmp_path / "none.yaml")


def test_an_unknown_descriptor_is_told_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no descriptor 'x'; choose one of a, b"):
        load_config(written(tmp_path, MINIMAL)).blocks("x")


def test_a_delivery_may_say_what_its_paths_mean(tmp_path: Path) -> None:
    (tmp_path / "delivery.yaml").write_text("identity: '/([0-9]+)/'\narchive: null\n")
    config = load_config(written(tmp_path, MINIMAL + "delivery: {paths: p.csv}"), UPath(tmp_path))
    assert config.delivery.identity == "/([0-9]+)/"
    assert config.delivery.archive is None
    assert config.delivery.paths == "p.csv"


def test_a_wrong_entry_of_a_delivery_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "delivery.yaml").write_text("identitty: x\n")
    with pytest.raises(ConfigError, match=r"delivery\.yaml: identitty: there is no such setting"):
        load_config(written(tmp_path, MINIMAL), UPath(tmp_path))


def test_the_environment_says_where_things_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IV_CONFIG", str(written(tmp_path, MINIMAL)))
    monkeypatch.setenv("IV_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("IV_DELIVERY", raising=False)
    settings = Settings.from_environment()
    assert str(settings.data_root) == str(tmp_path / "root")
    assert str(settings.delivery) == str(tmp_path / "root" / "Intellivision_case")
    monkeypatch.setenv("IV_DELIVERY", str(tmp_path / "elsewhere"))
    assert str(Settings.from_environment().delivery) == str(tmp_path / "elsewhere")
