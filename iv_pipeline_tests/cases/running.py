"""Small deliveries that reproduce what people have met in the field: made, and run as a person would run them.

The deliveries lie beside the repository, each a script whose docstring says what is expected of the product.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import yaml

from iv_pipeline import execution
from iv_pipeline_tests.conftest import REPOSITORY, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from iv_pipeline.config import PipelineConfig

FOLDER = Path(os.environ.get("IV_CASES") or REPOSITORY.parent / "shared" / "cases")
"""Where the scripts lie."""
READING = ("views", "image_quality", "statistics")
"""Assets that have seen everything in a delivery."""
LABELS = ("final", "model")
"""Assets that hold the labels, and what labels other images."""
RESULTS = ("final", "model", "projection", "ranked_outliers", "summary")
"""Assets that are handed on, and those whose checks look at them."""
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|Stack Trace:")


@dataclass(frozen=True)
class Light:
    """As much of a configuration as an expectation needs.

    Attributes
    ----------
    descriptors
        Those that are kept.
    combinations
        Whether combinations are.
    scalers, representations, algorithms
        What trials choose from.
    """

    descriptors: tuple[str, ...] = ("vdc_type", "vdc_color")
    combinations: bool = False
    scalers: tuple[str, ...] = ("standard",)
    representations: tuple[str, ...] = ("pca",)
    algorithms: tuple[str, ...] = ("kmeans", "hdbscan")

    def apply(self, config: Path) -> None:
        """Rewrite a configuration file."""
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        content["descriptors"] = {name: content["descriptors"][name] for name in self.descriptors}
        if not self.combinations:
            content.pop("combinations", None)
        for setting in ("scalers", "representations", "algorithms"):
            content["trials"][setting] = list(getattr(self, setting))
        config.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


USUAL = Light()
"""Two descriptors, and an algorithm of each kind on principal components."""


class SkippedError(Exception):
    """Why a delivery cannot be made or run on this machine."""


@dataclass(frozen=True)
class Made:
    """A delivery that a script has made.

    Attributes
    ----------
    folder
        What the script has written into.
    pipeline
        The delivery, its configuration, and an empty data root.
    options
        Arguments of the generator, as the script gives them.
    """

    folder: Path
    pipeline: Pipeline
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def base(self) -> Any:
        """The generator with its paths, vectors ``X1`` and ``X2`` and true groups."""
        spec = importlib.util.spec_from_file_location("cases_base", FOLDER / "base.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Base(self.folder / "generated", **self.options)

    def elsewhere(self, root: str) -> Made:
        """The same delivery with another data root."""
        again = Pipeline(self.folder / root, self.pipeline.delivery, self.pipeline.config)
        return Made(self.folder, again, self.options)


@dataclass(frozen=True)
class Outcome:
    """What the product did with a delivery.

    Attributes
    ----------
    made
        The delivery.
    finished
        Whether it did what was asked.
    console
        What it printed.
    objections
        What a scenario of several steps found wrong.
    """

    made: Made
    finished: bool
    console: str
    objections: Sequence[str] = ()

    @property
    def config(self) -> PipelineConfig:
        return self.made.pipeline.settings.config

    @property
    def lines(self) -> list[str]:
        """Without the folder of the case, whose name has words in it that are looked for."""
        console = self.console.replace(f"{self.made.folder}/", "")
        return [line.strip() for line in console.splitlines() if line.strip()]

    @property
    def has_traceback(self) -> bool:
        return _TRACEBACK.search(self.console) is not None

    @property
    def warnings(self) -> list[str]:
        return [line.partition("warning: ")[2] for line in self.lines if "  warning: " in line]

    @property
    def errors(self) -> list[str]:
        """What was said of the end of a command or of one of its steps."""
        return [line for line in self.lines if "failed: " in line or line.startswith("iv-pipeline: ")]

    @property
    def happened(self) -> str:
        """In one sentence."""
        if self.has_traceback:
            errors = [line for line in self.lines if re.search(r"\w(Error|Exception)\b: ", line)]
            return f"traceback: {(errors or self.lines)[-1]}"
        if not self.finished:
            first = (self.errors or self.lines[-1:] or ["nothing was said"])[0]
            return re.sub(r"^[\w.]+ failed: ", "", first)
        return "; ".join(["ok", *dict.fromkeys(self.warnings)])

    def stored(self, asset: str, partition: str | None = None) -> Any:
        """What a stage has stored; None if it has not."""
        pipeline = self.made.pipeline
        return pipeline.read(asset, partition) if pipeline.path(asset, partition).exists() else None

    def final(self, partition: str) -> pd.DataFrame | None:
        """The Final CSV of a descriptor, as a program of the people who get it reads it."""
        path = self.made.pipeline.path("final", partition)
        return pd.read_csv(path, keep_default_na=False) if path.exists() else None


def make(case: str, folder: Path, options: Mapping[str, Any] = {}, light: Light = USUAL) -> Made:
    """Make a delivery in a process of its own: some scripts put modules into theirs.

    Raises
    ------
    SkippedError
        If the script needs what this machine lacks.
    """
    script = (FOLDER / f"{case}.py").read_text(encoding="utf-8")
    if "PANDAS1" in script and not os.environ.get("PANDAS1"):
        raise SkippedError("PANDAS1 names no Python that has pandas 1.5 and NumPy 1.26")
    command = [sys.executable, str(FOLDER / "make.py"), case, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{case} cannot be made: {ran.stderr}")
    for config in folder.glob("**/*.yaml"):
        light.apply(config)
    return Made(
        folder, Pipeline(folder / "root", folder / "Intellivision_case", folder / "pipeline.yaml"), options
    )


@contextlib.contextmanager
def environment(pipeline: Pipeline) -> Iterator[None]:
    """The settings of a pipeline in the environment of this process."""
    names = ("IV_DATA_ROOT", "IV_DELIVERY", "IV_CONFIG", "DAGSTER_HOME")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: pipeline.environment[name] for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """What is printed meanwhile, and the traceback of what nobody has caught."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            yield said
        except Exception:  # noqa: BLE001  (that is what is looked for)
            said.write(traceback.format_exc())


