"""What a running process shows of itself when somebody looks, bounded whatever there is to show."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from headrace.census import Kind
from headrace.fleet.snapshot import ENTRIES, LIMIT_BYTES, decode_snapshot, encode_snapshot, take_snapshot
from tests.live import DEADLINE, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace


async def test_whoever_looks_sees_every_process_with_its_duties_pool_memory_and_subscribers(
    make_app: Callable[..., Headrace],
) -> None:
    shown, watching = make_app(), make_app()
    gate, full = asyncio.Event(), asyncio.Event()
    running: list[int] = []

    @shown.task(name="hold", queue="work")
    async def hold() -> None:
        running.append(1)
        if len(running) == 3:
            full.set()
        await gate.wait()

    async with shown, watching, working(shown, ["work"], concurrency=3):
        shown.subscribe("job.*", lambda _: None, owner="panel")
        jobs = await hold.enqueue_many([((),)] * 3)
        await asyncio.wait_for(full.wait(), DEADLINE)
        found = {one.app: one for one in await watching.fleet.look(wait=0.5)}
        gate.set()
        for job in jobs:
            await job.result(timeout=DEADLINE)

    assert found.keys() == {shown.id, watching.id}
    seen = found[shown.id]
    assert (seen.pid, seen.workers, seen.concurrency, seen.running) == (os.getpid(), 1, 3, 3)
    assert seen.counts["timer"] == 1
    assert seen.counts["task"] == sum(thing.count for thing in seen.census if thing.kind == "task")
    assert [(thing.owner, thing.count) for thing in seen.census if thing.name == "slot #"] == [("worker", 3)]
    assert {"renew leases", "survey queues", "look after connections"} <= {duty.name for duty in seen.duties}
    assert [(one.event, one.owner) for one in seen.subscribers] == [("job.*", "panel")]
    assert 0 < seen.pool.total <= seen.pool.maximum
    assert seen.memory.step == "normal"
    assert 0 < seen.memory.used_bytes < seen.memory.budget_bytes
    assert "readings of memory" in {history.name for history in seen.memory.histories}
    assert found[watching.id].workers == 0


async def test_a_snapshot_is_bounded_however_much_there_is_to_show(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with app:
        entries = [app.census_book.add(Kind.FILE, "x" * (n + 1), f"{n}" + "y" * 5_000) for n in range(500)]
        for n in range(200):
            app.subscribe("*", lambda _: None, owner=f"{n}" + "z" * 500)
        duties = [app.clock.every("d" * 5_000, 100.0 + n, lambda: None, owner="o" * 5_000) for n in range(200)]

        snapshot = take_snapshot(app.id, app, [])
        encoded = encode_snapshot(snapshot)
        for entry in entries:
            entry.close()
        for duty in duties:
            duty.close()

    assert len(snapshot.census) == len(snapshot.duties) == len(snapshot.subscribers) == ENTRIES
    assert len(encoded) <= LIMIT_BYTES
    read = decode_snapshot(encoded)
    assert read is not None
    assert read.counts["file"] == 500
    assert read.counts["subscription"] == 200
    assert 0 < len(read.census) < ENTRIES


def test_what_is_no_snapshot_is_left_out() -> None:
    assert [decode_snapshot(message) for message in (b"", b"\xc1", b"\x80", b"hello")] == [None] * 4
