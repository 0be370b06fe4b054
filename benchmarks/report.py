"""Writes RESULTS.md and the growth chart from the measurements that ``python -m benchmarks.run`` appended."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.run import RESULTS, STAGES
from benchmarks.tables import (
    comparison_table,
    engine_table,
    labelled_table,
    limited_sentences,
    markdown,
    seconds,
    stage_table,
    usual_sentences,
    whole_sentence,
    whole_table,
)
from iv_pipeline.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Record = Mapping[str, Any]
    Growth = dict[tuple[str, str], dict[int, float]]

CHART = "growth.svg"
STEADY_SECONDS = 0.5
"""What is faster than this is noise: it is left out of exponents, and stages that always are, of the chart."""

INTRODUCTION = """# Benchmarks

Written by `make benchmark ROWS=…` (or `python -m benchmarks.run`, then `python -m benchmarks.report`) from
`results.json`. Deliveries have the layout, dimensions and spectra of a real one (`benchmarks/delivery.py`).

- *process s*: a process of its own for the stage, its start (about three seconds of imports) included;
  *stage s*: what the stage reports with its materialization.
- *anonymous MB*: the most memory that cannot be read again from a file; *mapped MB*: page cache behind memory
  maps, which the kernel takes back when it needs it. Both are sampled every 20 ms over the process tree.
- *read MB*, *written MB*: from and to the disk as the kernel counts them; what the page cache has is not read.
- Labelling: loading is reading the model and, where it asks for neighbors, sorting the points of the fit.
- The usual way is `pickle.load`, a scaler, scikit-learn's `PCA(0.9)` with the solver that it picks, `KMeans(5)`.
  Its seconds, and those of the stages that they are compared with, leave imports out; *processes s* has them, once
  for each stage, where a run of the pipeline has them once.
- A limit on private memory is `RLIMIT_DATA`: it counts whatever is mapped privately and writable, used or not, the
  stacks of threads and the reserves of allocators included. Maps of files for reading do not count.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page and chart beside the measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    results: Path = parser.parse_args(arguments).results
    try:
        write_report(results)
    except InputError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    return 0


def write_report(results: Path) -> None:
    """Write ``RESULTS.md`` and the chart into the folder of `results`.

    Raises
    ------
    InputError
        If there are no measurements.
    """
    if not results.is_file():
        raise InputError(f"there is no file {results}: measure first, python -m benchmarks.run --rows 20000")
    records: list[Record] = json.loads(results.read_text(encoding="utf-8"))
    growth = {key: times for key, times in growth_of(records).items() if len(times) > 1}
    parts = [INTRODUCTION]
    if growth:
        parts += ["## Growth", growth_table(growth)]
    if slow := {key: times for key, times in growth.items() if max(times.values()) >= STEADY_SECONDS}:
        draw_growth(slow, results.with_name(CHART))
        parts.append(f"![Seconds of each stage over rows]({CHART})")
    limited = [run for record in records for run in record.get("limited", [])]
    if limited:
        parts += ["## Within a limit of memory", "\n".join(f"- {s}" for s in limited_sentences(limited))]
    for record in records:
        if "engines" in record:
            parts += [
                f"## Engines for {record['neighbors']} neighbors of {record['rows']:,} rows",
                f"`{record['command']}`",
                _when(record),
                engine_table(record["engines"]),
            ]
    ordered = sorted(
        (r for r in records if "stages" in r), key=lambda r: (r["rows"], r["date"]), reverse=True
    )
    parts += [_section(record) for record in ordered]
    results.with_name("RESULTS.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _when(record: Record) -> str:
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record["machine"].items())
    return f"{record['date']} UTC, commit {record['commit'] or 'unknown'}; {machine}."


def _section(record: Record) -> str:
    parts = [
        f"## {record['rows']:,} rows",
        f"`{record['command']}`",
        _when(record),
    ]
    if record["usual"]:
        parts.append(comparison_table(record["stages"], record["usual"]))
        parts.append("\n".join(f"- {sentence}" for sentence in usual_sentences(record["usual"])))
    if "whole" in record:
        parts += [whole_sentence(record["whole"]), whole_table(record["whole"])]
    parts.append(stage_table(record["stages"]) if record["stages"] else "")
    if record.get("labelled"):
        parts += ["New rows labelled with what was learnt:", labelled_table(record["labelled"])]
    return "\n\n".join(part for part in parts if part)


def growth_of(records: Iterable[Record]) -> Growth:
    """Seconds that stages report, by descriptor and stage and then by rows; the latest of equal sizes.

    Where a whole run says what a stage took, it counts: in a process of its own the stage pays for imports too.
    """
    records = list(records)
    alone = [(record["rows"], stage) for record in records for stage in record.get("stages", [])]
    whole = [(r["rows"], stage) for r in records if "whole" in r for stage in r["whole"]["stages"]]
    growth: Growth = {}
    for rows, stage in [*alone, *whole]:
        if stage["succeeded"]:
            key = (stage["descriptor"] or "", stage["stage"])
            growth.setdefault(key, {})[rows] = stage["stage_seconds"]
    ranks = {stage: rank for rank, stage in enumerate(STAGES)}
    return {
        key: dict(sorted(growth[key].items()))
        for key in sorted(growth, key=lambda key: (key[0], ranks.get(key[1], len(ranks))))
    }


def exponent(sizes: Mapping[int, float]) -> float | None:
    """Slope of seconds over rows on logarithmic axes by least squares: 1 is linear growth.

    None if fewer than two sizes took at least `STEADY_SECONDS`.
    """
    steady = [(math.log(rows), math.log(s)) for rows, s in sizes.items() if s >= STEADY_SECONDS]
    if len(steady) < 2:
        return None
    x_mean, y_mean = (sum(values) / len(steady) for values in zip(*steady, strict=True))
    covariance = math.fsum((x - x_mean) * (y - y_mean) for x, y in steady)
    return covariance / math.fsum((x - x_mean) ** 2 for x, _ in steady)


def growth_table(growth: Growth) -> str:
    """Seconds that each stage reports at each size, and the exponent of its growth."""
    sizes = sorted({rows for times in growth.values() for rows in times})
    rows = []
    for (descriptor, stage), times in growth.items():
        slope = exponent(times)
        shown = [seconds(times[size]) if size in times else "" for size in sizes]
        rows.append([stage, descriptor, *shown, "" if slope is None else f"{slope:.2f}"])
    return markdown(["stage", "descriptor", *(f"{size:,} rows, s" for size in sizes), "exponent"], rows)


def draw_growth(growth: Growth, path: Path) -> None:
    """One panel a descriptor, one line a stage, logarithmic axes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(descriptor for descriptor, _ in growth))
    sizes = sorted({rows for times in growth.values() for rows in times})
    colors = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    n_columns = min(len(panels), 3)
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(5 * n_columns, 4.2 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    for (descriptor, stage), times in growth.items():
        rank = STAGES.index(stage) if stage in STAGES else len(STAGES)
        dashes = "-" if rank < len(colors) else "--"
        axes = grid.flat[panels.index(descriptor)]
        axes.loglog(
            list(times),
            list(times.values()),
            dashes,
            marker="o",
            color=colors[rank % len(colors)],
            label=stage,
        )
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_title(panel or "all descriptors together", fontsize=10)
        axes.set_xticks(sizes, [f"{size / 1000:,.0f}k" for size in sizes])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
        axes.set_xlabel("rows")
        axes.set_ylabel("seconds of the stage")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    with mpl.rc_context({"svg.hashsalt": "growth"}):
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
