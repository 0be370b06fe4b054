"""Map-reduce over batches of rows: the one place that decides where batch work runs.

A stage is a function mapped over batches plus an associative reduce. Threads do it by default: NumPy's kernels
and pyarrow's readers release the interpreter lock. Processes do it where that lock is held most of the time, by
Pillow. With a Dask scheduler (`use_cluster`) the same functions run on its workers, and results come in the same
order, so that they are the same results.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from threadpoolctl import threadpool_limits

from iv_pipeline.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

S = TypeVar("S")
T = TypeVar("T")

BATCH_ROWS = 8192
"""Rows of a batch: 80 MiB at 2,560 float32 features, large enough for BLAS and small for memory."""


class BatchedMatrix(Protocol):
    """A matrix of float32 rows that is read batch by batch, in any order.

    Attributes
    ----------
    shape
        ``(n_rows, n_features)``.
    n_batches
        Number of batches; all but the last hold the same number of rows.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_features)``."""
        ...

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        ...

    def batch(self, index: int) -> NDArray[np.float32]:
        """Rows of batch `index`, shape ``(rows_of_batch, n_features)``; may be a read-only view."""
        ...


@runtime_checkable
class Portable(Protocol):
    """Something that a worker on another machine can open by its path, instead of being sent the rows."""

    @property
    def is_portable(self) -> bool:
        """Whether pickling it costs no more than its path."""
        ...


class ArrayBatches:
    """A `BatchedMatrix` over an array in memory or a memory map.

    Parameters
    ----------
    array
        Shape ``(n_rows, n_features)``, any real dtype; batches are converted to float32.
    batch_rows
        Rows of a batch.
    """

    def __init__(self, array: NDArray[np.generic], batch_rows: int = BATCH_ROWS) -> None:
        self._array = array
        self._batch_rows = batch_rows

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_features)``."""
        return int(self._array.shape[0]), int(self._array.shape[1])

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return -(-len(self._array) // self._batch_rows)

    def batch(self, index: int) -> NDArray[np.float32]:
        """Rows of batch `index` as float32; values too large for float32 become infinite."""
        rows = self._array[index * self._batch_rows : (index + 1) * self._batch_rows]
        with np.errstate(over="ignore"):
            return np.asarray(rows, dtype=np.float32)


class SideBySide:
    """Matrices of the same rows beside each other, as one `BatchedMatrix`; their batches are equally long."""

    def __init__(self, blocks: Sequence[BatchedMatrix]) -> None:
        self._blocks = blocks
        self.shape = blocks[0].shape[0], sum(block.shape[1] for block in blocks)
        self.n_batches = blocks[0].n_batches

    def batch(self, index: int) -> NDArray[np.float32]:
        """Rows of batch `index`."""
        parts = [block.batch(index) for block in self._blocks]
        return parts[0] if len(parts) == 1 else np.hstack(parts)


def row_hashes(matrix: BatchedMatrix) -> NDArray[np.uint64]:
    """Hash of each row, the same for equal rows, shape ``(n_rows,)``; other rows hardly ever share one.

    The bits of the row times random odd numbers, added up modulo 2⁶⁴ (multilinear hashing, Lemire, Kaser 2014).
    """
    factors = np.random.default_rng(0).integers(0, 2**63, matrix.shape[1], dtype=np.uint64) * 2 + 1
    parts = list(map_ordered(lambda index: _hashed(matrix.batch(index), factors), matrix.n_batches))
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _hashed(rows: NDArray[np.float32], factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = np.ascontiguousarray(rows + np.float32(0)).view(np.uint32).astype(np.uint64)  # −0 equals 0
    bits *= factors
    hashed: NDArray[np.uint64] = bits.sum(axis=1, dtype=np.uint64)
    return hashed


def n_workers() -> int:
    """Threads to use: ``IV_THREADS`` if set, else the cores this process may run on."""
    given = os.environ.get("IV_THREADS")
    if given:
        return int(given)
    # macOS and Windows do not say which cores a process may use
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ordered(function: Callable[[int], T], n: int, workers: int | None = None) -> Iterator[T]:
    """Yield ``function(0), …, function(n - 1)`` in order, computed on threads a few ahead.

    At most two results a worker wait to be taken, so that memory stays flat however slow the consumer is.

    Parameters
    ----------
    function
        Takes an index; runs on any thread.
    n
        Number of calls.
    workers
        Threads; `n_workers` by default.
    """
    workers = min(workers or n_workers(), max(n, 1))
    if workers == 1:
        yield from map(function, range(n))
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from _in_order(pool, function, range(n), 2 * workers)


def _in_order(pool: Executor, function: Callable[[S], T], items: Iterable[S], n_ahead: int) -> Iterator[T]:
    """Yield what a pool makes of the items, in their order; `n_ahead` of them are under way."""
    remaining = iter(items)
    waiting: deque[Future[T]] = deque(
        pool.submit(function, item) for item in itertools.islice(remaining, n_ahead)
    )
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in itertools.islice(remaining, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()


@contextlib.contextmanager
def blas_threads(limit: int) -> Iterator[None]:
    """Limit the threads of BLAS while batches run in parallel, so that the cores are not oversubscribed."""
    with threadpool_limits(limit, user_api="blas"):
        yield


CONNECT_SECONDS = 20
_scheduler: str | None = None
_clients: dict[str, Any] = {}
"""The client of the scheduler in use by its address, once something was sent there."""
_connecting = Lock()


def use_cluster(scheduler: str | None) -> None:
    """Run batch work on the workers of a Dask scheduler, or on threads again.

    Parameters
    ----------
    scheduler
        Its address, such as ``tcp://10.0.0.5:8786``; None for threads. Workers need this package and the data
        root under the same path.
    """
    global _scheduler  # noqa: PLW0603  (where work runs is a fact about the process, not about a call)
    if scheduler != _scheduler:
        with _connecting:
            while _clients:  # one left open looks for its scheduler until this process ends
                _clients.popitem()[1].close()
    _scheduler = scheduler


def map_batches(function: Callable[[int], T], n: int) -> Iterator[T]:
    """`map_ordered`, on the cluster if there is one; what `function` refers to must be portable."""
    if _scheduler is None:
        return map_ordered(function, n)
    return _map_on_cluster([(function, i) for i in range(n)], _scheduler)


def map_each(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Yield ``function(item)`` of all items in order; a worker is sent nothing but the item."""
    if _scheduler is None:
        return map_ordered(lambda i: function(items[i]), len(items))
    return _map_on_cluster(((function, item) for item in items), _scheduler)


_MOST_PROCESSES = 61
"""Limit of a process pool on Windows."""
_worker: dict[str, Callable[[Any], Any]] = {}
"""What this process is there for, if `map_in_processes` has started it."""


def map_in_processes(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """`map_each` for functions that hold the interpreter lock most of the time: a process for each core.

    Each starts in seconds, with imports of its own.

    Parameters
    ----------
    function
        Can be pickled, as for a cluster.
    items
        Arguments, each sent to one process.

    Raises
    ------
    InputError
        If a process ends before its work is done.
    """
    n = min(n_workers(), len(items), _MOST_PROCESSES)
    if _scheduler is not None or n < 2:
        yield from map_each(function, items)
        return
    context = multiprocessing.get_context("spawn")  # threads of this process would not survive a fork
    try:
        with ProcessPoolExecutor(n, context, initializer=_begin_process, initargs=(function,)) as pool:
            yield from _in_order(pool, _work, items, 2 * n)
    except BrokenProcessPool as error:
        raise InputError(
            "a process that worked beside this one has ended, most often for want of memory",
            fix="work in this process alone: IV_THREADS=1",
        ) from error


def _work(item: Any) -> Any:
    return _worker["function"](item)


def _begin_process(function: Callable[[Any], Any]) -> None:
    """Keep what is to be done, use one core, leave an interrupt to the parent, and end with it."""
    _worker["function"] = function
    os.environ["IV_THREADS"] = "1"
    threadpool_limits(1, user_api="blas")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """End this process when the one that started it has ended, however that was."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def map_rows(function: Callable[[NDArray[np.float32]], T], matrix: BatchedMatrix) -> Iterator[T]:
    """Yield ``function(batch)`` of all batches in order; workers open a portable matrix or are sent its rows."""
    if _scheduler is None or (isinstance(matrix, Portable) and matrix.is_portable):
        return map_batches(lambda i: function(matrix.batch(i)), matrix.n_batches)
    return _map_on_cluster(((function, matrix.batch(i)) for i in range(matrix.n_batches)), _scheduler)


def _map_on_cluster(calls: Iterable[tuple[Callable[[Any], T], Any]], scheduler: str) -> Iterator[T]:
    """Submit calls a few ahead; Dask runs those of a worker that dies again on another one."""
    client = _client(scheduler)
    ahead = max(4, 2 * sum(client.nthreads().values()))
    waiting: deque[Any] = deque()
    for function, argument in calls:
        waiting.append(client.submit(_on_one_thread, function, argument, pure=False))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _on_one_thread(function: Callable[[Any], T], argument: Any) -> T:
    with blas_threads(1):
        return function(argument)


def _client(scheduler: str) -> Any:
    with _connecting:  # batches are mapped by several threads
        if scheduler not in _clients:
            _clients[scheduler] = _connect(scheduler)
        return _clients[scheduler]


def _connect(scheduler: str) -> Any:
    try:
        import distributed
    except ImportError:
        raise ConfigError(
            f"is {scheduler}, and the package 'distributed' is not installed",
            where="engine.scheduler",
            fix="install this package with its extra 'dask', or set it to null",
        ) from None
    try:
        connect: Callable[..., Any] = distributed.Client
        return connect(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError:
        raise ConfigError(
            f"no Dask scheduler answers at {scheduler}",
            where="engine.scheduler",
            fix="start it, or set it to null",
        ) from None
