"""The fixtures of the other tests, on a cluster of three primaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import ClusterRaw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from headrace import Headrace
    from tests.support.cluster import Cluster


@pytest.fixture
def raw(cluster: Cluster) -> Iterator[ClusterRaw]:
    """A plain client of all nodes."""
    with ClusterRaw(cluster) as raw:
        yield raw


@pytest.fixture
def server_url(cluster: Cluster) -> str:
    """Where apps find the cluster unless a test says otherwise."""
    return cluster.url


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with make_app(lease=60.0) as app:
        yield app
