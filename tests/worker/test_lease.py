"""Leases: what is due is looked at when it is due, and a queue that cannot be looked at stops no other."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.live import lose, plain_link, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Headrace
    from tests.support.raw import Raw


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with make_app(lease=60.0) as app:
        yield app


async def test_a_lost_lease_that_cannot_be_reclaimed_is_tried_again_without_haste_beside_other_queues(
    app: Headrace, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(queue="sound")
    async def work() -> int:
        return 1

    calls = app.store.queue("broken")
    await work.using(queue="broken").enqueue()
    await app.store.run(app.control, [app.store.pack_reserve(calls, "lost", 50, 1, 0)])
    raw("SET", calls.keys["state"], "no hash")
    before = plain_link(app.control).calls_total
    async with working(app, ["broken", "sound"]):
        late = await work.using(delay=0.5).enqueue()
        result = await late.result(timeout=3.0)
        looks = plain_link(app.control).calls_total - before
        raw("DEL", calls.keys["state"])

    assert result == 1
    assert looks < 40
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) < 10


async def test_jobs_of_a_lost_worker_are_taken_back_when_its_lease_runs_out(app: Headrace) -> None:
    @app.task
    async def work() -> int:
        return 1

    job = await work.enqueue()
    async with working(app):
        pass
    other = await work.enqueue()
    await lose(app, max_stalled=3)
    async with working(app):
        results = await asyncio.gather(job.result(timeout=3.0), other.result(timeout=3.0))

    assert list(results) == [1, 1]
