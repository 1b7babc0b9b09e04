"""Address space held back under RLIMIT_AS: it takes no memory, counts as unused, and is there when all else is gone."""

from __future__ import annotations

import subprocess
import sys

from headrace.memory.limits import MIB
from headrace.memory.probes import read_usage
from headrace.memory.reserve import Reserve

USED_UP = """
import resource
from headrace.memory.probes import read_usage
from headrace.memory.reserve import Reserve
reserve = Reserve()
reserve.hold(32 * 1048576)
limit = read_usage().virtual + 16 * 1048576
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
kept = []
try:
    while True:
        kept.append(bytearray(262144))
except MemoryError:
    pass
try:
    bytearray(4 * 1048576)
except MemoryError:
    print("used up")
reserve.release()
print(len(bytearray(16 * 1048576)))
"""


def test_it_takes_address_space_and_no_memory() -> None:
    before = read_usage()
    reserve = Reserve()

    reserve.hold(64 * MIB)
    reserve.hold(64 * MIB)
    during = read_usage()
    reserve.release()
    reserve.release()

    assert 64 * MIB <= during.virtual - before.virtual < 72 * MIB
    assert during.resident - before.resident < 2 * MIB
    assert reserve.size_bytes == 0


def test_it_is_there_when_all_else_is_used_up() -> None:
    done = subprocess.run([sys.executable, "-c", USED_UP], check=True, capture_output=True, text=True, timeout=30)

    assert done.stdout.split("\n")[:2] == ["used up", str(16 * MIB)]
