"""The inbox hands outcomes to those who wait, and looks again after a break until it knows what it missed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace.census import Census
from headrace.errors import ConnectionLost, PoolClosed, ResultTimeout
from headrace.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEADLINE = 10.0


class Watched:
    """A store that only watches, and a link that only subscribes: what an inbox asks of both."""

    def __init__(self) -> None:
        self.ended: dict[str, tuple[str, bytes]] = {}
        self.faults: list[Exception] = []
        self.looks: list[str] = []
        self.looked = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()

    async def subscribe(self, channels: Any) -> None: ...

    async def watch(self, _client: Any, _queue: str, job_id: str, _inbox: str, *, enter: bool) -> tuple[str, bytes]:
        assert enter
        async with self.looked:
            self.looks.append(job_id)
            self.looked.notify_all()
        found = self.ended.get(job_id, ("pending", b""))
        await self.gate.wait()
        if self.faults:
            raise self.faults.pop()
        return found

    async def until(self, looks: int) -> None:
        async with asyncio.timeout(DEADLINE), self.looked:
            await self.looked.wait_for(lambda: len(self.looks) >= looks)


@pytest.fixture
def store() -> Watched:
    return Watched()


@pytest.fixture
async def inbox(store: Watched) -> AsyncIterator[Inbox]:
    census = Census()
    inbox = Inbox(store, store, store, "inbox", census)  # type: ignore[arg-type]  # it does what an inbox asks for
    yield inbox
    await inbox.close()
    assert (len(inbox), census.entries()) == (0, [])


async def test_one_message_ends_all_waits_for_its_job(inbox: Inbox, store: Watched) -> None:
    waits = [asyncio.create_task(inbox.wait("q", "job", DEADLINE)) for _ in range(3)]
    await store.until(3)

    inbox.deliver(b"job completed some outcome")

    assert await asyncio.gather(*waits) == [("completed", b"some outcome")] * 3


async def test_a_look_after_a_break_that_breaks_again_is_repeated(inbox: Inbox, store: Watched) -> None:
    waits = [asyncio.create_task(inbox.wait("q", job, DEADLINE)) for job in ("one", "two")]
    await store.until(2)
    store.ended = {"one": ("completed", b"1"), "two": ("completed", b"2")}
    store.faults = [ConnectionLost("cut")]

    inbox.reopened()

    assert await asyncio.wait_for(asyncio.gather(*waits), DEADLINE) == [("completed", b"1"), ("completed", b"2")]


async def test_a_break_during_a_look_is_followed_by_another_look(inbox: Inbox, store: Watched) -> None:
    wait = asyncio.create_task(inbox.wait("q", "job", DEADLINE))
    await store.until(1)
    inbox.reopened()
    store.gate.clear()
    await store.until(2)
    store.ended = {"job": ("failed", b"")}

    inbox.reopened()
    store.gate.set()

    assert await asyncio.wait_for(wait, DEADLINE) == ("failed", b"")


async def test_a_wait_that_ran_out_or_was_cancelled_leaves_nothing(inbox: Inbox, store: Watched) -> None:
    with pytest.raises(ResultTimeout, match="it goes on"):
        await inbox.wait("q", "job", 0.01)
    wait = asyncio.create_task(inbox.wait("q", "job", DEADLINE))
    await store.until(2)

    wait.cancel()
    await asyncio.wait({wait})

    assert len(inbox) == 0


async def test_closing_ends_the_waits(inbox: Inbox, store: Watched) -> None:
    wait = asyncio.create_task(inbox.wait("q", "job", DEADLINE))
    await store.until(1)

    await inbox.close()

    with pytest.raises(PoolClosed, match="the job goes on"):
        await wait
