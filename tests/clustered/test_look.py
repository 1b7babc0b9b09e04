"""Whoever looks at the processes of a cluster sees those whose connections are at other nodes too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.live import working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace


async def test_every_process_of_a_cluster_shows_itself(make_app: Callable[..., Headrace]) -> None:
    apps = [make_app() for _ in range(4)]
    watching = make_app()

    async with apps[0], apps[1], apps[2], apps[3], watching, working(apps[0], ["work"]):
        found = {one.app: one for one in await watching.fleet.look(wait=1.0)}

    assert found.keys() == {app.id for app in (*apps, watching)}
    assert found[apps[0].id].workers == 1
