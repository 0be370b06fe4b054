"""Measures every stage on a delivery of a given size, and the usual way beside it.

Each stage runs as Dagster runs it, ``dagster asset materialize``, in a process of its own, so that its memory is
its own; the seconds that the stage itself reports leave the start of that process out. The result is printed
and appended to a JSON file, from which ``python -m benchmarks.report`` writes RESULTS.md and the chart.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.machine import commit_of, describe_machine
from benchmarks.site import CONFIG, MIB, REPOSITORY, Site, needed_bytes
from benchmarks.tables import (
    comparison_table,
    labelled_table,
    limited_sentences,
    megabytes,
    seconds,
    stage_table,
    usual_sentences,
    whole_sentence,
)
from iv_pipeline.automation import FULL_PIPELINE, PREPARE, SUMMARISE
from iv_pipeline.config import SCALERS
from iv_pipeline.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESULTS = Path(__file__).parent / "results.json"
STAGES = (*PREPARE, *FULL_PIPELINE, *SUMMARISE)
LIMITED = ("init", "statistics", "pca", "scaled_pca")
"""The chain that runs under ``--limit-anonymous``."""
NEW_ROWS = 100_000
PRIVATE = ("work", "results", "keep")
"""Options that say where things lie, not what is measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0 if every stage succeeded."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.whole and given.limit_anonymous:
        parser.error("--limit-anonymous runs some stages, --whole all of them: ask for one of the two")
    try:
        return _run(given, command_of(parser, given))
    except InputError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    add = parser.add_argument
    add("--rows", type=int, required=True, help="images in the delivery")
    add("--seed", type=int, default=0, help="of the delivery")
    add("--images", action="store_true", help="with small pictures, so that image_quality has work to do")
    add("--descriptors", nargs="+", help="partitions to run; all by default")
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help="all by default")
    add(
        "--whole",
        action="store_true",
        help="the whole run in one process, as `make run` does, instead of stages and the usual way",
    )
    add("--usual", action=argparse.BooleanOptionalAction, default=True, help="measure the usual way as well")
    add("--usual-scalers", nargs="+", choices=SCALERS, default=["standard"], help="of the usual way")
    add("--usual-limit", type=float, default=3600, metavar="SECONDS", help="after which it is ended")
    add(
        "--usual-memory",
        type=int,
        metavar="MIB",
        help="that it may map; 90 %% of what is available by default",
    )
    add(
        "--new-rows",
        type=int,
        metavar="ROWS",
        help="to label with each model; as many as --rows by default, 100,000 at most, 0 for none",
    )
    add(
        "--limit-anonymous", type=int, metavar="MIB", help=f"only run {', '.join(LIMITED)} within this memory"
    )
    add(
        "--work",
        type=Path,
        default=REPOSITORY / "data" / "benchmark",
        help="folder, removed at the end",
    )
    add("--config", type=Path, default=CONFIG, help="pipeline.yaml by default")
    add("--keep", action="store_true", help="keep that folder, and every table in it")
    add("--results", type=Path, default=RESULTS, help="file that the measurements are appended to")
    return parser


def command_of(parser: argparse.ArgumentParser, given: argparse.Namespace) -> str:
    """The command that measures the same again, without where it worked."""
    words = parser.prog.split()
    for name, value in vars(given).items():
        if name in PRIVATE or value == parser.get_default(name):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _run(given: argparse.Namespace, command: str) -> int:
    site = Site(given.work.absolute(), given.config.absolute())
    config = site.config
    descriptors = given.descriptors or config.partitions
    for name in descriptors:
        config.blocks(name)  # refuses unknown ones
    site.require_room(needed_bytes(given.rows, config, descriptors, given.keep or given.whole))
    record: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M"),
        "command": command,
        "commit": commit_of(REPOSITORY),
        "machine": describe_machine(),
        "rows": given.rows,
        "seed": given.seed,
    }
    try:
        began = time.perf_counter()
        site.prepare(given.rows, given.seed, given.images)
        _say(
            f"delivery of {given.rows:,} rows in {time.perf_counter() - began:.0f} s (not part of the benchmark)"
        )
        if given.limit_anonymous:
            record["limited"] = _limited(site, descriptors, given)
        else:
            record["labelled"], record["stages"] = [], []
            if given.whole:
                record["whole"] = site.whole(descriptors)
                _say(whole_sentence(record["whole"]))
                record["labelled"] = [
                    _labelled(site, name, given) for name in descriptors if _new_rows(given)
                ]
            else:
                record["stages"] = list(_stages(site, descriptors, given, record["labelled"]))
            record["usual"] = (
                list(_usual(site, descriptors, given)) if given.usual and not given.whole else []
            )
    finally:
        if not given.keep:
            shutil.rmtree(site.folder, ignore_errors=True)
    append_record(given.results, record)
    _show(record)
    measured = [
        *record.get("stages", []),
        *record.get("labelled", []),
        *([record["whole"]] if "whole" in record else []),
    ]
    measured += [stage for run in record.get("limited", []) for stage in run["stages"]]
    return 0 if all(each["succeeded"] for each in measured) else 1


