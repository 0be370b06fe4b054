"""What README and docs say: commands, code, configuration, links and tables."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import yaml

from iv_pipeline.assets import STAGES
from iv_pipeline.config import load_config
from iv_pipeline.storage.columns import describe_column
from iv_pipeline.storage.layout import FILES
from iv_pipeline_tests.conftest import CONFIG, PARTITIONS, QUICK, REPOSITORY, wait_for
from iv_pipeline_tests.test_ui import free_port, is_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from iv_pipeline_tests.conftest import Finished, Pipeline

READMES = (REPOSITORY / "README.md", REPOSITORY / "README.ru.md")
PAGES = (*READMES, *sorted((REPOSITORY / "docs").glob("*.md")))
names = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def commands(page: Path) -> list[str]:
    lines = "".join(blocks(page, "sh")).splitlines()
    return [command for line in lines if (command := line.partition("#")[0].strip())]


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

IN_ORDER = (
    "make run",
    'eval "$(make -s env)" && export PATH="$PWD/.venv/bin:$PATH"',
    "dagster asset materialize -m iv_pipeline.definitions --select image_index",
    "dagster asset materialize -m iv_pipeline.definitions --select init,statistics --partition vdc_color",
    "dagster job execute -m iv_pipeline.definitions -j prepare",
    ".venv/bin/iv-pipeline run vdc_color",
    "dagster asset materialize -m iv_pipeline.definitions --select report",
    "dagster asset materialize -m iv_pipeline.definitions --select attributes,review",
    "dagster job execute -m iv_pipeline.definitions -j refit",
)
"""Typed as they stand, one after another in one shell."""
ELSEWHERE = {
    "make ui": "test_docs.py::test_make_ui_serves_the_pipeline",
    "cp -r /path/to/monday data/Inbox/": "test_inbox_daemon.py::lived_through",
    "iv-pipeline versions": "test_batches.py::test_a_rollback_puts_models_and_results_back",
    "iv-pipeline rollback 1": "test_batches.py::test_a_rollback_puts_models_and_results_back",
    "make test": ".ci/run",
    "make test-kernels": ".ci/run",
    "make test-cases": "test_cases.py::test_the_delivery_is_read_or_refused_as_expected",
    "make lint": ".ci/run",
    "IV_DELIVERY=/path/to/Intellivision_case IV_DATA_ROOT=/path/to/results make run": (
        "test_docs.py::test_make_targets_run_what_is_tested"
    ),
    "dagster job backfill -w workspace.yaml -j full_pipeline --all all --noprompt": (
        "test_commands.py::test_backfilling_all_means_every_descriptor_and_combination"
    ),
    "dagster job backfill -w workspace.yaml -j full_pipeline --partitions vdc_type,vdc_color --noprompt": (
        "test_commands.py::backfilled"
    ),
    "python -m benchmarks.processors /path/to/Intellivision_case /path/to/folder": (
        "test_benchmarks.py::test_kernels_of_another_processor_choose_the_same_and_give_the_same_labels"
    ),
    "make explore DESCRIPTOR=vdc_type": "test_explore.py::test_one_command_opens_a_descriptor_in_embedding_atlas",
    ".venv/bin/iv-pipeline run brand": "test_docs.py::test_a_descriptor_is_added_as_the_page_says",
}
"""Other commands, and the test or the script that runs them."""


@names
def test_every_command_is_one_that_is_run(page: Path) -> None:
    assert set(commands(page)) <= {*IN_ORDER, *ELSEWHERE}


def test_what_is_run_elsewhere_is_there_and_said_somewhere() -> None:
    said = {command for page in PAGES for command in commands(page)}
    assert {*IN_ORDER, *ELSEWHERE} == said
    for command, where in ELSEWHERE.items():
        file, _, name = where.partition("::")
        text = (REPOSITORY / (file if name == "" else f"iv_pipeline_tests/{file}")).read_text(
            encoding="utf-8"
        )
        assert f"def {name}(" in text if name else command in text, command


def test_commands_of_the_pages_run_one_after_another(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline(
        **QUICK, descriptors={"vdc_color": CONFIG["descriptors"]["vdc_color"]}, combinations={}
    )
    given = {name: value for name, value in pipeline.environment.items() if name != "DAGSTER_HOME"}
    ran = subprocess.run(
        ["bash", "-euc", "\n".join(IN_ORDER)],
        cwd=REPOSITORY,
        env=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert pipeline.path("final", "vdc_color").is_file()
    assert pipeline.path("report").is_file()


@pytest.mark.daemon
def test_make_ui_serves_the_pipeline(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline, port = make_pipeline(**QUICK), free_port()
    address = f"http://127.0.0.1:{port}"
    with pipeline.background("make", "ui", f"PORT={port}"):
        wait_for("the UI", lambda: is_up(address))
        with urllib.request.urlopen(f"{address}/server_info") as answer:  # noqa: S310  (of this machine)
            assert json.load(answer)["dagster_webserver_version"]


@pytest.mark.parametrize("target", ["run", "ui", "explore", "env", "test", "lint", "demo"])
def test_make_targets_run_what_is_tested(target: str) -> None:
    planned = subprocess.run(
        ["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    expected = {
        "run": ".venv/bin/iv-pipeline run",
        "ui": ".venv/bin/dagster dev -w workspace.yaml",
        "explore": ".venv/bin/iv-pipeline explore vdc_type --port 5055",
        "env": ".venv/bin/iv-pipeline env",
        "test": ".venv/bin/python -m pytest",
        "lint": ".venv/bin/mypy",
        "demo": ".venv/bin/iv-pipeline demo",
    }
    assert expected[target] in planned


# ── code, configuration, links ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_python_of_the_readme_runs_on_a_finished_data_root(
    page: Path, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(finished.pipeline.root)
    monkeypatch.chdir(tmp_path)
    vectors = finished.pipeline.matrix("vdc_type")[:7]
    variables = {"vectors": vectors, "color_vectors": finished.pipeline.matrix("vdc_color")[:7]}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), variables)  # noqa: S102  (our own page)
    assert len(variables["labels"]) == len(variables["answers"]) == len(vectors)
    final = finished.pipeline.read("final", "vdc_type")
    np.testing.assert_array_equal(pd.DataFrame(variables["labels"])["cluster"], final["cluster"][:7])


@names
def test_examples_of_configuration_are_valid(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "yaml"):
        file = tmp_path / "pipeline.yaml"
        given = yaml.safe_load(text)
        file.write_text(yaml.safe_dump({"descriptors": CONFIG["descriptors"]} | given), encoding="utf-8")
        load_config(file, None)


@names
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_both_readmes_say_the_same() -> None:
    english, russian = (path.read_text(encoding="utf-8") for path in READMES)

    def shape(text: str) -> list[str]:
        """Levels of headings, files and figures of tables, and links, in their order."""
        return re.findall(r"^#+(?= )|^\| *`[^`]+`|^!\[|\]\([^)]+\)", text, re.MULTILINE)

    same = [part for part in shape(english) if "README" not in part]
    assert same == [part for part in shape(russian) if "README" not in part]
    for language in ("sh", "python", "yaml"):
        ours, theirs = (
            [
                line.partition("#")[0].rstrip()
                for block in blocks(path, language)
                for line in block.splitlines()
            ]
            for path in READMES
        )
        assert ours == theirs  # comments are in their own language
    numbers = [
        sorted(re.findall(r"\d[\d,.]*", re.sub(r"[\u00a0 ](?=\d{3}\b)", ",", t))) for t in (english, russian)
    ]
    assert len(numbers[0]) == len(numbers[1])


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_readme_names_the_file_of_every_stage() -> None:
    text = READMES[0].read_text(encoding="utf-8")
    rows = "".join(re.findall(r"^\|.*$", text, re.MULTILINE))
    assert [stage.name for stage in STAGES if f"`{stage.name}`" not in rows] == []


def test_the_data_contract_names_every_file_and_column(grown: Finished) -> None:
    text = (REPOSITORY / "docs" / "data-contract.md").read_text(encoding="utf-8")
    for stage in STAGES:
        file = FILES[stage.name].replace("{descriptor}", "<d>").replace("{batch}", "<batch>")
        said = inspect.getdoc(stage.function) or ""
        assert f"## {stage.name}\n\n`{file}`: {said.splitlines()[0]}\n" in text
    told = 0
    for (asset, partition), section in sections(text).items():
        for column in grown.pipeline.read(asset, partition):
            told += 1
            name = shown_as(asset, str(column))
            assert f"| `{name}` | {describe_column(asset, name)} |" in section, (asset, column)
    assert told > 200


def sections(text: str) -> dict[tuple[str, str | None], str]:
    """The part of the data contract on each file of rows that a run leaves, by stage and partition."""
    files = [
        (stage.name, FILES[stage.name]) for stage in STAGES if FILES[stage.name].endswith(("csv", "parquet"))
    ]
    return {
        (name, partition): text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for name, file in files
        for partition in (PARTITIONS if "{d" in file else ("monday",) if "{" in file else (None,))
    }


def shown_as(asset: str, column: str) -> str:
    """How the page names a column; some tables have one for each criterion, kind of label or descriptor."""
    if asset == "ranking" and column.startswith("rank_"):
        return "rank_<criterion>"
    attribute = column.removesuffix("_confidence")
    if asset == "attributes" and attribute in ("type", "view", "color"):
        return column.replace(attribute, "<attribute>")
    if asset == "joint_features" and column.startswith("anomaly/"):
        return "anomaly/<descriptor>"
    if asset == "image_index" and column.startswith("label_"):
        return "label_<kind>"
    return "<descriptor>" if asset == "disagreements" and column in PARTITIONS else column


def test_imports_point_one_way() -> None:
    allowed = {
        "engine": {"errors"},
        "learn": {"errors", "engine", "learn", "scaler"},
        "storage": {"config", "engine", "errors", "metering", "scaler", "storage"},
        "report": {"engine", "errors", "learn", "report", "storage"},
    }
    for part, may in allowed.items():
        folder = REPOSITORY / "iv_pipeline" / part
        files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
        for file in files:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("iv_pipeline."):
                    assert (node.module or "").split(".")[1] in may, f"{file.name} imports {node.module}"
                if part == "learn" and isinstance(node, ast.Import | ast.ImportFrom):
                    imported = (
                        [node.module or ""]
                        if isinstance(node, ast.ImportFrom)
                        else [a.name for a in node.names]
                    )
                    assert not any(name.split(".")[0] == "dagster" for name in imported), file


# ── extending ────────────────────────────────────────────────────────────────────────────────────────────────

EXTENDING = REPOSITORY / "docs" / "extending.md"


def apply(diff: str, file: Path) -> None:
    """What the page's diff says: each hunk's old lines, found once, become its new ones."""
    text = file.read_text(encoding="utf-8")
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        assert text.count(old) == 1, old
        text = text.replace(old, "".join(line[1:] for line in lines if line[0] in " +"))
    file.write_text(text, encoding="utf-8")


def test_an_algorithm_is_added_as_the_page_says(
    make_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    package = tmp_path / "iv_pipeline"
    shutil.copytree(REPOSITORY / "iv_pipeline", package, ignore=shutil.ignore_patterns("__pycache__"))
    page = EXTENDING.read_text(encoding="utf-8")
    (module,) = re.findall(r"Write `(iv_pipeline/learn/clustering/\w+\.py)`", page)
    (code,) = blocks(EXTENDING, "python")
    (tmp_path / module).write_text(code, encoding="utf-8")
    for diff, file in zip(
        blocks(EXTENDING, "diff"), ("learn/clustering/__init__.py", "config.py"), strict=True
    ):
        assert f"`iv_pipeline/{file}`" in page
        apply(diff, package / file)
    pipeline = make_pipeline(
        **QUICK | {"trials": QUICK["trials"] | {"algorithms": ["bisecting", "kmeans"]}}, combinations={}
    )
    config = yaml.safe_load(pipeline.config.read_text(encoding="utf-8"))
    config["descriptors"]["vdc_color"] = {
        "file": "descriptors/vdc_color.pickle",
        "choose": {"algorithm": "bisecting"},
    }
    pipeline.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    code = "import sys; from iv_pipeline.cli import main; sys.exit(main(['run', 'vdc_color']))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=pipeline.environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    trials = pipeline.read("clustering_trials", "vdc_color")
    assert trials.loc[trials["won"], "algorithm"].to_list() == ["bisecting"]
    assert pipeline.read("final", "vdc_color")["cluster"].nunique() == 6
    label = (
        "import json, pickle, sys; from iv_pipeline.labelling import load_labeller;"
        "X = pickle.load(open(sys.argv[2], 'rb')); print(json.dumps("
        "load_labeller(sys.argv[1], 'vdc_color').label(X)['cluster'].tolist()))"
    )
    labelled = subprocess.run(
        [sys.executable, "-c", label, str(pipeline.root), str(pipeline.pickle_of("vdc_color"))],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    known = np.array(json.loads(labelled.stdout))
    assert np.mean(known == pipeline.read("final", "vdc_color")["cluster"]) > 0.98
    assert importlib.util.find_spec("iv_pipeline.learn.clustering.bisecting") is None  # here nothing changed


def test_a_descriptor_is_added_as_the_page_says(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline(**QUICK, combinations={})
    given = yaml.safe_load(blocks(EXTENDING, "yaml")[0])
    config = yaml.safe_load(pipeline.config.read_text(encoding="utf-8")) | given
    pipeline.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    rng = np.random.default_rng(0)
    pipeline.deliver("brand", rng.normal(size=(len(pipeline.matrix("vdc_type")), 24)).astype(np.float32))
    ran = pipeline.command("iv-pipeline", "run", "brand", timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(pipeline.read("final", "brand")) == len(pipeline.matrix("vdc_type"))
    assert pipeline.read("summary")["descriptor"].to_list() == ["brand"]
