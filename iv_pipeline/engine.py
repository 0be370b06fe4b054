"""Map-reduce over batches of rows: the one place that decides where batch work runs.

A stage is a function mapped over batches plus an associative reduce. Threads do it here; NumPy's kernels
and pyarrow's readers release the interpreter lock, so that they are all it takes on one machine.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

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


def n_workers() -> int:
    """Threads to use: ``IV_THREADS`` if set, else the cores this process may run on."""
    given = os.environ.get("IV_THREADS")
    return int(given) if given else len(os.sched_getaffinity(0))


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
        indices = iter(range(n))
        waiting: deque[Future[T]] = deque(
            pool.submit(function, i) for i in itertools.islice(indices, 2 * workers)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, i) for i in itertools.islice(indices, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


@contextlib.contextmanager
def blas_threads(limit: int) -> Iterator[None]:
    """Limit the threads of BLAS while batches run in parallel, so that the cores are not oversubscribed."""
    with threadpool_limits(limit, user_api="blas"):
        yield
