"""Whoever looks at the processes of a cluster sees those whose connections are at other nodes too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.cli.command import Command
from tests.live import fresh_app, working

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from headrace import Headrace
    from tests.support.cluster import Cluster


async def test_every_process_of_a_cluster_shows_itself(make_app: Callable[..., Headrace]) -> None:
    apps = [make_app() for _ in range(4)]
    watching = make_app()

    async with apps[0], apps[1], apps[2], apps[3], watching, working(apps[0], ["work"]):
        found = {one.app: one for one in await watching.fleet.look(wait=1.0)}

    assert found.keys() == {app.id for app in (*apps, watching)}
    assert found[apps[0].id].workers == 1


def test_a_command_that_looks_reaches_a_cluster_by_the_address_of_one_node(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = fresh_app(cluster.url)

    @app.task(queue="mail")
    async def send() -> None: ...

    async def enqueue() -> None:
        async with app:
            await send.enqueue_many([((),)] * 3)

    asyncio.run(enqueue())
    headrace = Command(app, capsys, monkeypatch)
    headrace.url = cluster.nodes[0].url

    shown = headrace("queues", "stats", "mail", "--json")
    cleared = headrace("queues", "clear", "mail", "--status", "waiting", "--yes")

    assert (shown.code, shown.json["waiting"]) == (0, 3)
    assert (cleared.code, cleared.err) == (0, "")
