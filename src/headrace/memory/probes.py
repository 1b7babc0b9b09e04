"""What a process uses now: read from the system and the interpreter, cheap enough to be asked often.

Measured: on Linux one reading of the resident size takes 10 to 15 us, the proportional size 0.1 ms and more with the
size of the process; `python benchmarks/collector.py` prints both.
"""

from __future__ import annotations

import functools
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
#: The unit of ru_maxrss: bytes on macOS, KiB elsewhere.
_PEAK_UNIT: Final = 1 if sys.platform == "darwin" else 1_024


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process uses, in bytes.

    Attributes:
        resident: Memory that it has in the machine (RSS), shared pages counted in full.
        virtual: Address space that it has reserved, which is what RLIMIT_AS bounds.
    """

    resident: int
    virtual: int


def read_usage(pid: int | None = None) -> Usage:
    """Read what a process uses, this one unless told; zeros for a process that is gone."""
    try:
        descriptor = os.open(f"/proc/{pid or 'self'}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _read_elsewhere(pid)
    try:
        virtual, resident = os.read(descriptor, 128).split()[:2]
    except (OSError, ValueError):
        return Usage(0, 0)
    finally:
        os.close(descriptor)
    return Usage(int(resident) * _PAGE, int(virtual) * _PAGE)


def read_peak() -> int:
    """Return the largest resident size that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT


def read_peak_of(pid: int) -> int:
    """Return the largest resident size that another process ever had, in bytes; 0 where the system does not tell it."""
    return _read_field(f"/proc/{pid}/status", "VmHWM:") or 0


def read_proportional() -> int | None:
    """Return the resident size with shared pages counted by share (PSS), in bytes; None where it cannot be read."""
    return _read_field("/proc/self/smaps_rollup", "Pss:")


def _read_field(path: str, name: str) -> int | None:
    """Return the bytes of a line such as `VmHWM: 20480 kB`, None where there is no such file or line."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1_024
    return None


def read_blocks() -> int:
    """Return the blocks that the interpreter's allocator has handed out."""
    return sys.getallocatedblocks()


def read_allocated() -> int | None:
    """Return the bytes that the C library's allocator has handed out, None where it cannot say.

    The resident size hides what is taken from memory that somebody else had given back; this does not. Small objects of
    the interpreter are not in it, see `read_blocks`.
    """
    read = _mallinfo()
    return None if read is None else read()


@functools.cache
def _mallinfo() -> Callable[[], int] | None:
    """Return what calls mallinfo2 of glibc 2.33 and later; None elsewhere."""
    # Why here: only a process that looks at its jobs needs it, and importing it takes a while.
    import ctypes  # noqa: PLC0415 - as above

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    fields = [(name, ctypes.c_size_t) for name in names]
    answer = type("Mallinfo2", (ctypes.Structure,), {"_fields_": fields})
    try:
        call = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    call.restype = answer

    def read() -> int:
        found = call()
        return int(found.uordblks + found.hblkhd)

    return read


def _read_elsewhere(pid: int | None) -> Usage:
    """Read on a system without /proc, or find out that the process is gone."""
    # Only systems without /proc need it, and it takes a while to import.
    import psutil  # noqa: PLC0415 - as above

    try:
        facts = psutil.Process(pid).memory_info()
    except psutil.Error:
        return Usage(0, 0)
    return Usage(int(facts.rss), int(facts.vms))
