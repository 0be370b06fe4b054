"""What the end-to-end tests share: a small delivery, pipelines over it, and one finished run."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import hypothesis
import numpy as np
import pytest
import yaml
from upath import UPath

from iv_pipeline.config import Settings, load_config
from iv_pipeline.demo import draw_delivery
from iv_pipeline.storage.formats import format_of
from iv_pipeline.storage.layout import file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from playwright.sync_api import Page

N_IMAGES = 200
N_GROUPS = 6
PARTITIONS = ("vdc_type", "vdc_color", "vdc_type+vdc_color")
CONFIG: dict[str, Any] = {
    "descriptors": {name: f"descriptors/{name}.pickle" for name in PARTITIONS[:2]},
    "combinations": {PARTITIONS[2]: list(PARTITIONS[:2])},
    "trials": {"naming_budget": N_GROUPS, "n_clusters": [3, 6], "scalers": ["standard", "robust"]},
    "neighbors": {"n_neighbors": 15, "min_samples": 5},
    "embedding": {"n_epochs": 20},
    "projection": {"n_epochs": 20},
    "clustered": {"rows": 100},
}
QUICK: dict[str, Any] = {
    "projection": {"n_epochs": 1},
    "embedding": {"n_epochs": 1},
    "trials": {"naming_budget": 6, "n_clusters": [6], "scalers": ["standard"], "representations": ["pca"]},
}
"""For runs in processes of their own."""
REPOSITORY = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TRAFFIC_CAMERA = REPOSITORY.parent / "shared" / "deliveries" / "traffic-camera" / "Intellivision_case"
"""A real delivery beside the repository; tests that need it are skipped without it."""


hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("untimed")

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_configure(config: pytest.Config) -> None:
    """Tests that start Dagster's daemon, or a browser, can be left out: `-m "not daemon and not browser"`."""
    config.addinivalue_line("markers", "daemon: starts Dagster's daemon, which takes half a minute")
    config.addinivalue_line("markers", "kernels: what is run again with the kernels of another processor")
    config.addinivalue_line(
        "markers", "slow: runs the whole pipeline on a delivery, which takes half a minute"
    )
    config.addinivalue_line("markers", "browser: opens Dagster's UI or the report in a browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest modules, which wait for a daemon or run whole pipelines: short ones fill the rest."""
    waiting = {item.path for item in items if item.get_closest_marker("daemon")}
    here = Path(__file__).parent
    items.sort(key=lambda item: (item.path not in waiting, item.path.parent != here))


@dataclass(frozen=True)
class Pipeline:
    """A data root, the delivery that fills it and the configuration; runs jobs in this process."""

    root: Path
    delivery: Path
    config: Path

    @property
    def settings(self) -> Settings:
        delivery = UPath(self.delivery)
        return Settings(UPath(self.root), delivery, load_config(self.config, delivery))

    @property
    def environment(self) -> dict[str, str]:
        """For commands that are to work on this pipeline."""
        return os.environ | {
            "IV_DATA_ROOT": str(self.root),
            "IV_DELIVERY": str(self.delivery),
            "IV_CONFIG": str(self.config),
            "DAGSTER_HOME": str(self.root / "dagster_home"),
        }

    def run(self, job: str, partition: str | None = None, **changes: Any) -> dg.ExecuteInProcessResult:
        """Run a job, after changes of the settings; a failure is a result, not an exception."""
        return self._execute(self.definitions(**changes).resolve_job_def(job), partition)

    def materialize(self, *assets: str, partition: str | None = None) -> dg.ExecuteInProcessResult:
        """Run some assets on their own, as the UI and `dagster asset materialize` do."""
        job = self.definitions().resolve_implicit_global_asset_job_def()
        return self._execute(job, partition, asset_selection=[dg.AssetKey(name) for name in assets])

    def definitions(self, **changes: Any) -> dg.Definitions:
        """The definitions, after changes of the settings."""
        from iv_pipeline.definitions import build_definitions

        return build_definitions(replace(self.settings, **changes))

    @staticmethod
    def _execute(job: dg.JobDefinition, partition: str | None, **options: Any) -> dg.ExecuteInProcessResult:
        with dg.DagsterInstance.ephemeral() as instance:
            if partition is not None:
                instance.add_dynamic_partitions("batch", [partition])
            return job.execute_in_process(
                instance=instance, partition_key=partition, raise_on_error=False, **options
            )

    def run_all(self) -> dict[str, dg.ExecuteInProcessResult]:
        """Run every job in the order in which a person would; results by job or partition."""
        results = {"prepare": self.run("prepare")}
        for name in self.settings.config.partitions:
            results[name] = self.run("full_pipeline", name)
        results["summarise"] = self.run("summarise")
        for what, result in results.items():
            assert result.success, (what, reasons(result))
        return results

    def path(self, asset: str, partition: str | None = None) -> Path:
        return self.root / file_of(asset, partition)

    def read(self, asset: str, partition: str | None = None) -> Any:
        path = UPath(self.path(asset, partition))
        return format_of(path).read(path)

    def fingerprints(self) -> dict[str, str]:
        """A hash of every file under the data root, temporary ones included."""
        files = (path for path in sorted(self.root.rglob("*")) if path.is_file())
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    def matrix(self, descriptor: str) -> NDArray[np.float32]:
        """The delivery's vectors, as they were pickled."""
        matrix: NDArray[np.float32] = pickle.loads(self.pickle_of(descriptor).read_bytes())
        return matrix

    def pickle_of(self, descriptor: str) -> Path:
        return self.delivery / "descriptors" / f"{descriptor}.pickle"

    def deliver(self, descriptor: str, matrix: NDArray[Any]) -> None:
        self.pickle_of(descriptor).write_bytes(pickle.dumps(matrix, protocol=4))

    def send(
        self,
        batch: str,
        rows: Sequence[int],
        *,
        descriptors: Sequence[str] = PARTITIONS[:2],
        noise: float = 0.1,
        shift: float = 0.0,
        prefix: str = "",
        inbox: Path | None = None,
    ) -> Path:
        """Put a batch into the inbox: images like those in some rows of the delivery, at other paths.

        `noise` and `shift` are in standard deviations of a descriptor's features.
        """
        folder = (inbox or self.root / "Inbox") / batch
        (folder / "descriptors").mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(rows))
        for name in descriptors:
            X = self.matrix(name)
            drawn = X[list(rows)] + X.std(axis=0) * (shift + noise * rng.normal(size=(len(rows), X.shape[1])))
            path = folder / "descriptors" / f"{name}.pickle"
            path.write_bytes(pickle.dumps(drawn.astype(np.float32), protocol=4))
        paths = [f"veriwild\\{prefix or batch}\\{i:06}.jpg" for i in range(len(rows))]
        (folder / "images_paths.csv").write_text("\n".join(["paths", *paths, ""]), encoding="utf-8")
        return folder

    def command(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run one of the installed commands on this pipeline, in the repository."""
        return subprocess.run(
            [str(BIN / arguments[0]), *arguments[1:]],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @contextlib.contextmanager
    def background(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command beside the test; it and all that it started end with the block."""
        log = self.root.parent / f"{arguments[0]}.log"
        program = shutil.which(arguments[0], path=f"{BIN}:{os.environ['PATH']}")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(program), *arguments[1:]],
                cwd=REPOSITORY,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextlib.contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The instance that the commands work on."""
        with dg.DagsterInstance.from_config(str(self.root / "dagster_home")) as instance:
            yield instance


def wait_for(what: str, condition: Callable[[], object], seconds: float = 180, every: float = 0.5) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what}: not after {seconds} s"
        time.sleep(every)


def reasons(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """What a person reads in Dagster's UI about each step that failed."""
    failures = {
        e.step_key: e.step_failure_data for e in result.all_events if e.is_step_failure and e.step_key
    }
    return {
        step: str(data.user_failure_data.description if data.user_failure_data else data.error_display_string)
        for step, data in failures.items()
    }


