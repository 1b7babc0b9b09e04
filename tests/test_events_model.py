"""The event bus against a plain model: any sequence of subscribing, publishing, closing and turns of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from headrace.census import Census
from headrace.events import Event, EventBus

NAMES = ["job.completed", "job.failed", "worker.started", "job"]
# Pattern -> the names that it covers.
COVERED = {
    "job.completed": {"job.completed"},
    "job.*": {"job.completed", "job.failed"},
    "worker.*": {"worker.started"},
    "*": set(NAMES),
    "job": {"job"},
    "other": set[str](),
}


@dataclass
class Publish:
    name: str


@dataclass
class Subscribe:
    pattern: str
    limit: int
    is_async: bool


@dataclass
class CloseOldest:
    pass


@dataclass
class Turn:
    pass


Step: TypeAlias = Publish | Subscribe | CloseOldest | Turn
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.builds(Publish, st.sampled_from(NAMES)),
        st.builds(Subscribe, st.sampled_from(sorted(COVERED)), st.integers(1, 4), st.booleans()),
        st.builds(CloseOldest),
        st.builds(Turn),
    )
)


@given(steps)
def test_every_subscriber_gets_the_newest_events_of_its_pattern_in_order(plan: list[Step]) -> None:
    census = Census()
    bus = EventBus(census)
    model = Model(bus)

    async def main() -> None:
        async with asyncio.timeout(20):
            for number, step in enumerate(plan):
                await model.take(number, step)
            await model.take(len(plan), Turn())
            await bus.aclose()

    asyncio.run(main())

    for subscriber in model.subscribers:
        assert subscriber.got == subscriber.expected
        assert subscriber.subscription.delivered == len(subscriber.expected)
        assert subscriber.subscription.dropped == subscriber.dropped
    assert census.is_empty()


class Model:
    def __init__(self, bus: EventBus) -> None:
        self.bus = bus
        self.subscribers: list[Subscriber] = []

    async def take(self, number: int, step: Step) -> None:
        match step:
            case Publish(name):
                covered = [subscriber for subscriber in self.subscribers if subscriber.covers(name)]
                for subscriber in covered:
                    subscriber.expect(number)
                assert self.bus.wants(name) == bool(covered)
                self.bus.publish(name, number=number)
            case Subscribe():
                self.subscribers.append(Subscriber(self.bus, step))
            case CloseOldest():
                for subscriber in [subscriber for subscriber in self.subscribers if not subscriber.closed][:1]:
                    subscriber.close()
            case Turn():
                while any(subscriber.is_busy() for subscriber in self.subscribers):  # noqa: ASYNC110  # Turns are counted.
                    await asyncio.sleep(0)
                for subscriber in self.subscribers:
                    subscriber.settle()


class Subscriber:
    def __init__(self, bus: EventBus, step: Subscribe) -> None:
        self.pattern = step.pattern
        self.waiting: deque[int] = deque()
        self.limit = step.limit
        self.dropped = 0
        self.expected: list[int] = []
        self.got: list[int] = []
        self.closed = False
        callback = self.receive_async if step.is_async else self.receive
        self.subscription = bus.subscribe(step.pattern, callback, limit=step.limit)

    def receive(self, event: Event) -> None:
        self.got.append(event.fields["number"])

    async def receive_async(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.got.append(event.fields["number"])

    def covers(self, name: str) -> bool:
        return not self.closed and name in COVERED[self.pattern]

    def expect(self, number: int) -> None:
        self.waiting.append(number)
        if len(self.waiting) > self.limit:
            self.waiting.popleft()
            self.dropped += 1

    def is_busy(self) -> bool:
        return bool(self.subscription.waiting or self.subscription.task)

    def settle(self) -> None:
        self.expected += self.waiting
        self.waiting.clear()

    def close(self) -> None:
        self.subscription.close()
        self.closed = True
        self.waiting.clear()
