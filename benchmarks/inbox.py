"""Time from a complete batch in the inbox to its labels, with Dagster's daemon, and what of it is start-up.

A delivery is made and the pipeline run on it; then a batch of other vehicles of the same cameras is moved into the
inbox with its marker. Printed are the seconds from there until the sensor asked for a run, until its first stage
began, until the labels of all descriptors lay there, and until their drift was known. With ``--refit`` the batch
then joins the fit, in a process of its own.

    python -m benchmarks.inbox --rows 5000 --batch 10000 --refit

Pictures of the batch are 20 kB of noise each: labelling copies them and reads their checksums, and looks at none.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from benchmarks.labelling import new_rows
from benchmarks.machine import describe_machine
from benchmarks.site import CONFIG, MIB, REPOSITORY, Site, last_error, needed_bytes
from benchmarks.stream import stream_array
from benchmarks.watch import watch
from iv_pipeline.errors import InputError
from iv_pipeline.storage.layout import WATCH, file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BATCH = "monday"
PROGRAMS = Path(sys.executable).parent
REFIT = ("job", "execute", "-m", "iv_pipeline.definitions", "-j", "refit")
LOOK_SECONDS = 0.05
PICTURE_BYTES = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inbox", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000, help="images of the delivery")
    parser.add_argument("--batch", type=int, default=10_000, help="images of the batch")
    parser.add_argument("--refit", action="store_true", help="of the delivery and the batch, afterwards")
    parser.add_argument("--config", type=Path, default=CONFIG, help="pipeline.yaml by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=REPOSITORY / "data" / "benchmark-inbox")
    given = parser.parse_args(arguments)
    site = Site(given.work.absolute(), given.config.absolute())
    try:
        needed = needed_bytes(given.rows + given.batch, site.config, site.config.partitions, keep=True)
        site.require_room(2 * needed if given.refit else needed)  # a candidate has all files once more
    except InputError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    try:
        return _measured(site, given)
    finally:
        shutil.rmtree(site.folder, ignore_errors=True)


def _measured(site: Site, given: argparse.Namespace) -> int:
    site.prepare(given.rows, given.seed, images=True)
    made = site.whole(list(site.config.partitions))
    if not made["succeeded"]:
        sys.stderr.write(f"the pipeline failed: {made['reason']}\n")
        return 1
    batch = write_batch(site, given.rows, given.batch, given.seed)
    _say(f"pipeline on {given.rows:,} images: {made['wall_seconds']:.0f} s", str(describe_machine()))
    _say(*told(measure(site, batch)))
    return _refit(site) if given.refit else 0


def _refit(site: Site) -> int:
    """Take the batch into the fit, and say what that took and how it ended."""
    log = site.folder / "refit.log"
    usage = watch([str(PROGRAMS / "dagster"), *REFIT], site.environment, log)
    if usage.returncode:
        sys.stderr.write(f"the refit failed: {last_error(log, usage)}\n")
        return 1
    decided = pd.read_csv(site.root / file_of("refits"))
    _say(
        f"refit: {usage.wall_seconds:.0f} s, at most {usage.anonymous_bytes / MIB:,.0f} MiB of anonymous memory",
        decided.to_string(index=False),
    )
    return 0


def write_batch(site: Site, fitted: int, rows: int, seed: int) -> Path:
    """A batch of `rows` images of the vehicles that come next, with its marker."""
    folder = site.folder / BATCH
    (folder / "descriptors").mkdir(parents=True)
    for name in site.config.descriptors:
        vectors = new_rows(name, fitted, rows, seed)
        with (folder / "descriptors" / f"{name}.pickle").open("wb") as file:
            stream_array(file, vectors.shape, iter([vectors]))
    paths = [f"veriwild/{BATCH}/{i:06}.jpg" for i in range(rows)]
    with (folder / "images_paths.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["paths"], *([path] for path in paths)])
    archive = folder / str(site.config.delivery.archive)
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as pictures:
        for path in paths:
            pictures.writestr(path, os.urandom(PICTURE_BYTES))
    (folder / site.config.inbox.marker).touch()
    return folder


def measure(site: Site, batch: Path) -> dict[str, float]:
    """Seconds from the moment when the batch is complete, by what had happened then."""
    inbox, record = site.root / "Inbox", site.root / "Final" / "batches" / BATCH / "batch.json"
    drift = site.root / "Drift" / f"{BATCH}.parquet"
    inbox.mkdir(exist_ok=True)
    with _daemon(site), dg.DagsterInstance.from_config(str(site.home)) as instance:
        _wait((site.root / WATCH).exists)
        began = time.time()
        batch.rename(inbox / BATCH)
        _wait(drift.exists)
        (run,) = [r for r in instance.get_run_records() if r.dagster_run.job_name == "label_batch"]
        starts = instance.all_logs(run.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_START)
    return {
        "noticed": run.create_timestamp.timestamp() - began,
        "first stage began": min(event.timestamp for event in starts) - began,
        "labels of all descriptors": record.stat().st_mtime - began,
        "drift": drift.stat().st_mtime - began,
    }


def told(seconds: dict[str, float]) -> Iterator[str]:
    """What was measured, a line each."""
    for what, after in seconds.items():
        yield f"{what}: after {after:.1f} s"
    start_up = seconds["first stage began"] - seconds["noticed"]
    share = start_up / seconds["labels of all descriptors"]
    yield f"start-up of the run: {start_up:.1f} s, {share:.0%} of the time to the labels"


@contextlib.contextmanager
def _daemon(site: Site) -> Iterator[None]:
    command = [str(PROGRAMS / "dagster-daemon"), "run", "-w", "workspace.yaml"]
    with (site.folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(  # noqa: S603  (the daemon beside this Python)
            command, cwd=REPOSITORY, env=site.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(daemon.pid, signal.SIGINT)
        daemon.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)  # what it started would write on into a folder that goes


def _wait(condition: Callable[[], bool], limit: float = 600) -> None:
    until = time.monotonic() + limit
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"nothing happened for {limit:.0f} s: look at the daemon's log")
        time.sleep(LOOK_SECONDS)


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
