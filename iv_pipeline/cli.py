"""The command `iv-pipeline`: draw the demo, run everything, look at it, show where Dagster keeps its history."""

from __future__ import annotations

import argparse
import importlib.resources
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from iv_pipeline.errors import InputError
from iv_pipeline.execution import one_sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import dagster as dg

    from iv_pipeline.config import Settings
    from iv_pipeline.execution import Outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if it did what was asked, 1 after one sentence on what was wrong."""
    parser = argparse.ArgumentParser(prog="iv-pipeline", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="materialize every stage of every descriptor")
    run.add_argument("descriptors", nargs="*", help="only these descriptors")
    run.add_argument(
        "--processes",
        type=_positive,
        help="descriptors at once; by default one a core, as many as there is memory for",
    )
    explore = commands.add_parser("explore", help="open a descriptor in Embedding Atlas; an optional extra")
    explore.add_argument("descriptor")
    explore.add_argument("--port", default="5055", help="of the page; 5055 by default")
    commands.add_parser("versions", help="list the versions of the models, and which one is in force")
    rollback = commands.add_parser("rollback", help="put an earlier version back in force, with its results")
    rollback.add_argument("version", type=int)
    commands.add_parser("demo", help="draw the demo delivery, if there is no delivery yet")
    commands.add_parser("env", help="print the exports that make the dagster command share the instance")
    given = parser.parse_args(arguments)
    try:
        if given.command == "run":
            return _run(given.descriptors, given.processes)
        if given.command == "explore":
            _explore(given.descriptor, given.port)
        elif given.command == "versions":
            _list_versions()
        elif given.command == "rollback":
            return _roll_back(given.version)
        elif given.command == "demo":
            _draw_demo()
        else:
            print(f"export DAGSTER_HOME={ensure_home()}")
            _end_stale_runs_of_home()
    except KeyboardInterrupt:
        print("iv-pipeline: interrupted; what was finished stays", file=sys.stderr)
        return 130
    except Exception as error:
        reason = one_sentence(error)
        if reason is None:  # a fault of ours: its traceback is what we need
            raise
        print(f"iv-pipeline: {reason}", file=sys.stderr)
        return 1
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number of at least 1")
    return int(text)


def ensure_home() -> Path:
    """Dagster's home: `DAGSTER_HOME`, or a folder under the data root; made, and configured, if need be."""
    root = os.environ.get("IV_DATA_ROOT") or "data"
    beside = Path("data" if "://" in root else root) / "dagster_home"  # a history needs a local folder
    home = Path(os.environ.get("DAGSTER_HOME") or beside).absolute()
    home.mkdir(parents=True, exist_ok=True)
    if "://" not in root:
        (Path(root) / "Inbox").mkdir(parents=True, exist_ok=True)  # a copy into it must not become it
    os.environ["DAGSTER_HOME"] = str(home)
    instance_file = home / "dagster.yaml"
    if not instance_file.exists():
        template = importlib.resources.files("iv_pipeline").joinpath("dagster.yaml")
        instance_file.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
        _limit_pools()
    return home


def _limit_pools() -> None:
    """Let one run hold a pool.

    Dagster meets a pool's default limit from its second look at the queue on; on the first, two heavy runs would
    start at once.
    """
    import dagster as dg

    from iv_pipeline.assets.stage import BATCH_POOL, HEAVY_POOL

    with dg.DagsterInstance.get() as instance:
        for pool in (HEAVY_POOL, BATCH_POOL):
            instance.event_log_storage.set_concurrency_slots(pool, 1)


def _draw_demo() -> None:
    from iv_pipeline.config import Settings

    settings = Settings.from_environment()
    if settings.delivery.exists():
        print(f"Delivery: {settings.delivery}")
        return
    if os.environ.get("IV_DELIVERY"):
        raise InputError(
            f"IV_DELIVERY names {settings.delivery}, and nothing is there", fix="correct it, or unset it"
        )
    from iv_pipeline.demo import draw_delivery

    print(f"No delivery in {settings.data_root}: drawing the demo delivery into {settings.delivery}")
    began = time.perf_counter()
    draw_delivery(Path(str(settings.delivery)), progress=lambda line: print(f"  {line}"))
    print(f"Demo delivery drawn in {time.perf_counter() - began:.0f} s")


def _run(descriptors: Sequence[str], processes: int | None) -> int:
    home = ensure_home()
    _draw_demo()
    import dagster as dg

    from iv_pipeline.config import Settings
    from iv_pipeline.definitions import build_definitions
    from iv_pipeline.processes import only_fit
    from iv_pipeline.storage.versions import settle

    settings = Settings.from_environment()  # again: the demo brings a delivery.yaml
    for name in descriptors:
        settings.config.blocks(name)
    definitions = build_definitions(settings)
    began = time.perf_counter()
    with (
        dg.DagsterInstance.get() as instance,
        only_fit(instance, beside={"refit"}, waiting=False) as busy,
    ):
        if busy:
            raise InputError(f"{busy} is under way", fix="wait for it, or terminate it")
        settle(settings.data_root)
        failed: list[str] = []
        notices: dict[str, None] = {}
        for name, outcome in _run_all(settings, definitions, instance, descriptors, processes):
            notices |= dict.fromkeys(outcome.notices)
            failed += [] if outcome.succeeded else [name]
            _tell(outcome.failures)
    _repeat(notices)
    if failed:
        what = ", ".join(failed)
        print(f"Failed: {what}; the reason stands above and in Dagster's UI: make ui", file=sys.stderr)
        return 1
    _say_where(settings, home, time.perf_counter() - began)
    return 0


