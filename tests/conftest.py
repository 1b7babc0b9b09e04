"""Set up what every test shares: one private server, keys of its own for each test, and what must be left of them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from headrace import Headrace
from headrace.ids import random_name
from headrace.server import start_private_server
from tests.support.cluster import Cluster
from tests.support.crew import Crew
from tests.support.keyspace import problems
from tests.support.proxy import FaultProxy
from tests.support.raw import Raw
from tests.support.stalls import Stalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headrace.server import PrivateServer

pytest.register_assert_rewrite("tests.model.store_machine", "tests.model.store_facts")

# A failing example is printed so that it can be replayed. No deadline per example: a loaded machine is no fault of the
# code, and pytest's timeout ends a test that hangs.
settings.register_profile("headrace", deadline=None, print_blob=True)
# Why: the same examples each time where a red run blocks others; who works here gets new ones each time.
settings.register_profile("ci", settings.get_profile("headrace"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "headrace")
# Why: a shell that runs the tests in the background has them ignore SIGINT, and so would every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """One server for all tests that do not harm it; nothing of it is written to the disk."""
    extra = ("--appendonly", "no", "--save", "")
    with start_private_server(tmp_path_factory.mktemp("server"), extra=extra) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests that do not harm it: three primaries with a replica each."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def raw(server: PrivateServer) -> Iterator[Raw]:
    """A plain client of the server, for what a test looks at or breaks behind the back of Headrace."""
    with Raw(server.url) as raw:
        yield raw


@pytest.fixture
def stalls() -> Iterator[Stalls]:
    """A stopwatch that stands still while the machine does, for bounds in seconds."""
    with Stalls() as stalls:
        yield stalls


@pytest.fixture
def prefix(raw: Raw) -> Iterator[str]:
    """Start of all keys of one test; whatever the test leaves there must have a reason."""
    prefix = f"t-{random_name(10)}"
    yield prefix
    found = problems(raw, prefix)
    raw.many([("UNLINK", key) for key in raw.keys(f"{prefix}:")])
    assert found == []


@pytest.fixture
def server_url(server: PrivateServer) -> str:
    """Where apps find the server unless a test says otherwise."""
    return server.url


@pytest.fixture
def make_app(server_url: str, prefix: str) -> Iterator[Callable[..., Headrace]]:
    """Make apps below the prefix of the test; each must have closed to an empty census at its end."""
    made: list[Headrace] = []

    def make(url: str | None = None, **settings: Any) -> Headrace:
        made.append(Headrace(url or server_url, settings={"prefix": prefix, **settings}))
        return made[-1]

    yield make
    left = [row for app in made for row in app.census()]
    assert left == []


@pytest.fixture
def crew(server: PrivateServer, prefix: str) -> Iterator[Crew]:
    """Worker processes and apps of one test; nothing of them is left behind."""
    with Crew(server.url, prefix) as crew:
        yield crew


@pytest.fixture
def proxy(server: PrivateServer, tmp_path: Path) -> Iterator[FaultProxy]:
    """A way to the server that can be cut in the middle of a reply."""
    with FaultProxy(tmp_path, server.url) as proxy:
        yield proxy
