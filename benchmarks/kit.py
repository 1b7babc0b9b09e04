"""What the benchmarks share: a private server, the head of each print, medians with their extremes."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.server import start_private_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.server import PrivateServer

#: The payload of the figures: a number and a text of 200 bytes.
TEXT = "x" * 200


@contextlib.contextmanager
def server(*extra: str) -> Iterator[PrivateServer]:
    """Run a private server on a unix socket, append-only file written every second, in a folder that is deleted."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        private = start_private_server(Path(folder), extra=extra)
        try:
            print_head(private)
            yield private
        finally:
            private.stop()


def print_head(private: PrivateServer) -> None:
    """Print what was measured with, and the command that prints it again."""
    version = ".".join(str(part) for part in private.binary.version)
    print(f"command   python {shlex.join(sys.argv)}")
    print(f"machine   {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(f"server    {private.binary.product} {version}, unix socket, appendonly yes, appendfsync everysec\n")


def spread(figures: Sequence[float], unit: str = "", digits: int = 0) -> str:
    """Return the median and the extremes of figures."""
    middle, low, high = statistics.median(figures), min(figures), max(figures)
    return f"{middle:,.{digits}f}{unit} ({low:,.{digits}f}-{high:,.{digits}f})"