def _run_all(
    settings: Settings,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    descriptors: Sequence[str],
    processes: int | None,
) -> Iterator[tuple[str, Outcome]]:
    """What comes before descriptors, each of them, and what compares them; each with how it ended."""
    from iv_pipeline.execution import choose_processes, execute, execute_side_by_side
    from iv_pipeline.processes import end_stale_runs
    from iv_pipeline.storage.formats import read_parquet
    from iv_pipeline.storage.layout import file_of

    prepared = execute(definitions, instance, "prepare")
    yield "prepare", prepared
    if not prepared.succeeded:
        return
    wanted = list(dict.fromkeys(descriptors or settings.config.partitions))
    n_rows = len(read_parquet(settings.data_root / file_of("image_index")))
    n_processes = min(processes or choose_processes(n_rows, len(wanted)), len(wanted))
    # combinations take longest: nothing is left to wait for them alone
    wanted.sort(key=lambda name: -len(settings.config.blocks(name)))
    runs: Iterator[tuple[str, Outcome]]
    if n_processes == 1:
        runs = ((name, execute(definitions, instance, "full_pipeline", name)) for name in wanted)
    else:
        runs = execute_side_by_side("full_pipeline", wanted, n_processes)
    some = False
    for name, outcome in runs:
        some |= outcome.succeeded
        yield name, outcome
    end_stale_runs(instance)  # of a process that was killed
    if some:  # the others can be compared even if one descriptor failed
        yield "summarise", execute(definitions, instance, "summarise")


def _list_versions() -> None:
    from iv_pipeline.config import Settings
    from iv_pipeline.storage.versions import accepted, known_versions, results_kept

    root = Settings.from_environment().data_root
    current, known = accepted(root), known_versions(root)
    if current is None:
        raise InputError(f"no models have been accepted in {root}", fix="run the pipeline first")
    for version, models in known.items():
        notes = ["in force"] if version == current.version else []
        notes += [] if results_kept(root, version) else ["results no longer kept"]
        joined = ", ".join(name for name, _ in models.batches) or "none"
        print(
            f"{version}  " + "; ".join([f"{len(models.models)} models", f"joined batches: {joined}", *notes])
        )


def _roll_back(version: int) -> int:
    ensure_home()
    import dagster as dg

    from iv_pipeline.config import Settings
    from iv_pipeline.definitions import build_definitions
    from iv_pipeline.execution import execute
    from iv_pipeline.processes import only_fit
    from iv_pipeline.storage.versions import REBUILT, roll_back, settle

    settings = Settings.from_environment()
    with dg.DagsterInstance.get() as instance, only_fit(instance) as busy:
        if busy:
            raise InputError(f"{busy} is under way", fix="wait for it, or terminate it")
        settle(settings.data_root)
        models = roll_back(settings.data_root, version)
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "accepted_models", metadata={"version": version}, description="by a rollback"
            )
        )
        print(f"Version {version} is in force: it labels what comes, and its results are in place")
        report = execute(build_definitions(settings), instance, "refresh_report")
    _tell(report.failures)
    if models.batches != ():
        print(f"Joined batches: {', '.join(name for name, _ in models.batches)}")
    others = ", ".join(stage for stage in REBUILT if stage != "report")
    print(f"Of the fit before until the next full_pipeline, for versions do not keep them: {others}")
    return 0 if report.succeeded else 1


def _explore(descriptor: str, port: str) -> None:
    """Become Embedding Atlas, so that Ctrl-C and its exit status are its own."""
    from iv_pipeline.config import Settings
    from iv_pipeline.explore import atlas_command

    command = atlas_command(
        Settings.from_environment(), descriptor, ["--host", "127.0.0.1", "--port", port, "--no-auto-port"]
    )
    print(f"Embedding Atlas of {descriptor}: http://127.0.0.1:{port}", flush=True)
    os.execv(command[0], command)  # noqa: S606  (the program that was found beside this one)


def _tell(failures: Iterable[str]) -> None:
    for failure in failures:
        print(failure, file=sys.stderr)


def _repeat(notices: Iterable[str]) -> None:
    """Say once more what the stages had to say of their input, where it is seen."""
    lines = list(notices)
    if lines:
        print(f"\nAbout this delivery ({len(lines)}):")
        print("\n".join(f"  - {line}" for line in lines))


def _end_stale_runs_of_home() -> None:
    import dagster as dg

    from iv_pipeline.processes import end_stale_runs

    with dg.DagsterInstance.get() as instance:
        end_stale_runs(instance)


def _say_where(settings: Settings, home: Path, seconds: float) -> None:
    root = settings.data_root
    print(
        f"""
Done in {seconds:.0f} s.
  Answers for every image  {root}/Final/attributes.csv
  What to ask people next  {root}/Final/review.csv
  Clusters by descriptor   {root}/Final/<descriptor>.csv
  Most suspicious first    {root}/Final/outliers.csv
  What was chosen, ranked  {root}/Final/summary.csv
  To look at               {root}/Report/index.html
  Dagster's history        {home}
Next: make ui, and open http://127.0.0.1:3000"""
    )


if __name__ == "__main__":
    sys.exit(main())
