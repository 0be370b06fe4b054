"""What a stage costs, and what it gives back."""

import sys
import time

import numpy as np
import psutil
import pytest

from iv_pipeline import metering
from iv_pipeline.metering import INTERVAL_SECONDS, Meter, anonymous_bytes, release_memory


def test_the_highest_reading_of_a_block_outlives_what_it_held() -> None:
    before = anonymous_bytes(psutil.Process())
    with Meter() as meter:
        held = np.ones(20_000_000)
        time.sleep(4 * INTERVAL_SECONDS)
        del held
    assert meter.peak_anonymous_bytes - before > 100e6
    assert meter.seconds >= 4 * INTERVAL_SECONDS


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries give memory back on their own")
def test_freed_memory_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [bytearray(4000) for _ in range(50_000)]
    monkeypatch.setattr(metering, "WORTH_RELEASING_BYTES", 10**12)
    pins = small[::500]  # what stays in use between what was freed keeps the C library from giving it back
    del small
    freed = anonymous_bytes(psutil.Process())
    release_memory()  # too little to be worth it
    assert freed - anonymous_bytes(psutil.Process()) < 20e6
    monkeypatch.setattr(metering, "WORTH_RELEASING_BYTES", 0)
    release_memory()
    assert freed - anonymous_bytes(psutil.Process()) > 100e6
    assert len(pins) == 100
