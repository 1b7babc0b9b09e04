"""An app without a server, which must be as it was when a test ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace import Headrace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def app() -> Iterator[Headrace]:
    # Nothing listens there: whatever asks a server fails.
    app = Headrace("unix:///nonexistent/server.sock")
    yield app
    assert app.census() == []
    assert app._session is None
    assert not app._sync.is_open
