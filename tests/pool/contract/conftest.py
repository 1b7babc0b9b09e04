"""Set up the pools that the contract is asked of, and a server that is reached by TCP and by its socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.ids import random_name
from headrace.server import start_private_server
from tests.pool.contract.subjects import Subject, subjects
from tests.support.raw import Raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from headrace.server import PrivateServer

ALL = subjects()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """One server with a TCP port and a socket, which lets its clients provoke errors."""
    extra = ("--appendonly", "no", "--save", "", "--enable-debug-command", "yes")
    with start_private_server(tmp_path_factory.mktemp("contract"), port=0, extra=extra) as running:
        yield running


@pytest.fixture(params=sorted(ALL))
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each pool in turn; the pools of a test are closed with it."""
    made = ALL[request.param]()
    yield made
    await made.finish()


@pytest.fixture
def peer(place: PrivateServer) -> Iterator[Raw]:
    """A plain client of the server, for what happens behind the pool's back."""
    with Raw(place.socket_url) as raw:
        yield raw


@pytest.fixture
def key(peer: Raw) -> Iterator[str]:
    """A key of the test alone."""
    name = f"contract-{random_name(10)}"
    yield name
    peer("UNLINK", name, *peer.keys(name))
