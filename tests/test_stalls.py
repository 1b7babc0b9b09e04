"""The stopwatch of tests stands still while the machine does, and at no other time."""

from __future__ import annotations

import ctypes
import doctest
import time

from tests.support import stalls as module
from tests.support.stalls import Stalls


def test_the_example_holds() -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


def test_a_process_that_stands_still_stops_the_watch() -> None:
    with Stalls() as stalls:
        time.sleep(0.05)
        began = time.monotonic()
        # Called this way it lets no other thread run, as a machine that stands still.
        ctypes.PyDLL(None).usleep(400_000)
        passed, lasted = time.monotonic() - began, stalls.lasted(began)

    assert passed >= 0.35
    assert passed - lasted > 0.3


def test_code_that_works_or_waits_counts() -> None:
    with Stalls() as stalls:
        began, worked = time.monotonic(), time.process_time() + 0.3
        while time.process_time() < worked:
            pass
        lasted = stalls.lasted(began)
        waits = []
        for _ in range(3):
            began = time.monotonic()
            time.sleep(0.1)
            waits.append(stalls.lasted(began))

    assert lasted > 0.15
    # The best of three: the machine may stand still meanwhile.
    assert max(waits) > 0.09
