"""Every test of the default server leaves no keeper and no server behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.server.processes import processes_below, runs, wait_ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    left = processes_below(tmp_path)
    try:
        for process in left:
            wait_ended(process.pid, timeout=5.0)
    finally:
        for process in left:
            if runs(process.pid):
                process.kill()
