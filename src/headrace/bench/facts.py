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

from headrace.logs import clean_text

if TYPE_CHECKING:
    from headrace.server.binary import ServerBinary


def describe_private(binary: ServerBinary) -> str:
    """Say what is known of a server that was started for the run."""
    number = ".".join(str(part) for part in binary.version)
    return f"{binary.product} {number}, unix socket, appendonly yes, appendfsync everysec"


def collect_facts(server: str, load_before: float) -> dict[str, str]:
    """Return them by name, in the order in which they are printed.

    Args:
        server: What is known of the server.
        load_before: Load of the machine before the run.
    """
    return {
        "headrace": version("headrace"),
        "machine": describe_machine(),
        "load": f"{load_before:.2f} before, {os.getloadavg()[0]:.2f} after",
        "python": platform.python_version(),
        "uvloop": version("uvloop") if importlib.util.find_spec("uvloop") else "none",
        "redis-py": version("redis"),
        "server": server,
        "command": shlex.join(["headrace", *map(clean_text, sys.argv[1:])]),
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
