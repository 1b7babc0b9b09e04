"""The registry of workers: who is there, which queues there are, and that those gone are forgotten."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from headrace.keys import workers_key
from headrace.record import encode_value
from headrace.store.replies import WorkerFacts
from headrace.worker.registration import GONE_AFTER
from tests.live import DEADLINE, until, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace
    from tests.support.raw import Raw


async def test_a_worker_is_in_the_registry_while_it_runs(make_app: Callable[..., Headrace]) -> None:
    async with make_app() as app:
        async with working(app, ["mail", "bulk"], concurrency=7) as worker:
            during = await app.store.workers(app.control)
        after = await app.store.workers(app.control)

    facts = during[worker.id]
    assert (facts.host, facts.pid) == (socket.gethostname(), os.getpid())
    assert (facts.queues, facts.concurrency) == (["mail", "bulk"], 7)
    assert after == {}


async def test_a_worker_names_its_queues_and_their_dead_letter_queues(make_app: Callable[..., Headrace]) -> None:
    async with make_app() as app:

        @app.task(queue="mail", dead_letter="mail-dead")
        async def work() -> None: ...

        async with working(app, ["mail"]):
            names = [queue.name for queue in await app.queues()]

    assert names == ["mail", "mail-dead"]


async def test_workers_that_have_been_gone_for_long_are_forgotten(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str
) -> None:
    key, now = workers_key(prefix), int(raw("TIME")[0])
    ages = {**{f"gone{number}": GONE_AFTER + 60 for number in range(12)}, "recent": GONE_AFTER - 60}
    for name, age in ages.items():
        raw("HSET", key, name, encode_value(WorkerFacts(seen=now - age)))
    raw("HSET", key, "unreadable", b"\xc1")

    async with make_app() as app, working(app) as worker:
        assert worker._parts is not None
        registration = worker._parts.registration

        async def forgotten() -> bool:
            await registration.register()
            return not any(name.startswith("gone") for name in await app.store.workers(app.control))

        await asyncio.wait_for(until(forgotten, "all that are gone are forgotten"), DEADLINE)
        left = set(await app.store.workers(app.control))

    assert left == {"recent", worker.id}
    raw("DEL", key)
    # Red when: nobody takes the entries of killed workers out.
