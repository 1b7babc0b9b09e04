"""The event bus: who gets which events, in which order, and that no subscriber harms another or outgrows its limit."""

from __future__ import annotations

import asyncio
import contextvars
import doctest
import gc
import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from headrace import subscription as module
from headrace.census import Census, Kind
from headrace.errors import OptionError, UsageError
from headrace.events import SUBSCRIPTION_LIMIT, Event, EventBus, Subscription
from headrace.subscription import BATCH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@pytest.fixture
async def census() -> AsyncIterator[Census]:
    census = Census()
    yield census
    assert census.is_empty(), census.entries()


@pytest.fixture
async def bus(census: Census) -> AsyncIterator[EventBus]:
    bus = EventBus(census, "test")
    bus.start()
    yield bus
    await bus.aclose()


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


async def test_publishing_calls_nobody_before_it_has_returned(bus: EventBus) -> None:
    got: list[Event] = []
    bus.subscribe("job.completed", got.append)

    bus.publish("job.completed", job="j-1", ms=12)

    assert got == []
    await _until(lambda: bool(got))
    (event,) = got
    assert (event.name, dict(event.fields)) == ("job.completed", {"job": "j-1", "ms": 12})
    assert event.at > 1_600_000_000


async def test_the_facts_of_an_event_cannot_be_changed(bus: EventBus) -> None:
    got: list[Event] = []
    bus.subscribe("*", got.append)

    bus.publish("job.completed", event="a field of any name", name="x", self=1)
    await _until(lambda: bool(got))

    with pytest.raises(TypeError):
        got[0].fields["name"] = "y"  # type: ignore[index]  # The claim is that this is refused.
    with pytest.raises(AttributeError):
        got[0].name = "y"  # type: ignore[misc]  # As above.
    assert dict(got[0].fields) == {"event": "a field of any name", "name": "x", "self": 1}


async def test_without_a_listener_publishing_schedules_nothing(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.subscribe("worker.*", print)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was scheduled")

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "call_soon", refuse)
        bus.publish("job.completed", job="j-1")

    assert not bus.wants("job.completed")
    assert bus.wants("worker.started")


