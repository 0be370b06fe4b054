import math
import os
import threading

import numpy as np
import pytest

from iv_pipeline.engine import ArrayBatches, map_in_processes, map_ordered


def test_results_come_in_order_whatever_thread_made_them() -> None:
    assert list(map_ordered(lambda i: i * i, 50, workers=4)) == [i * i for i in range(50)]


def test_no_more_results_wait_than_two_a_worker() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def note(i: int) -> int:
        with lock:
            started.append(i)
        return i

    results = map_ordered(note, 100, workers=2)
    next(results)
    assert len(started) <= 5
    results.close()  # type: ignore[attr-defined]


def test_an_error_reaches_the_caller() -> None:
    def fail(i: int) -> int:
        raise ValueError(f"batch {i}")

    with pytest.raises(ValueError, match="batch 0"):
        list(map_ordered(fail, 3, workers=2))


def test_processes_make_what_threads_make_in_order_and_others_work_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IV_THREADS", "2")
    assert list(map_in_processes(math.factorial, range(9))) == [math.factorial(i) for i in range(9)]
    workers = set(map_in_processes(process_of, range(9)))
    assert len(workers) <= 2
    assert os.getpid() not in workers


def test_an_error_in_a_process_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IV_THREADS", "2")
    with pytest.raises(ValueError, match="not defined for negative values"):
        list(map_in_processes(math.factorial, [1, -1, 2]))


def process_of(_: int) -> int:
    return os.getpid()


def test_no_calls_make_no_results() -> None:
    assert list(map_ordered(lambda i: i, 0)) == []


def test_batches_cover_all_rows_once_as_float32() -> None:
    X = np.arange(70, dtype=np.float64).reshape(10, 7)
    batches = ArrayBatches(X, 4)
    assert [len(batches.batch(i)) for i in range(batches.n_batches)] == [4, 4, 2]
    assert batches.batch(0).dtype == np.float32
    np.testing.assert_array_equal(np.vstack([batches.batch(i) for i in range(3)]), X)
