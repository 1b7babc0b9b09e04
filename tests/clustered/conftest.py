"""The fixtures of the other tests, on a cluster of three primaries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace
from tests.support.cluster import ClusterRaw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.support.cluster import Cluster


@pytest.fixture
def raw(cluster: Cluster) -> Iterator[ClusterRaw]:
    """A plain client of all nodes."""
    with ClusterRaw(cluster) as raw:
        yield raw


@pytest.fixture
def make_app(cluster: Cluster, prefix: str) -> Iterator[Callable[..., Headrace]]:
    """Make apps below the prefix of the test; each must have closed to an empty census at its end."""
    made: list[Headrace] = []

    def make(url: str | None = None, **settings: Any) -> Headrace:
        made.append(Headrace(url or cluster.url, settings={"prefix": prefix, **settings}))
        return made[-1]

    yield make
    left = [row for app in made for row in app.census()]
    assert left == []


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with make_app(lease=60.0) as app:
        yield app
