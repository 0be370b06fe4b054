"""A table of the small deliveries beside the repository: what is expected of each, and what happens now.

They are run one after another in a process that is replaced when one of them crashes or takes too long.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iv_pipeline_tests.cases.running import FOLDER, SkippedError
from iv_pipeline_tests.cases.table import CASES
from iv_pipeline_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

SECONDS = 600
"""That a delivery may take."""


@dataclass(frozen=True)
class Row:
    """What is told of one delivery."""

    name: str
    expected: str
    happened: str
    verdict: str
    seconds: float
    objections: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a delivery fails."""
    parser = argparse.ArgumentParser(prog="python -m iv_pipeline_tests.case_table", description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--case", nargs="+", choices=names, default=names, metavar="NAME", help="only these")
    parser.add_argument("--quick", action="store_true", help="only those that run no whole pipeline")
    parser.add_argument("--out", type=Path, help="write the table to this file as well")
    given = parser.parse_args(arguments)
    if not (FOLDER / "make.py").exists():
        parser.error(f"there are no deliveries in {FOLDER}: set IV_CASES to their folder")
    os.environ.setdefault("IV_CONFIG", str(REPOSITORY / "pipeline.yaml"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="cases-") as folder:
        worker = Worker(Path(folder))
        for name in _chosen(given.case, quick=given.quick):
            rows.append(worker.play(name))
            sys.stderr.write(f"{rows[-1].verdict:8}{name}  {rows[-1].seconds:.0f} s\n")
            if given.out:
                given.out.write_text(markdown(rows), encoding="utf-8")
        worker.end()
    sys.stdout.write(markdown(rows))
    return int(any(row.verdict == "fail" for row in rows))


def _chosen(names: Sequence[str], *, quick: bool) -> list[str]:
    return [case.name for case in CASES if case.name in names and not (quick and case.is_slow)]


def markdown(rows: Sequence[Row]) -> str:
    """The table, what fails in it, and counts."""
    lines = ["| case | expected | now | verdict | s |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.name, row.expected, _cut(row.happened), row.verdict, f"{row.seconds:.0f}")
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("pass", "fail", "skipped")}
    lines += ["", ", ".join(f"{count} {verdict}" for verdict, count in counts.items()), ""]
    for row in rows:
        lines += [f"- {row.name}: {_cut(objection, 1000)}" for objection in row.objections]
    return "\n".join(lines) + "\n"


def _cut(text: str, length: int = 240) -> str:
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return text if len(text) <= length else text[: length - 1] + "…"


class Worker:
    """A process that plays deliveries; it imports and compiles once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self._folder), daemon=False)
        self._process.start()
        other.close()

    def play(self, name: str) -> Row:
        """Play one delivery, in a new process if this one ends with it."""
        began = time.monotonic()
        self._pipe.send(name)
        try:
            if self._pipe.poll(SECONDS):
                found: Row = self._pipe.recv()
                return found
            what = f"not through after {SECONDS} s"
        except EOFError:
            what = "the process crashed"
        self.end()
        self._start()
        expected = next(case.words for case in CASES if case.name == name)
        return Row(name, expected, what, "fail", time.monotonic() - began, (what,))

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, folder: Path) -> None:
    cases = {case.name: case for case in CASES}
    while True:
        case = cases[pipe.recv()]
        began = time.monotonic()
        try:
            outcome, objections = case.play(folder / case.name)
            verdict, happened = "fail" if objections else "pass", outcome.happened
        except SkippedError as reason:
            verdict, happened, objections = "skipped", str(reason), []
        except Exception as error:  # noqa: BLE001  (a row of the table, as any other)
            traceback.print_exc()
            verdict, happened = "fail", f"the scenario ends with {type(error).__name__}: {error}"
            objections = [happened]
        pipe.send(Row(case.name, case.words, happened, verdict, time.monotonic() - began, tuple(objections)))


if __name__ == "__main__":
    sys.exit(main())
