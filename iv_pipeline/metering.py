"""What a stage costs: seconds, and the most anonymous memory it held; and giving back what is no longer used."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from typing import Self

import psutil
import pyarrow as pa

INTERVAL_SECONDS = 0.05
WORTH_RELEASING_BYTES = 1_000_000_000


def release_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it for itself.

    A run goes through its stages in one process; what a large stage has freed would stay with it till the end.
    Small processes are left alone: looking for what can be freed takes half a second each time.
    """
    if anonymous_bytes(psutil.Process()) < WORTH_RELEASING_BYTES:
        return
    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)


def anonymous_bytes(process: psutil.Process) -> int:
    """Memory of a process that cannot be read again from a file."""
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


class Meter:
    """Watches this process from entering the block until it is left.

    Anonymous memory is what cannot be read again from a file: the page cache behind a memory map does not count.

    Attributes
    ----------
    peak_anonymous_bytes
        The highest reading so far; readings are `INTERVAL_SECONDS` apart.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stop = threading.Event()
        self._process = psutil.Process()
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="meter")
        self.peak_anonymous_bytes = anonymous_bytes(self._process)

    @property
    def seconds(self) -> float:
        """Seconds since the block was entered."""
        return time.perf_counter() - self._began

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            self.peak_anonymous_bytes = max(self.peak_anonymous_bytes, anonymous_bytes(self._process))
