"""A coroutine that keeps the loop from everything else is named in the log."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import JobFailed
from tests.live import DEADLINE, fresh_app, opened, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace import Headrace
    from headrace.server import PrivateServer

STALL = 0.4


@pytest.fixture
async def app(server: PrivateServer) -> AsyncIterator[Headrace]:
    async with opened(fresh_app(server.url, keep_result=60, loop_lag_warn=0.2)) as app:
        yield app


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == "loop stalled by a task"]


@pytest.mark.parametrize("waits_first", [False, True])
async def test_a_blocking_coroutine_is_named(
    app: Headrace, caplog: pytest.LogCaptureFixture, *, waits_first: bool
) -> None:
    @app.task(name="block", queue="slow")
    async def block() -> None:
        if waits_first:
            await asyncio.sleep(0.001)
        time.sleep(STALL)  # noqa: ASYNC251 - that is the fault

    async with working(app) as worker:
        job = await block.enqueue()
        await job.result(timeout=DEADLINE)
        stalls = worker.stats().loop_stalls

    (warning,) = warnings_in(caplog)
    assert warning["levelname"] == "WARNING"
    assert (warning["task"], warning["queue"], warning["job"]) == ("block", "slow", job.id)
    assert warning["stalled_ms"] >= STALL * 1000
    assert "plain def" in warning["remedy"]
    assert stalls == 1


async def test_a_coroutine_that_blocks_and_then_raises_is_named_too(
    app: Headrace, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="block", attempts=1)
    async def block() -> None:
        time.sleep(STALL)  # noqa: ASYNC251 - that is the fault
        raise ValueError("after all that")

    async with working(app):
        with pytest.raises(JobFailed):
            await (await block.enqueue()).result(timeout=DEADLINE)

    assert [warning["task"] for warning in warnings_in(caplog)] == ["block"]


async def test_a_task_that_waits_or_blocks_its_thread_is_not_named(
    app: Headrace, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task
    async def wait() -> None:
        await asyncio.sleep(STALL)

    @app.task
    def block() -> None:
        time.sleep(STALL)

    async with working(app):
        for job in [await wait.enqueue(), await block.enqueue()]:
            await job.result(timeout=DEADLINE)

    assert warnings_in(caplog) == []