def _stages(
    site: Site, descriptors: Sequence[str], given: argparse.Namespace, labelled: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Measure the stages, chain by chain; a chain ends with the first that fails.

    Where clusters were made, their models label new rows; what that took is added to `labelled`.
    """
    chains: list[tuple[tuple[str, ...], str | None]] = [(PREPARE, None)]
    chains += [(FULL_PIPELINE, name) for name in descriptors]
    for stages, descriptor in [*chains, (SUMMARISE, None)]:
        for stage in stages:
            if stage not in given.stages:
                continue
            measured = _told(site.materialize(stage, descriptor))
            yield measured
            if not measured["succeeded"]:
                break
            if descriptor and stage == "clusters" and _new_rows(given):
                labelled.append(_labelled(site, descriptor, given))
        if descriptor and not given.keep:
            site.discard(descriptor)


def _new_rows(given: argparse.Namespace) -> int:
    return min(given.rows, NEW_ROWS) if given.new_rows is None else int(given.new_rows)


def _labelled(site: Site, descriptor: str, given: argparse.Namespace) -> dict[str, Any]:
    labelled = site.label(descriptor, given.rows, _new_rows(given), given.seed)
    _say(labelled_table([labelled]))
    return labelled


def _usual(site: Site, descriptors: Sequence[str], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    memory = (given.usual_memory or int(0.9 * psutil.virtual_memory().available / MIB)) * MIB
    for descriptor in descriptors:
        way = site.usual(descriptor, given.usual_scalers, given.usual_limit, memory)
        _say(f"usual way · {usual_sentences([way])[0]}")
        yield way


def _limited(site: Site, descriptors: Sequence[str], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the chain of each descriptor within a limit of memory; a chain ends with the first that fails."""
    _told(site.materialize("image_index", None))
    runs = []
    for descriptor in descriptors:
        stages: list[dict[str, Any]] = []
        for stage in LIMITED:
            stages.append(_told(site.materialize(stage, descriptor, given.limit_anonymous * MIB)))
            if not stages[-1]["succeeded"]:
                break
        runs.append(
            {
                "descriptor": descriptor,
                "rows": given.rows,
                "limit_mib": given.limit_anonymous,
                "stages": stages,
            }
        )
        if not given.keep:
            site.discard(descriptor)
    return runs


def _told(measured: dict[str, Any]) -> dict[str, Any]:
    facts = [
        measured["stage"],
        measured["descriptor"],
        f"{seconds(measured['wall_seconds'])} s",
        f"{megabytes(measured['anonymous_bytes'])} MB",
        f"FAILED: {measured['reason']}" if measured["reason"] else "",
    ]
    _say(" · ".join(fact for fact in facts if fact))
    return measured


def append_record(results: Path, record: dict[str, Any]) -> None:
    """Add a record to the file of results; the file is replaced when it is whole."""
    records = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    temporary = results.with_name(f".{results.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps([*records, record], indent=1) + "\n", encoding="utf-8")
    temporary.replace(results)


def _show(record: dict[str, Any]) -> None:
    if "limited" in record:
        _say("", *limited_sentences(record["limited"]))
        return
    if record["stages"]:
        _say("", stage_table(record["stages"]))
    if record["labelled"]:
        _say("", labelled_table(record["labelled"]))
    if record["usual"]:
        if compared := comparison_table(record["stages"], record["usual"]):
            _say("", compared)
        _say("", *usual_sentences(record["usual"]))


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
