"""Settings of the fleet are tested with real worker processes on a real server, below a prefix of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.crew import Crew
from tests.support.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer


@pytest.fixture
def crew(server: PrivateServer, prefix: str) -> Iterator[Crew]:
    """Worker processes and apps of one test; nothing of them is left behind."""
    with Crew(server.url, prefix) as crew:
        yield crew


@pytest.fixture
def proxy(server: PrivateServer, tmp_path: Path) -> Iterator[FaultProxy]:
    """A way to the server that can be cut."""
    with FaultProxy(tmp_path, server.url) as proxy:
        yield proxy
