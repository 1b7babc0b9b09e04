"""A control group of memory for some processes of a test, where the system lets us make one."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from headrace.memory.cgroup import Group, find_group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The kernel lets go of a group as soon as its last process is reaped, seconds.
DEADLINE = 10.0


@contextmanager
def memory_group(limit_mb: int) -> Iterator[Group]:
    """Make a group with a limit, version 1 or 2, and remove it; the test is skipped with the reason where it cannot be.

    Its processes must have ended when the block does.
    """
    own = find_group()
    if own is None:
        pytest.skip("no control group of memory is mounted")
    path = own.top / f"headrace-test-{os.getpid()}"
    limit = path / ("memory.limit_in_bytes" if own.version == 1 else "memory.max")
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made in {own.top}: {error.strerror}")
    try:
        try:
            limit.write_text(str(limit_mb << 20))
        except OSError as error:
            pytest.skip(f"the control group cannot be limited: {error.strerror}")
        yield Group(own.version, path, own.top)
    finally:
        _remove(path)


def enter(group: Group) -> None:
    """Put this process into a group."""
    (group.path / "cgroup.procs").write_text(str(os.getpid()))


def _remove(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
