"""The round trips of a worker: none gets lost, none spins, and a worker that cannot make any ends with the reason."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace
from headrace.errors import CommandRefused, JobFailed
from headrace.server import start_private_server
from headrace.worker.runners import Runner
from tests.live import DEADLINE, Gate, hold_replies, opened, plain_link, until, work_off, working
from tests.support.raw import Raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with make_app(lease=60.0) as app:
        yield app


async def test_jobs_that_come_while_a_worker_stops_are_handed_back(app: Headrace, raw: Raw) -> None:
    ran: list[int] = []
    flowing = asyncio.Event()

    @app.task
    async def work(number: int) -> None:
        ran.append(number)
        flowing.set()

    await work.enqueue_many([((number,), {}) for number in range(20_000)])
    for _ in range(20):
        flowing.clear()
        async with working(app, concurrency=100):
            await asyncio.wait_for(flowing.wait(), DEADLINE)
        held = raw("HLEN", app.store.queue("default").keys["held"]) - 1

        assert held == 0
    await work_off(app)

    assert sorted(ran) == list(range(20_000))


async def test_a_worker_that_the_server_refuses_after_a_break_ends_with_the_reason(tmp_path: Path) -> None:
    with start_private_server(tmp_path) as server, Raw(server.url) as raw:
        async with opened(Headrace(server.url)) as app:
            worker = app.worker(["default"], 4)
            running = asyncio.create_task(worker.run())
            await asyncio.wait_for(worker.signals.reserved.wait(), DEADLINE)

            raw("CONFIG", "SET", "requirepass", "secret")
            raw("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

            with pytest.raises(CommandRefused, match="user and password"):
                await asyncio.wait_for(running, DEADLINE)


@pytest.mark.parametrize("part", ["flights", "slot"])
async def test_a_worker_with_a_broken_part_ends_with_the_reason_and_holds_nothing(
    app: Headrace, part: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task
    async def work() -> None: ...

    def break_down(*_: object) -> Any:
        raise ZeroDivisionError(part)

    await work.enqueue_many([((), {})] * 200)
    worker = app.worker(["default"], 4)
    caplog.set_level(logging.CRITICAL + 1, "headrace")
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.signals.started.wait(), DEADLINE)
    parts = worker._parts
    assert parts is not None
    if part == "flights":
        monkeypatch.setattr(parts.flights, "_read", break_down)
        parts.settling.sender.note()
        await until(lambda: asyncio.sleep(0, worker._failure is not None), "the worker notices")
        monkeypatch.undo()
    else:
        monkeypatch.setattr(Runner, "keep_result", break_down)

    with pytest.raises(ZeroDivisionError, match=part):
        await asyncio.wait_for(running, DEADLINE)

    stats = await app.queue("default").stats()
    assert stats.active == 0


async def test_a_queue_that_the_server_refuses_is_tried_again_without_haste_beside_another(
    app: Headrace, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(queue="sound")
    async def work(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    broken = app.store.queue("broken").keys["delayed"]
    raw("SET", broken, "no zset")
    await work.enqueue_many([((number,), {}) for number in range(300)])
    last = await work.enqueue(300)
    async with working(app, ["broken", "sound"], concurrency=2):
        result = await last.result(timeout=5.0)
        refused = [record for record in caplog.records if record.getMessage().startswith("the server refused")]
        raw("DEL", broken)
        job = await work.using(queue="broken").enqueue(1)
        again = await job.result(timeout=5.0)

    assert (result, again) == (300, 1)
    assert len(refused) == 1


async def test_a_stopping_worker_whose_last_round_trip_is_refused_does_not_spin(app: Headrace, raw: Raw) -> None:
    entered = asyncio.Event()

    @app.task
    async def work() -> None:
        entered.set()
        await asyncio.sleep(30)

    leases = app.store.queue("default").keys["leases"]
    async with working(app, grace=0.0) as worker:
        await work.enqueue()
        await asyncio.wait_for(entered.wait(), DEADLINE)
        parts = worker._parts
        assert parts is not None
        link = plain_link(parts._jobs_link)
        raw.many([("RENAME", leases, f"{leases}:aside"), ("SET", leases, "no zset")])
        before = link.calls_total
        asyncio.get_running_loop().call_later(1.0, raw, "RENAME", f"{leases}:aside", leases)

    assert link.calls_total - before < 20
    assert (await app.queue("default").stats()).waiting == 1


async def test_jobs_that_come_during_the_grace_of_a_stopping_worker_are_not_started(app: Headrace) -> None:
    gate = Gate()

    @app.task
    async def work(name: str) -> None:
        await gate.pass_through(name)

    worker = app.worker(["default"], 2)
    running = asyncio.create_task(worker.run())
    await worker.signals.started.wait()
    await work.enqueue("first")
    await asyncio.wait_for(gate.entered.wait(), DEADLINE)
    arrived, let_go = hold_replies(worker)
    await work.enqueue("second")
    await asyncio.wait_for(arrived.wait(), DEADLINE)

    worker.stop()
    await asyncio.sleep(0)
    let_go.set()
    await until(lambda: _waiting(app, 1), "the second job is handed back")
    gate.open.set()
    await asyncio.wait_for(running, DEADLINE)

    assert gate.runs == ["first"]


async def test_a_result_that_breaks_while_it_is_written_fails_its_job_and_no_other(app: Headrace) -> None:
    class Detached:
        def model_dump(self, **_: object) -> object:
            raise LookupError("the session of this row is closed")

    @app.task(attempts=1)
    async def work(number: int) -> Any:
        return Detached() if number == 1 else number

    jobs = await work.enqueue_many([((number,), {}) for number in range(3)])
    async with working(app):
        with pytest.raises(JobFailed, match="the session of this row is closed"):
            await jobs[1].result(timeout=DEADLINE)
        rest = [await jobs[number].result(timeout=DEADLINE) for number in (0, 2)]

    assert rest == [0, 2]


async def _waiting(app: Headrace, count: int) -> bool:
    return (await app.queue("default").stats()).waiting == count
