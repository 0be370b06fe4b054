"""Deliveries that need more than one step."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pandas as pd
from upath import UPath

from iv_pipeline.errors import InputError
from iv_pipeline.labelling import load_labeller
from iv_pipeline.storage.inbox import Rules, Watch, look
from iv_pipeline_tests.cases.running import Made, Outcome, SkippedError, cluster, label, read, run
from iv_pipeline_tests.conftest import BIN, REPOSITORY, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 300
"""That a command in a process of its own may take."""


def twice(made: Made) -> Outcome:
    """Run into two data roots: the same delivery gives the same files."""
    first, second = cluster(made), cluster(made.elsewhere("again"))
    objections = [] if second.finished else [second.happened]
    for file in sorted((made.pipeline.root / "Final").glob("*.csv")):
        other = second.made.pipeline.root / "Final" / file.name
        if not other.exists() or other.read_bytes() != file.read_bytes():
            objections.append(f"{file.name} differs between two runs")
    return replace(first, objections=objections)


def packed_again(made: Made) -> Outcome:
    """An archive with a password, then the same without; what counts is the second run."""
    first = read(made)
    told = [line for line in first.lines if "encrypted" in line or "password" in line]
    objections = [] if len(told) == 1 else [f"the password is told {len(told)} times at first"]
    shutil.copy(made.folder / "good.zip", made.pipeline.delivery / "raw_data" / "veriwild.zip")
    return replace(read(made), objections=objections)


def named_in_excel(made: Made) -> Outcome:
    """Names as Excel in Russian saves them, with blank lines, put beside a finished run."""
    label(made)
    names = made.pipeline.root / "Names" / "vdc_type.csv"
    names.parent.mkdir(exist_ok=True)
    names.write_bytes("cluster;name\r\n0;белые седаны\r\n\r\n1;007\r\n;\r\n".encode("cp1251"))
    again = label(made)
    final = again.final("vdc_type")
    given = {} if final is None else dict(zip(final["cluster"], final["name"].astype(str), strict=True))
    wrong = [] if (given.get(0), given.get(1)) == ("белые седаны", "007") else [f"names: {given}"]
    return replace(again, objections=wrong)


def in_odd_folders(made: Made) -> Outcome:
    """A delivery, a configuration and a data root in folders with blanks, letters and signs of all kinds."""
    root = next(path for path in made.folder.iterdir() if path.is_dir() and "#" in path.name)
    config = next(root.glob("*.yaml"))
    odd = Pipeline(root / "вывод #2 (50% + ещё)", root / "Intellivision_case", config)
    return run(Made(made.folder, odd, made.options))


def looked_into_later(made: Made) -> Outcome:
    """What file managers leave in a batch of the inbox is no part of its content."""
    inbox = UPath(made.folder / "batch")
    rules = Rules("_SUCCESS", 60, frozenset({"images_paths.csv"}))
    before = look(inbox, Watch(), rules)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "raw_data/Thumbs.db", "__MACOSX/._veriwild.zip"):
        file = made.folder / "batch" / "monday" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"\xd0\xcf\x11\xe0")
    after = look(inbox, Watch(), rules)
    found = [
        f"{b.name} was {a.state} {a.fingerprint}, is {b.state} {b.fingerprint} {b.why}"
        for a, b in zip(before, after, strict=True)
        if a != b
    ]
    return Outcome(made, all(batch.state == "complete" for batch in before), "", found)


def given_to_a_labeller(made: Made) -> Outcome:
    """One vector, lists and frames: labelled, or one sentence."""
    outcome = label(made)
    if not outcome.finished:
        return outcome
    labeller, X = load_labeller(made.pipeline.root, "vdc_type"), made.base.X1
    wanted = {
        "one vector": (X[0], 1),
        "list of lists": (X[:2].tolist(), 2),
        "list of arrays": (list(X[:2]), 2),
        "three axes": (X[:2, None, :], 2),
        "a frame": (pd.DataFrame(X[:2]), 2),
        "too few features": (X[:2, :5], None),
        "text": (np.array([["a"] * X.shape[1]]), None),
        "nothing": ([], None),
    }
    expected, objections = labeller.label(X[:2])["cluster"].to_list(), []
    for what, (given, n) in wanted.items():
        try:
            found = labeller.label(given)["cluster"].to_list()
            if n is None and what != "nothing":
                objections.append(f"{what} is labelled {found}")
            elif n is not None and found != expected[:n]:
                objections.append(f"{what} gives {found}, not {expected[:n]}")
        except InputError:
            continue
        except Exception as error:  # noqa: BLE001  (that is what is looked for)
            objections.append(f"{what}: {type(error).__name__}: {error}")
    return replace(outcome, objections=objections)


def beside_and_after_a_killed_one(made: Made) -> Outcome:
    """A run that was killed, one that is started again, and one beside that."""
    with _command(made) as killed:
        _wait(lambda: made.pipeline.path("views").exists(), killed)
        killed.kill()
        killed.wait()
    with _command(made) as second:
        _wait(lambda: "image_index" in _said(made, 2), second)
        third = _ended(made)
        second.wait(SECONDS)
    objections = [] if second.returncode == 0 else [f"the second run ends with {second.returncode}"]
    told = third.stderr.strip().splitlines()
    if third.returncode != 1 or len(told) != 1 or "under way" not in told[0]:
        objections.append(f"the third run says: {told}")
    with made.pipeline.instance() as instance:
        ended = [run.status for run in instance.get_runs(dg.RunsFilter())]
    if dg.DagsterRunStatus.STARTED in ended or dg.DagsterRunStatus.FAILURE not in ended:
        objections.append(f"runs are {[status.value for status in ended]}")
    return Outcome(made, second.returncode == 0, _said(made, 2), objections)


@contextlib.contextmanager
def _command(made: Made) -> Iterator[subprocess.Popen[bytes]]:
    """`iv-pipeline run` in the background; what it says is kept in a file, one for each."""
    number = len(list(made.folder.glob("run-*.log"))) + 1
    with (made.folder / f"run-{number}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "iv_pipeline.cli", "run"],
            cwd=REPOSITORY,
            env=made.pipeline.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _said(made: Made, number: int) -> str:
    return (made.folder / f"run-{number}.log").read_text(encoding="utf-8")


def _wait(condition: object, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + SECONDS
    while not condition() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)


def _ended(made: Made) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "iv_pipeline.cli", "run"],
        cwd=REPOSITORY,
        env=made.pipeline.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def without_a_home(made: Made) -> Outcome:
    """The package and the delivery on read-only file systems, and no home: written is under the data root."""
    shutil.rmtree(made.folder / "root", ignore_errors=True)
    (made.folder / "root").mkdir()
    package = REPOSITORY / "iv_pipeline"
    readonly = " && ".join(
        f'mount --bind "{path}" "{path}" && mount -o remount,ro,bind "{path}"'
        for path in (package, made.pipeline.delivery, *_site_packages())
    )
    env = made.pipeline.environment | {"HOME": "/proc/nohome"}
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        env.pop(name, None)
    return _in_namespace(made, readonly, env)


def _site_packages() -> list[Path]:
    import umap

    return [Path(umap.__file__).resolve().parent.parent]


def on_a_full_disk(made: Made) -> Outcome:
    """Data roots of 6 and of 2 MB: one sentence, and what was there stays."""
    outcomes = []
    for size in ("6m", "2m"):
        root = made.pipeline.root
        root.mkdir(exist_ok=True)
        mount = f'mount -t tmpfs -o size={size} tmpfs "{root}" && echo kept > "{root}/before.txt"'
        outcome = _in_namespace(made, mount, made.pipeline.environment, f'cat "{root}/before.txt"')
        objections = []
        if outcome.finished:
            objections.append(f"{size}: it ends with 0")
        if outcome.has_traceback:
            objections.append(f"{size}: {outcome.happened}")
        if not any("disk is full" in line or "no space" in line.lower() for line in outcome.lines):
            objections.append(f"{size}: not said that the disk is full; {outcome.happened}")
        if "kept" not in outcome.lines:
            objections.append(f"{size}: what was there before is gone")
        outcomes.append(replace(outcome, objections=objections))
    return replace(outcomes[0], objections=[text for o in outcomes for text in o.objections])


def _in_namespace(made: Made, before: str, env: dict[str, str], after: str = "true") -> Outcome:
    """`iv-pipeline run` in a mount namespace of its own."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        raise SkippedError("this machine allows no mount namespaces (unshare -m)")
    python = BIN / "python"
    script = f'{before} || exit 99; "{python}" -m iv_pipeline.cli run; status=$?; {after}; exit $status'
    ran = subprocess.run(
        ["unshare", "-m", "bash", "-c", script],
        cwd=REPOSITORY,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    if ran.returncode == 99:
        raise SkippedError(f"this machine does not mount: {ran.stdout.strip()}")
    return Outcome(made, ran.returncode == 0, ran.stdout)
