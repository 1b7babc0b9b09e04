"""Everything that Headrace keeps of the past stays within its stated bytes: after a million jobs, and after a day."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace.events import EventBus
from headrace.health.monitor import Monitor
from headrace.memory.governor import Governor
from headrace.memory.probes import read_usage
from headrace.pool.lanes import Lane
from headrace.pool.ledger import Ledger
from headrace.pool.options import PoolOptions
from headrace.pool.upkeep import Upkeep
from headrace.settings import Settings
from tests.live import fresh_app, opened, until
from tests.number_loop import NumberLoop, run
from tests.support.weight import weigh_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census
    from headrace.clock import Clock
    from headrace.memory.status import MemoryStatus
    from headrace.server import PrivateServer

JOBS = 1_000_000
BATCH = 10_000
HOURS = 24
#: What a process without a worker may keep at most, bytes, the packed calls of 10,000 queues and subscribers left out.
STATED_BYTES = 2_097_152
#: An interpreter that has run a million jobs has larger arenas than before, bytes.
ARENAS_BYTES = 32 * 1_048_576


def weights(governor: Governor, ledger: Ledger[Any], monitor: Monitor, events: EventBus) -> dict[str, int]:
    """What the histories really take, by the name under which their bytes are stated."""
    subscriptions = events.subscriptions()
    lanes = [book.waiting_highest for book in ledger.lanes.values()]
    figures = [ledger.waits, ledger.responses, ledger.waiting_highest, ledger.errors, *lanes]
    health = [monitor._recent, monitor._watch._recent, monitor._slow, monitor._offset, monitor._facts]
    return {
        "figures of the pool and of health": weigh_all(*figures, *health, beside=tuple(ledger.lanes)),
        "readings of memory": weigh_all(governor._series._recent, governor._series._floors),
        "samples of tasks": weigh_all(*governor.leaks._tasks.values()),
        "pauses of the collector": weigh_all(governor.collector._pauses, governor.collector._full_pauses),
        "effects of actions": weigh_all(*governor._actions.effects()),
        "events that wait for subscribers": weigh_all(*(one._buffer for one in subscriptions)),
        "who gets which events": weigh_all(events._targets, beside=tuple(subscriptions)),
    }


def check(status: MemoryStatus, real: dict[str, int]) -> None:
    """Hold what is stated against what is there."""
    stated = {buffer.name: buffer for buffer in status.buffers}
    assert real.keys() <= stated.keys()
    for name, size in real.items():
        limit, said = stated[name].limit_bytes, stated[name].size_bytes
        assert limit is not None
        assert said is not None
        # A deque has its first block, and a dict its first slots, before they hold anything.
        assert said <= limit, name
        assert size <= said + 2_048, (name, size, said)
    assert status.history_bytes <= status.history_limit_bytes
    assert sum(real.values()) <= status.history_limit_bytes


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_million_jobs_leave_all_histories_within_their_bytes(server: PrivateServer) -> None:
    app = fresh_app(server.url, health_interval=1.0, memory_interval=1.0, pool_stats_interval=1.0)

    @app.task(name="nothing", queue="work")
    async def nothing() -> None: ...

    async with opened(app):
        heard = [0]
        stuck = asyncio.Event()

        def count(_: object) -> None:
            heard[0] += 1

        async def hang(_: object) -> None:
            await stuck.wait()

        app.subscribe("job.*", count)
        app.subscribe("*", hang, limit=500)
        worker = app.worker(["work"], concurrency=200)
        running = asyncio.create_task(worker.run())
        await nothing.enqueue_many([((),)] * BATCH)
        await until(lambda: _completed(worker, BATCH), "the first jobs complete")
        before, size_before = _look(app), read_usage().resident

        for done in range(2 * BATCH, JOBS + 1, BATCH):
            await nothing.enqueue_many([((),)] * BATCH)
            await until(lambda done=done: _completed(worker, done - BATCH), "jobs complete")  # type: ignore[misc]  # bound here
        await until(lambda: _completed(worker, JOBS), "a million jobs complete")
        await app.health()
        after, grown = _look(app), read_usage().resident - size_before
        stats = app.events.stats()
        stuck.set()
        worker.stop()
        await running

    check(*before)
    check(*after)
    assert heard[0] >= JOBS
    assert [one.dropped > JOBS / 2 for one in stats] == [False, True]
    kept = {name: size for name, size in after[1].items() if name != "events that wait for subscribers"}
    assert sum(kept.values()) < STATED_BYTES, kept
    assert grown < ARENAS_BYTES, f"{grown:,} bytes more after {JOBS:,} jobs"


async def _completed(worker: Any, count: int) -> bool:
    completed: int = worker.stats().completed
    return completed >= count


def _look(app: Any) -> tuple[MemoryStatus, dict[str, int]]:
    real = weights(app.memory, app.pool._core.ledger, app._session.monitor, app.events)
    return app.memory.status(), real


class Link:
    """A server that answers INFO within a millisecond of the loop's time."""

    on_roundtrip: Callable[[float], None] | None = None
    on_error: Callable[[str], None] | None = None
    address = "nowhere"
    is_open = True
    opened_total = 1
    last_failure = ""

    def __init__(self) -> None:
        self.calls = 0

    async def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        del payload, timeout
        self.calls += 1
        await asyncio.sleep(0.0001 * (self.calls % 90))
        if self.on_roundtrip is not None:
            self.on_roundtrip(0.0001 * (self.calls % 90))
        text = f"# Server\r\nredis_version:8.0.0\r\nserver_time_usec:{self.calls * 1_000_000}\r\nrole:master\r\n"
        return [text.encode() + b"# Stats\r\nfiller:" + b"x" * 4_000 + b"\r\n"] * count


