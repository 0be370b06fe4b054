"""What a command takes: seconds, memory and bytes, of its process and of those that it starts."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

INTERVAL_SECONDS = 0.02
TREE_SECONDS = 0.25
"""Between looks for new children: finding them costs milliseconds, which the watched process would lack."""
FORK_SECONDS = 0.1
"""A child younger than this may still share its parent's memory, which must not count twice."""
KIB = 1024


@dataclass
class Usage:
    """What a command took.

    Attributes
    ----------
    returncode
        As of `subprocess.Popen`: negative if a signal ended it.
    over_time
        Whether it was ended because of its time limit.
    wall_seconds, cpu_seconds
        From start to end; user and system together.
    anonymous_bytes
        Most anonymous memory (``RssAnon``) of the process tree at once, by samples `INTERVAL_SECONDS` apart.
    largest_bytes
        Most anonymous memory of a single process of the tree.
    mapped_bytes
        Most memory that maps files (``RssFile``): page cache, which the kernel takes back when it needs it.
    read_bytes, written_bytes
        From and to the disk, as the kernel counts them; what the page cache already has is not read.
    """

    returncode: int = 0
    over_time: bool = False
    wall_seconds: float = 0
    cpu_seconds: float = 0
    anonymous_bytes: int = 0
    largest_bytes: int = 0
    mapped_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def watch(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    time_limit: float | None = None,
    data_limit: int | None = None,
) -> Usage:
    """Run a command to its end, and measure it.

    Parameters
    ----------
    command
        Program and arguments.
    environment
        All of its environment.
    log
        File for what it prints; overwritten.
    time_limit
        Seconds after which it is ended; None for no limit.
    data_limit
        Limit in bytes on the private writable memory that each of its processes maps (``RLIMIT_DATA``), used
        or not: allocators' reserves and the stacks of threads count, maps of files for reading do not.
    """
    usage = Usage()
    began = seen = time.perf_counter()
    with log.open("wb") as sink, _started(command, environment, sink, data_limit) as process:
        tree = [process.pid]
        # waitid leaves the process a zombie, whose counters can still be read
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            if time_limit is not None and time.perf_counter() - began > time_limit:
                usage.over_time = True
                os.killpg(process.pid, signal.SIGKILL)
            if time.perf_counter() - seen > TREE_SECONDS:
                tree, seen = _tree(process.pid), time.perf_counter()
            _sample(tree, usage)
            time.sleep(INTERVAL_SECONDS)
        usage.wall_seconds = time.perf_counter() - began
        counters = _numbers(Path(f"/proc/{process.pid}/io"))
        usage.read_bytes, usage.written_bytes = counters["read_bytes"], counters["write_bytes"]
        _, status, resources = os.wait4(process.pid, 0)
        usage.returncode = process.returncode = os.waitstatus_to_exitcode(status)
    usage.cpu_seconds = resources.ru_utime + resources.ru_stime
    return usage


@contextlib.contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str], sink: Any, data_limit: int | None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process in a group of its own, which does not outlive the block."""
    process = subprocess.Popen(  # noqa: S603 (the commands are this package's own)
        command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
    )
    try:
        if data_limit is not None:  # in force for whatever is mapped from now on
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (data_limit, data_limit))
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _sample(tree: list[int], usage: Usage) -> None:
    """Raise the peaks of `usage` to what the process tree holds now."""
    anonymous = largest = mapped = 0
    for each in tree:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            numbers = _numbers(Path(f"/proc/{each}/status"))
            own = KIB * numbers.get("RssAnon", 0)
            anonymous, largest = anonymous + own, max(largest, own)
            mapped += KIB * numbers.get("RssFile", 0)
    usage.anonymous_bytes = max(usage.anonymous_bytes, anonymous)
    usage.largest_bytes = max(usage.largest_bytes, largest)
    usage.mapped_bytes = max(usage.mapped_bytes, mapped)


def _tree(pid: int) -> list[int]:
    """The process and its descendants, but for those just forked."""
    grown = time.time() - FORK_SECONDS
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [pid, *(child.pid for child in children if child.create_time() < grown)]


def _numbers(file: Path) -> dict[str, int]:
    """The entries of a file of ``name: number [unit]`` under ``/proc``."""
    entries = (line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) for words in entries if len(words) > 1 and words[1].isdecimal()
    }