def run(made: Made, *descriptors: str) -> Outcome:
    """`iv-pipeline run`, in this process."""
    status = 1
    with environment(made.pipeline), captured() as said:
        from iv_pipeline import cli

        status = cli.main(["run", "--processes", "1", *descriptors])  # what others write is not captured
    return Outcome(made, status == 0, said.getvalue())


def read(made: Made) -> Outcome:
    """Make the assets that read the delivery, and nothing else."""
    return materialize(made, READING)


def label(made: Made) -> Outcome:
    """Make the labels of every image, and nothing beside them."""
    return materialize(made, LABELS)


def cluster(made: Made) -> Outcome:
    """Make what is handed on; no report."""
    return materialize(made, RESULTS)


def report(made: Made) -> Outcome:
    """Make what is handed on and the report, without a history on disk."""
    return materialize(made, (*RESULTS, "report"))


def materialize(made: Made, targets: Sequence[str]) -> Outcome:
    """Make some assets and all that they need, in the order of `iv-pipeline run`."""
    finished = False
    with environment(made.pipeline), captured() as said:
        definitions, after = _jobs(made.pipeline, targets)
        with dg.DagsterInstance.ephemeral() as instance:
            finished = _execute(definitions, instance, "before")
            partitions = made.pipeline.settings.config.partitions if finished else ()
            done = [_execute(definitions, instance, "each", name) for name in partitions]
            if after and any(done):
                done.append(_execute(definitions, instance, "after"))
            finished = finished and all(done)
    return Outcome(made, finished, said.getvalue())


def _execute(
    definitions: dg.Definitions, instance: dg.DagsterInstance, job: str, partition: str | None = None
) -> bool:
    outcome = execution.execute(definitions, instance, job, partition)
    sys.stderr.writelines(f"{failure}\n" for failure in outcome.failures)
    return outcome.succeeded


def _jobs(pipeline: Pipeline, targets: Sequence[str]) -> tuple[dg.Definitions, bool]:
    """Definitions with the jobs `before`, `each` (descriptor) and, if any target needs it, `after`."""
    definitions = pipeline.definitions()
    graph = definitions.resolve_asset_graph()
    wanted = {key for target in targets for key in dg.AssetSelection.assets(target).upstream().resolve(graph)}
    each = {key for key in wanted if graph.get(key).is_partitioned}
    after = {key for key in wanted - each if each & dg.AssetSelection.assets(key).upstream().resolve(graph)}
    parts = {"before": wanted - each - after, "each": each, "after": after}
    jobs = [
        dg.define_asset_job(name, dg.AssetSelection.assets(*keys)) for name, keys in parts.items() if keys
    ]
    return dg.Definitions.merge(definitions, dg.Definitions(jobs=jobs)), bool(after)
