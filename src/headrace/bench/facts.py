"""What a figure depends on: machine, Python, server, command; it goes with each report."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.server.binary import ServerBinary


def collect_facts(binary: ServerBinary | None, load_before: float) -> dict[str, str]:
    """Return them by name, in the order in which they are printed.

    Args:
        binary: The server program; None when the server is somebody else's.
        load_before: Load of the machine before the run.
    """
    server = "given by --url"
    if binary is not None:
        number = ".".join(str(part) for part in binary.version)
        server = f"{binary.product} {number}, unix socket, appendonly yes, appendfsync everysec"
    return {
        "headrace": version("headrace"),
        "machine": describe_machine(),
        "load": f"{load_before:.2f} before, {os.getloadavg()[0]:.2f} after",
        "python": platform.python_version(),
        "uvloop": version("uvloop") if importlib.util.find_spec("uvloop") else "none",
        "redis-py": version("redis"),
        "server": server,
        "command": shlex.join(["headrace", *sys.argv[1:]]),
    }


def describe_machine() -> str:
    """Name the processor, the cores that may be used, and the system."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {count_cores()} cores, {platform.system()} {platform.release()}"


def count_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