async def test_wants_follows_subscribe_and_close(bus: EventBus) -> None:
    answers = [bus.wants("job.failed")]

    subscription = bus.subscribe("job.*", print)
    answers.append(bus.wants("job.failed"))
    subscription.close()
    answers.append(bus.wants("job.failed"))

    assert answers == [False, True, False]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_slow_subscriber_loses_its_oldest_events_and_is_named_once(
    bus: EventBus, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[int] = []

    def crawl(event: Event) -> None:
        got.append(event.fields["number"])

    async def crawl_async(event: Event) -> None:
        crawl(event)

    slow = bus.subscribe("job.*", crawl if kind == "sync" else crawl_async, limit=3, name="crawler")
    for number in range(10):
        bus.publish("job.completed", number=number)
    await _until(lambda: len(got) == 3)

    assert got == [7, 8, 9]
    assert (slow.dropped, slow.delivered) == (7, 3)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.__dict__["subscriber"] == "crawler"


async def test_a_subscriber_that_falls_behind_is_named_before_it_loses_anything(
    bus: EventBus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    slow = bus.subscribe("*", asyncio.Event().wait, limit=10, name="crawler", owner="dashboard")  # type: ignore[arg-type]  # it takes no event

    for late in range(4):
        monkeypatch.setattr(time, "time", lambda late=late: now + 3 * late)
        bus.publish("job.completed")

    (stats,) = bus.stats()
    assert (stats.name, stats.owner, stats.waiting, stats.dropped, stats.slow) == ("crawler", "dashboard", 4, 0, True)
    assert stats.behind == pytest.approx(9.0)
    (record,) = caplog.records
    facts = record.__dict__
    assert facts["message"] == "slow subscriber is behind; make it faster, or it will lose events"
    assert (facts["subscriber"], facts["owner"], facts["waiting"], facts["behind_s"]) == (
        "crawler",
        "dashboard",
        3,
        6.0,
    )
    slow.close()


async def test_a_subscription_ends_with_its_block(bus: EventBus, census: Census) -> None:
    got: list[Event] = []

    with bus.subscribe("*", got.append):
        assert census.counts() == {Kind.SUBSCRIPTION: 1}
        bus.publish("job.completed")
        await bus.flush()

    bus.publish("job.completed")
    await bus.flush()
    assert census.is_empty()
    assert len(got) == 1


class Panel:
    """Somebody who subscribes with his own methods."""

    def __init__(self, got: list[str]) -> None:
        self.got = got

    def plain(self, event: Event) -> None:
        self.got.append(event.name)

    async def waits(self, event: Event) -> None:
        self.got.append(event.name)


@pytest.mark.parametrize("method", ["plain", "waits"])
async def test_a_subscription_ends_with_its_owner(bus: EventBus, census: Census, method: str) -> None:
    got: list[str] = []
    panel = Panel(got)
    subscription = bus.subscribe("*", getattr(panel, method), owner=panel)
    bus.publish("job.completed")
    await bus.flush()
    (row,) = [row for row in census.entries() if row.kind is Kind.SUBSCRIPTION]
    assert (row.owner, row.place.split(":")[0]) == ("Panel", "tests/test_events.py")

    del panel
    gc.collect()

    assert subscription.closed
    assert census.is_empty()
    assert not bus.wants("job.completed")
    bus.publish("job.completed")
    await bus.flush()
    assert got == ["job.completed"]


async def test_an_owner_that_goes_in_the_middle_of_a_publication_harms_nobody(bus: EventBus) -> None:
    got: list[Event] = []
    cyclic = [Panel([]) for _ in range(50)]
    for panel in cyclic:
        panel.me = panel  # type: ignore[attr-defined]  # only a collection of garbage ends it
        bus.subscribe("*", panel.plain, owner=panel)
    bus.subscribe("*", got.append)
    bus.publish("job.first")
    collecting = threading.Thread(target=lambda: [gc.collect() for _ in range(5)])

    del cyclic, panel
    collecting.start()
    for number in range(2_000):
        bus.publish(f"job.n{number % 300}")
    collecting.join(timeout=10)
    gc.collect()
    await _until(lambda: not any(subscription.waiting for subscription in bus.subscriptions()))

    (subscription,) = bus.subscriptions()
    assert subscription.delivered + subscription.dropped == 2_001


async def test_an_owner_that_cannot_be_watched_is_refused(bus: EventBus, census: Census) -> None:
    with pytest.raises(OptionError, match="no weak reference can be made to a tuple"):
        bus.subscribe("*", lambda _: None, owner=(1, 2))

    assert census.is_empty()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_failing_subscriber_is_named_in_the_log_and_harms_no_other(
    bus: EventBus, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Event] = []

    def fail(_: Event) -> None:
        raise RuntimeError("dry well")

    async def fail_async(event: Event) -> None:
        await asyncio.sleep(0)
        fail(event)

    failing = bus.subscribe("*", fail if kind == "sync" else fail_async, name="failing")
    bus.subscribe("*", got.append)
    for _ in range(5):
        bus.publish("job.completed")
    await _until(lambda: len(got) == 5 and failing.failures == 5)

    assert failing.delivered == 5
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.__dict__["subscriber"] == "failing"
    assert "dry well" in caplog.text


async def test_a_callback_that_awaits_something_cancelled_stays_subscribed(bus: EventBus) -> None:
    async def await_cancelled(_: Event) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    subscription = bus.subscribe("*", await_cancelled)
    for _ in range(3):
        bus.publish("job.completed")
    await _until(lambda: subscription.failures == 3)

    assert subscription.delivered == 3


async def test_a_waiting_async_subscriber_delays_nobody_and_gets_one_event_at_a_time(bus: EventBus) -> None:
    gate = asyncio.Event()
    begun: list[int] = []
    got: list[int] = []

    async def wait(event: Event) -> None:
        begun.append(event.fields["number"])
        await gate.wait()

    slow = bus.subscribe("*", wait)
    bus.subscribe("*", lambda event: got.append(event.fields["number"]))
    for number in range(3):
        bus.publish("job.completed", number=number)
    await _until(lambda: got == [0, 1, 2] and bool(begun))

    assert begun == [0]
    gate.set()
    await _until(lambda: begun == [0, 1, 2])
    assert slow.waiting == 0


async def test_an_async_subscriber_has_a_task_only_while_events_wait_for_it(bus: EventBus, census: Census) -> None:
    gate = asyncio.Event()

    async def wait(_: Event) -> None:
        await gate.wait()

    subscription = bus.subscribe("*", wait)
    assert census.counts() == {Kind.SUBSCRIPTION: 1}

    bus.publish("job.completed")
    bus.publish("job.completed")
    await _until(lambda: subscription.delivered == 1)
    assert census.counts() == {Kind.SUBSCRIPTION: 1, Kind.TASK: 1}

    gate.set()
    await _until(lambda: census.counts() == {Kind.SUBSCRIPTION: 1})
    assert (subscription.delivered, subscription.task) == (2, None)


async def test_a_plain_function_that_returns_a_coroutine_is_awaited(bus: EventBus) -> None:
    got: list[int] = []

    async def take(event: Event, offset: int) -> None:
        await asyncio.sleep(0)
        got.append(event.fields["number"] + offset)

    bus.subscribe("*", lambda event: take(event, 10))
    for number in range(3):
        bus.publish("job.completed", number=number)
    await _until(lambda: len(got) == 3)

    assert got == [10, 11, 12]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_callback_may_close_its_own_subscription(bus: EventBus, kind: str) -> None:
    made: list[Subscription] = []
    ended: list[bool] = []

    def once(_: Event) -> None:
        made[0].close()
        ended.append(True)

    async def once_async(_: Event) -> None:
        made[0].close()
        await asyncio.sleep(0)
        ended.append(True)

    made.append(bus.subscribe("*", once if kind == "sync" else once_async))
    bus.publish("job.completed")
    bus.publish("job.completed")
    await _until(lambda: bool(ended) and made[0].task is None)

    assert (made[0].delivered, ended, bus.subscriptions()) == (1, [True], [])
    made[0].close()


async def test_many_events_at_once_do_not_hold_the_loop(bus: EventBus) -> None:
    turns: list[int] = []
    subscription = bus.subscribe("*", lambda _: None, limit=BATCH * 10)
    for _ in range(BATCH * 10):
        bus.publish("job.completed")

    while subscription.waiting:
        turns.append(subscription.delivered)
        await asyncio.sleep(0)

    assert len(turns) >= 10


async def test_events_from_threads_arrive_on_the_loop(bus: EventBus) -> None:
    loop_thread = threading.get_ident()
    got: list[tuple[int, int]] = []
    subscription = bus.subscribe(
        "*", lambda event: got.append((threading.get_ident(), event.fields["number"])), limit=10_000
    )

    def publish(start: int) -> None:
        for number in range(start, start + 1_000):
            bus.publish("job.completed", number=number)

    await asyncio.gather(*(asyncio.to_thread(publish, start) for start in (0, 1_000, 2_000, 3_000)))
    await _until(lambda: len(got) == 4_000)

    assert {thread for thread, _ in got} == {loop_thread}
    assert sorted(number for _, number in got) == list(range(4_000))
    assert subscription.dropped == 0


def test_subscribing_and_publishing_before_a_loop_runs_is_made_up_for() -> None:
    census = Census()
    bus = EventBus(census)
    got: list[str] = []

    async def take(event: Event) -> None:
        await asyncio.sleep(0)
        got.append(event.name)

    bus.subscribe("*", take)
    bus.publish("early")
    with pytest.raises(UsageError, match="no event loop runs"):
        bus.start()

    async def main(name: str) -> None:
        bus.start()
        bus.publish(name)
        await _until(lambda: got[-1:] == [name])

    # A second loop takes over when the first was closed without closing the bus.
    asyncio.run(main("first"))
    bus.publish("between")
    asyncio.run(main("second"))
    asyncio.run(bus.aclose())

    assert got == ["early", "first", "between", "second"]
    assert census.is_empty()


async def test_a_callback_runs_with_the_context_of_its_subscriber(bus: EventBus) -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")
    seen: list[str] = []

    async def look(_: Event) -> None:
        seen.append(place.get())

    place.set("subscriber")
    bus.subscribe("*", lambda _: seen.append(place.get()))
    bus.subscribe("*", look)

    async def publish() -> None:
        place.set("publisher")
        bus.publish("job.completed")

    await asyncio.create_task(publish())
    await _until(lambda: len(seen) == 2)

    assert seen == ["subscriber", "subscriber"]


async def test_flushing_waits_until_every_subscriber_has_had_what_waits(bus: EventBus) -> None:
    plain: list[Event] = []
    slow: list[Event] = []

    async def take_slowly(event: Event) -> None:
        await asyncio.sleep(0)
        slow.append(event)

    bus.subscribe("job.completed", plain.append)
    bus.subscribe("job.completed", take_slowly)
    for number in range(3):
        bus.publish("job.completed", job=number)

    await bus.flush()

    assert [event.fields["job"] for event in plain] == [0, 1, 2]
    assert [event.fields["job"] for event in slow] == [0, 1, 2]


async def test_a_subscriber_may_flush_the_bus(bus: EventBus) -> None:
    got: list[Event] = []

    async def take(event: Event) -> None:
        await bus.flush()
        got.append(event)

    bus.subscribe("job.completed", take)
    bus.publish("job.completed")

    await asyncio.wait_for(bus.flush(timeout=60.0), 5)

    assert len(got) == 1


async def test_closing_the_bus_hands_over_what_waits(census: Census) -> None:
    bus = EventBus(census)
    got: list[tuple[str, int]] = []

    async def take(event: Event) -> None:
        await asyncio.sleep(0)
        got.append(("async", event.fields["number"]))

    bus.subscribe("*", lambda event: got.append(("sync", event.fields["number"])))
    bus.subscribe("*", take)
    for number in range(3):
        bus.publish("job.completed", number=number)
    await bus.aclose()

    assert sorted(got) == [(kind, number) for kind in ("async", "sync") for number in range(3)]
    assert census.is_empty()
    bus.publish("job.completed", number=3)
    assert len(got) == 6


async def test_closing_the_bus_ends_subscribers_that_do_not(census: Census, caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus(census)
    gate = asyncio.Event()
    cancelled: list[str] = []

    async def hang(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(event.name)

    async def ignore(_: Event) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                cancelled.append("ignored")

    bus.subscribe("*", hang, name="hang")
    bus.subscribe("*", ignore, name="ignore")
    bus.publish("job.completed")
    await asyncio.sleep(0)
    await bus.aclose(grace=0.05)

    assert sorted(cancelled) == ["ignored", "job.completed"]
    (record,) = caplog.records
    assert record.__dict__["subscriber"] == "* -> ignore"
    assert census.counts() == {Kind.TASK: 1}
    gate.set()
    await _until(census.is_empty)


async def test_a_closing_bus_takes_no_subscriber_and_no_event(census: Census) -> None:
    bus = EventBus(census)
    gate = asyncio.Event()
    got: list[Event] = []

    async def wait(event: Event) -> None:
        await gate.wait()
        got.append(event)

    bus.subscribe("*", wait)
    bus.publish("job.completed")
    closing = asyncio.create_task(bus.aclose())
    await asyncio.sleep(0)

    bus.publish("job.failed")
    with pytest.raises(UsageError, match="the event bus is closing"):
        bus.subscribe("*", wait)
    gate.set()
    await asyncio.wait_for(closing, timeout=5)

    assert [event.name for event in got] == ["job.completed"]


async def test_cancelling_the_close_ends_the_subscribers(census: Census) -> None:
    bus = EventBus(census)

    async def hang(_: Event) -> None:
        await asyncio.Event().wait()

    bus.subscribe("*", hang)
    bus.publish("job.completed")
    closing = asyncio.create_task(bus.aclose(grace=60.0))
    await _until(lambda: Kind.TASK in census.counts())
    closing.cancel()
    await asyncio.wait({closing}, timeout=5)
    await _until(census.is_empty)

    assert closing.cancelled()


async def test_a_subscriber_may_close_the_bus(bus: EventBus, census: Census) -> None:
    closed = asyncio.Event()

    async def close(_: Event) -> None:
        await bus.aclose()
        closed.set()

    bus.subscribe("*", close)
    bus.publish("app.failed")
    await asyncio.wait_for(closed.wait(), timeout=5)
    await _until(census.is_empty)

    assert bus.subscriptions() == []


@pytest.mark.parametrize(
    "event", ["", "Job.completed", "job.", ".job", "job.*.x", "job*", "**", "a b", "job\n", None, 5]
)
async def test_a_malformed_pattern_is_refused(bus: EventBus, event: str) -> None:
    with pytest.raises(OptionError, match=r"expected a name as 'job\.completed'"):
        bus.subscribe(event, print)


@pytest.mark.parametrize("limit", [0, -1, 1_000_001, 1.5, True, "5", None])
async def test_a_malformed_limit_is_refused(bus: EventBus, limit: int) -> None:
    with pytest.raises(OptionError, match="from 1 to 1000000"):
        bus.subscribe("*", print, limit=limit)


async def test_something_that_cannot_be_called_is_refused(bus: EventBus) -> None:
    with pytest.raises(OptionError, match="expected a function"):
        bus.subscribe("*", 5)  # type: ignore[arg-type]  # The claim is about wrong types.


async def test_subscriptions_that_are_never_closed_are_refused_in_the_end_by_name(bus: EventBus) -> None:
    def leak(_: Event) -> None:
        pass

    for _ in range(SUBSCRIPTION_LIMIT):
        bus.subscribe("*", leak, name="leak")

    with pytest.raises(UsageError, match="1000 subscriptions are open, 1000 of them by 'leak'"):
        bus.subscribe("*", leak)


async def test_names_that_are_made_up_without_end_do_not_fill_the_memory(bus: EventBus) -> None:
    for number in range(5_000):
        bus.publish(f"made.up_{number}")

    assert len(bus._targets) <= 1_024


async def _until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds, for at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # It stands for events of many kinds, and a turn of the loop is no wait.
            await asyncio.sleep(0)
