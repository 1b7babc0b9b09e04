"""Servers that belong to one test, since the test harms them, and how metrics are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.server import start_private_server

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: pip install 'headrace[metrics]'")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server of this test alone."""
    with start_private_server(tmp_path / "own", extra=("--appendonly", "no", "--save", "")) as running:
        yield running
