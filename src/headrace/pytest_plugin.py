"""Fixtures for the tests of apps; pytest finds them by itself where Headrace is installed.

Loading this imports nothing but pytest: whoever uses no fixture pays for none.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.app import Headrace
    from headrace.server import PrivateServer
    from headrace.testing import Connected


@pytest.fixture(scope="session")
def headrace_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """Give one private server for all tests of a run; nothing of it is written to the disk."""
    from headrace.server import start_private_server  # noqa: PLC0415 - see above
    from headrace.testing.clean import IN_MEMORY  # noqa: PLC0415 - see above

    with start_private_server(tmp_path_factory.mktemp("headrace"), extra=IN_MEMORY) as server:
        yield server


@pytest.fixture
def headrace_connected(headrace_server: PrivateServer) -> Callable[[Headrace], Connected]:
    """Give `headrace.testing.connected` with the server of the run, which each use empties.

    Example::

        async def test_an_order_is_confirmed(headrace_connected):
            async with headrace_connected(app):
                await place_order("tea")
                await run_until_idle(app)
    """
    from headrace.testing import connected  # noqa: PLC0415 - see above

    return functools.partial(connected, server=headrace_server)