class DayApp:
    """What the governor needs of an app, on a clock whose time is a number."""

    def __init__(self, clock: Clock, census: Census, ledger: Ledger[Any]) -> None:
        self.clock = clock
        self.events = EventBus(census)
        self.settings = Settings(memory_interval=5.0)
        self.pool = self.store = self
        self.ledger = ledger
        self.prepared = 3

    def shrink(self) -> int:
        return 0

    def forget_prepared(self) -> None:
        self.prepared = 0


class DayPool:
    """What the upkeep of a pool needs of it."""

    name = "day"
    on_event = None

    def __init__(self) -> None:
        self.lines = 0

    def need(self) -> None: ...

    def retire(self, members: list[Any]) -> None: ...

    def stats(self) -> Any:
        self.lines += 1
        return self

    def fields(self) -> dict[str, object]:
        return {}


def test_a_day_of_telemetry_leaves_all_histories_within_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(loop: NumberLoop, clock: Clock, census: Census) -> None:
        began = time.time()
        monkeypatch.setattr(time, "monotonic", loop.time)
        monkeypatch.setattr(time, "perf_counter", loop.time)
        monkeypatch.setattr(time, "time", lambda: began + loop.time())
        options = PoolOptions()
        ledger: Ledger[Any] = Ledger(40, 0, {str(lane): 10 for lane in Lane})
        app = DayApp(clock, census, ledger)
        pool, link = DayPool(), Link()
        upkeep = Upkeep(pool, ledger, options, clock)  # type: ignore[arg-type]  # a stand-in for a pool
        publish = app.events.publish
        monitor = Monitor(link, clock, census, app.settings, publish=publish, pool_stats=dict)  # type: ignore[arg-type]  # as above
        governor = Governor()
        governor.join(app)
        monitor.start()
        stuck = app.events.subscribe("*", lambda _: asyncio.Event().wait(), limit=100)

        for hour in range(HOURS):
            for minute in range(60):
                for number in range(20):
                    ledger.waits.current.record(0.001 * number * (minute + 1))
                    ledger.responses.current.record(0.002 * number)
                    ledger.waiting_highest.record(300 + number + minute, loop.time())
                    for book in ledger.lanes.values():
                        book.waiting_highest.record(400 + number + hour, loop.time())
                    app.events.publish(f"job.kind_{(hour * 60 + minute) % 2_000}", number=number)
                    governor.leaks.add(
                        f"task {minute * number}", growth_bytes=number, growth_blocks=1, footprint_bytes=5, together=1
                    )
                await asyncio.sleep(60.0)
            check(governor.status(), weights(governor, ledger, monitor, app.events))

        runs = {stats.name: stats.runs for stats in clock.stats()}
        status = governor.status()
        kept = sum(weights(governor, ledger, monitor, app.events).values())
        stuck_stats = stuck.stats()
        governor.leave(app)
        await monitor.close()
        await upkeep.close()
        await app.events.aclose(grace=0.1)

        assert loop.time() >= HOURS * 3_600
        assert runs["read memory"] >= HOURS * 3_600 / 5 - 1
        assert runs["look after connections"] >= HOURS * 3_600 / options.upkeep_interval - 1
        assert link.calls >= HOURS * 3_600 / app.settings.health_interval / 2
        assert stuck_stats.dropped > 20_000
        assert kept < STATED_BYTES
        assert status.history_bytes < STATED_BYTES

    run(main)