@dataclass(frozen=True)
class Finished:
    """A pipeline after every job has run, and what Dagster says about it."""

    pipeline: Pipeline
    results: dict[str, dg.ExecuteInProcessResult] = field(repr=False)


@pytest.fixture(scope="session")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn delivery with an archive and labels; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("delivered") / "Intellivision_case"
    draw_delivery(folder, N_IMAGES)
    separate_groups(folder)
    return folder


def separate_groups(folder: Path) -> None:
    """Give all descriptors the same clear groups of vehicles: what is chosen and kept must be no near tie."""
    lines = (folder / "images_paths.csv").read_text(encoding="utf-8").splitlines()[1:]
    group = np.array([int(line.split("\\")[2]) % N_GROUPS for line in lines])
    for i, file in enumerate(sorted((folder / "descriptors").iterdir())):
        X = pickle.loads(file.read_bytes())
        apart = 2 * np.random.default_rng(i).normal(size=(N_GROUPS, X.shape[1])) * X.std(axis=0)
        file.write_bytes(pickle.dumps((X + apart[group]).astype(np.float32), protocol=4))


@pytest.fixture(scope="session")
def make_pipeline(tmp_path_factory: pytest.TempPathFactory, delivery: Path) -> Callable[..., Pipeline]:
    """Makes pipelines with an empty data root, a delivery of their own, and sections of the settings replaced."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IV_DATA_ROOT", "IV_DELIVERY"):
            patch.delenv(name, raising=False)
        patch.setenv("IV_CONFIG", str(REPOSITORY / "pipeline.yaml"))
        importlib.import_module("iv_pipeline.definitions")  # it reads the environment when it is imported

    def make(**changes: Any) -> Pipeline:
        folder = tmp_path_factory.mktemp("pipeline")
        own = folder / "delivered" / "Intellivision_case"
        shutil.copytree(delivery, own)
        config = folder / "pipeline.yaml"
        config.write_text(yaml.safe_dump(CONFIG | changes, sort_keys=False), encoding="utf-8")
        return Pipeline(folder / "root", own, config)

    return make


@pytest.fixture(scope="session")
def finished(make_pipeline: Callable[..., Pipeline]) -> Finished:
    """Every job run once; nobody writes here."""
    pipeline = make_pipeline()
    names = pipeline.root / "Names" / "vdc_type.csv"
    names.parent.mkdir(parents=True)
    names.write_text("cluster,name\n0,white saloons\n", encoding="utf-8")
    results = pipeline.run_all()
    return Finished(pipeline, results)


@pytest.fixture(scope="session")
def grown(finished: Finished, make_pipeline: Callable[..., Pipeline]) -> Finished:
    """The same after a batch came, was labelled and joined the fit set by a refit; nobody writes here."""
    pipeline = make_pipeline()
    shutil.copytree(finished.pipeline.root, pipeline.root, copy_function=os.link)
    pipeline.send("monday", range(0, N_IMAGES, 3))
    results = {"monday": pipeline.run("label_batch", "monday"), "refit": pipeline.run("refit")}
    for what, result in results.items():
        assert result.success, (what, reasons(result))
    return Finished(pipeline, results)


@pytest.fixture
def again(finished: Finished, make_pipeline: Callable[..., Pipeline]) -> Callable[..., Pipeline]:
    """Makes pipelines whose data root is already filled, to be run again after a change."""

    def make(**changes: Any) -> Pipeline:
        pipeline = make_pipeline(**changes)
        # links share content, and a stage replaces its file instead of writing into it
        shutil.copytree(finished.pipeline.root, pipeline.root, copy_function=os.link)
        return pipeline

    return make


@dataclass(frozen=True)
class Visit:
    """A page in a browser, what the browser complained of, and what dialogs the page opened."""

    page: Page
    errors: list[str]
    asked: list[str]


@pytest.fixture
def browse() -> Iterator[Callable[..., Visit]]:
    """Opens empty pages in a headless browser; tests that need one are skipped where there is none.

    A browser for each test: Playwright's event loop, while there is one, keeps others from running.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((found for name in names if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser on the PATH: none of {', '.join(names)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)

        def open_page(**options: Any) -> Visit:
            page = browser.new_page(**options)
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
            asked: list[str] = []
            page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
            return Visit(page, errors, asked)

        yield open_page
        browser.close()
