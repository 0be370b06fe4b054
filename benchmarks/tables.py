"""Measurements as tables, for the terminal and for Markdown alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Measured = Mapping[str, Any]

REDUCING = ("init", "statistics", "pca", "scaled_pca")
"""The stages that do what the usual way does by loading, scaling and PCA, for three scalers at once."""
STORING = ("scaled",)
"""The stage that stores the scaled vectors, which nobody needs on the way to the reduced ones."""
CLUSTERING = ("clustering_trials", "neighbors", "hierarchy", "clusters")
"""The stages that choose and fit the clustering."""


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, aligned so that it can be read as it is; all columns but the first two to the right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        left = (cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
        right = (cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
        return f"| {' | '.join([*left, *right])} |"

    rule = ["-" * width for width in widths[:2]] + ["-" * (width - 1) + ":" for width in widths[2:]]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def stage_table(stages: Iterable[Measured]) -> str:
    """What each stage took."""
    header = ["stage", "descriptor", "process s", "stage s", "CPU s", "anonymous MB", "mapped MB", "read MB"]
    return markdown([*header, "written MB"], map(_stage_row, stages))


def _stage_row(stage: Measured) -> list[str]:
    return [
        stage["stage"] if stage["succeeded"] else f"{stage['stage']} FAILED",
        stage["descriptor"] or "",
        seconds(stage["wall_seconds"]),
        "" if stage["stage_seconds"] is None else seconds(stage["stage_seconds"]),
        seconds(stage["cpu_seconds"]),
        *(megabytes(stage[f"{what}_bytes"]) for what in ("anonymous", "mapped", "read", "written")),
    ]


def comparison_table(stages: Sequence[Measured], usual: Iterable[Measured]) -> str:
    """The usual way against the stages that do the same, and those that choose and fit the clustering.

    Empty where none of them ran.
    """
    header = ["descriptor", "what", "usual s", "stages s", "ratio", "processes s"]
    header += ["usual MB", "stages MB", "ratio of MB"]
    rows = [row for way in usual for row in _comparison_rows(way, stages)]
    return markdown(header, rows) if rows else ""


def _comparison_rows(way: Measured, stages: Sequence[Measured]) -> Iterable[list[str]]:
    scalers = len(way["scalers"])
    before = f"load, scale, PCA (usual: {scalers} scaler{'s' * (scalers > 1)}; pipeline: 3)"
    reducing = _of(stages, way["descriptor"], REDUCING)
    if reducing:
        yield _compare(way, before, ("load", "scale", "pca"), reducing)
    storing = _of(stages, way["descriptor"], STORING)
    if reducing and storing:
        yield _compare(way, "and store the scaled vectors", ("load", "scale", "pca"), [*reducing, *storing])
    clustering = _of(stages, way["descriptor"], CLUSTERING)
    if reducing and clustering:
        what = "and cluster (usual: KMeans, k = 5; pipeline: trials, graph, all algorithms)"
        yield _compare(way, what, ("load", "scale", "pca", "kmeans"), [*reducing, *clustering])


def _of(stages: Sequence[Measured], descriptor: str, names: Sequence[str]) -> list[Measured]:
    """The stages `names` of a descriptor if all that ran succeeded, and none of them is missing."""
    found = [s for s in stages if s["descriptor"] == descriptor and s["stage"] in names and s["succeeded"]]
    return found if len(found) == len(names) else []


def _compare(way: Measured, what: str, steps: Sequence[str], stages: Sequence[Measured]) -> list[str]:
    """One row; where the usual way did not end its steps, all that it took is the least that they would take."""
    is_whole = sum(step["step"] == steps[-1] for step in way["steps"]) == len(way["scalers"])
    spent = sum(step["seconds"] for step in way["steps"] if step["step"] in steps)
    mark, usual = ("", spent) if is_whole else ("> ", way["wall_seconds"])
    ours = sum(stage["stage_seconds"] for stage in stages)
    peak = max(stage["anonymous_bytes"] for stage in stages)
    return [
        way["descriptor"],
        what,
        mark + seconds(usual),
        seconds(ours),
        f"{mark}{usual / ours:.1f}",
        seconds(sum(stage["wall_seconds"] for stage in stages)),
        mark + megabytes(way["anonymous_bytes"]),
        megabytes(peak),
        f"{mark}{way['anonymous_bytes'] / peak:.1f}",
    ]


def usual_sentences(usual: Iterable[Measured]) -> list[str]:
    """How the usual way ended for each descriptor: its steps, or why it did not come to its end."""
    return [_usual_sentence(way) for way in usual]


def _usual_sentence(way: Measured) -> str:
    steps = [
        f"{step['step']} {seconds(step['seconds'])} s"
        + (f" ({step['n_components']} components)" if "n_components" in step else "")
        for step in way["steps"]
    ]
    end = "" if way["succeeded"] else f"; did not end: {way['reason']}"
    return f"{way['descriptor']}, {' and '.join(way['scalers'])}: {', '.join(steps) or 'nothing'}{end}"


def whole_sentence(whole: Measured) -> str:
    """What the whole run took, in one process."""
    if not whole["succeeded"]:
        return f"FAILED: the whole run, `make run`: {whole['reason']}"
    minutes, rest = divmod(round(whole["wall_seconds"]), 60)
    return (
        f"The whole run, `make run`, one process for {', '.join(whole['descriptors'])}: {minutes} min {rest} s "
        f"({seconds(whole['cpu_seconds'])} s of CPU), at most {megabytes(whole['anonymous_bytes'])} MB of "
        f"anonymous memory with its helpers{_largest(whole)}; {megabytes(whole['read_bytes'])} MB read from "
        f"the disk, {megabytes(whole['written_bytes'])} MB written to it."
    )


def _largest(whole: Measured) -> str:
    if "largest_bytes" not in whole:
        return ""
    text = f" and {megabytes(whole['largest_bytes'])} MB in any process"
    told = [stage for stage in whole["stages"] if "anonymous_bytes" in stage]
    if not told:
        return text
    most = max(told, key=lambda stage: stage["anonymous_bytes"])
    of = f" of {most['descriptor']}" if most["descriptor"] else ""
    return f"{text} (in `{most['stage']}`{of})"


def whole_table(whole: Measured) -> str:
    """Seconds that each stage of a whole run reported: a row a stage, a column a descriptor."""
    shared = [stage for stage in whole["stages"] if stage["descriptor"] is None]
    rows = [
        [stage["stage"], "once", seconds(stage["stage_seconds"]), *[""] * len(whole["descriptors"])]
        for stage in shared
    ]
    by = {(s["stage"], s["descriptor"]): s["stage_seconds"] for s in whole["stages"] if s["descriptor"]}
    rows += [
        [name, "each", "", *(seconds(by[name, d]) for d in whole["descriptors"])]
        for name in dict.fromkeys(stage for stage, _ in by)
    ]
    return markdown(["stage", "made", "all, s", *(f"{d}, s" for d in whole["descriptors"])], rows)


def labelled_table(labelled: Sequence[Measured]) -> str:
    """What labelling new rows took, by every algorithm."""
    header = [
        "descriptor",
        "algorithm",
        "rows of the fit",
        "new rows",
        "loading s",
        "labelling s",
        "in no cluster",
    ]
    rows = [
        [
            run["descriptor"],
            line["algorithm"],
            f"{run['fitted']:,}",
            f"{run['rows']:,}",
            seconds(line["load_seconds"]),
            seconds(line["label_seconds"]),
            f"{line['noise_share']:.1%}",
        ]
        for run in labelled
        for line in run["algorithms"]
    ]
    rows += [[run["descriptor"], f"FAILED: {run['reason']}", *[""] * 5] for run in labelled if run["reason"]]
    return markdown(header, rows)


def engine_table(engines: Iterable[Measured]) -> str:
    """What finding the neighbors took, by every engine."""
    header = ["descriptor", "engine", "features", "seconds", "recall@15", "how"]
    rows = [
        [
            e["descriptor"],
            e["engine"],
            str(e["n_features"]),
            seconds(e["seconds"]),
            f"{e['recall']:.3f}",
            e["how"],
        ]
        for e in engines
    ]
    return markdown(header, rows)


def limited_sentences(runs: Iterable[Measured]) -> list[str]:
    """Whether the chains under a limit of memory passed."""
    return [_limited_sentence(run) for run in runs]


def _limited_sentence(run: Measured) -> str:
    failed = [stage for stage in run["stages"] if not stage["succeeded"]]
    chain = ", ".join(stage["stage"] for stage in run["stages"])
    most = megabytes(max(stage["anonymous_bytes"] for stage in run["stages"]))
    where = f"{run['descriptor']}, {run['rows']:,} rows, at most {run['limit_mib']:,} MiB of private memory"
    if failed:
        return f"FAILED: {where}: {failed[0]['stage']}: {failed[0]['reason']}"
    return f"passed: {where}: {chain}; the most that was used is {most} MB"


def seconds(value: float) -> str:
    """Seconds with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def megabytes(value: float) -> str:
    """Bytes as MB (10⁶)."""
    return f"{value / 1e6:,.0f}"
