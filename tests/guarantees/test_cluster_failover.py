"""Workers go on through the loss, the change and the move of a node: every job is run, none is completed twice.

Replication is asynchronous: a primary that dies takes with it what it has acknowledged and not yet passed on, and no
client can know. The kill therefore strikes while the primary holds back its writes and its replica has caught up; calls
that were sent meanwhile get no answer. docs/workers.md says what is lost otherwise.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from headrace.errors import ConnectionLost
from headrace.store.box import slot_of
from tests.support.cluster import Cluster, slot_ranges, wait_until
from tests.support.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.apps.journal import JournalApp
    from tests.support.cluster import Node

#: Longer than a failover takes, so that no lease runs out and each job runs once, seconds.
LEASE = 20.0
#: The journal's tasks are on this queue.
QUEUE = "work"
#: Jobs that ended before the fault strikes, and after it.
BEFORE, AFTER = 200, 300


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of the test alone, which harms it."""
    with Cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def hands(own: Cluster) -> Iterator[Crew]:
    """Worker processes and apps on that cluster."""
    with Crew(own.url, "t-failover") as crew:
        yield crew


class Producer:
    """Enqueues a few jobs again and again; `accepted` counts those whose enqueue returned."""

    def __init__(self, app: JournalApp, queue: str = QUEUE) -> None:
        self.accepted = 0
        self._step = app.step.using(queue=queue)

    async def run(self) -> None:
        while True:
            await self._step.enqueue_many([((self.accepted + more, 0.005),) for more in range(10)])
            self.accepted += 10
            await asyncio.sleep(0.005)


async def run_through(hands: Crew, fault: Callable[[], Awaitable[None]]) -> None:
    """Produce jobs and run them in another process before, during and after a fault."""
    worker = await hands.worker(concurrency=20, lease=LEASE)
    async with hands.app(lease=LEASE) as app:
        producer = Producer(app)
        producing = asyncio.create_task(producer.run())
        await hands.journal.until("end", BEFORE)
        await fault()
        struck = len(hands.journal("end"))
        waiting = asyncio.ensure_future(hands.journal.until("end", struck + AFTER))
        await asyncio.wait({waiting, producing}, return_when=asyncio.FIRST_COMPLETED)
        assert not producing.done() or producing.exception() is None, producing.exception()
        await waiting
        producing.cancel()
        await asyncio.gather(producing, return_exceptions=True)
        await app.queue(QUEUE).drain(timeout=20.0)
        stats = await app.queue(QUEUE).stats()
    await worker.stop()

    ends = Counter(entry["job"] for entry in hands.journal("end"))
    assert set(ends.values()) == {1}, "no job ran twice, since no lease ran out"
    assert stats.completed == len(ends), "each job was completed, and none twice"
    assert stats.failed == stats.retried == stats.stalled == 0
    ended = {entry["number"] for entry in hands.journal("end")}
    assert set(range(producer.accepted)) <= ended, "every job whose enqueue returned was run"


@pytest.mark.slow
async def test_all_jobs_run_once_when_a_primary_is_killed_under_load(own: Cluster, hands: Crew) -> None:
    primary = own.primary_of(slot_of(QUEUE))
    replica = own.replica_of(primary)

    async def kill() -> None:
        await asyncio.to_thread(kill_in_step, primary, replica)

    await run_through(hands, kill)

    assert own.primary_of(slot_of(QUEUE)) is replica
    assert not primary.is_running

    # Red when: Cluster keeps the slot map that it had when it opened.


def kill_in_step(primary: Node, replica: Node) -> None:
    """Kill a primary while it holds back writes and its replica has all that it acknowledged."""
    primary("CLIENT", "PAUSE", 10_000, "WRITE")
    written = int(primary.info("replication")["master_repl_offset"])
    wait_until(lambda: int(replica.info("replication")["master_repl_offset"]) >= written, "the replica caught up")
    primary.kill()


@pytest.mark.slow
async def test_all_jobs_run_once_when_a_replica_takes_over_by_order(own: Cluster, hands: Crew) -> None:
    primary = own.primary_of(slot_of(QUEUE))
    replica = own.replica_of(primary)

    async def take_over() -> None:
        replica("CLUSTER", "FAILOVER")
        await asyncio.to_thread(wait_until, lambda: replica.info("replication")["role"] == "master", "it is primary")

    await run_through(hands, take_over)

    assert own.primary_of(slot_of(QUEUE)) is replica
    assert primary.info("replication")["role"] == "slave"

    # Red when: read_redirect takes MOVED for the answer of the command.


@pytest.mark.slow
async def test_all_jobs_run_once_when_the_slot_of_the_queue_moves(own: Cluster, hands: Crew) -> None:
    slot = slot_of(QUEUE)
    source = own.primary_of(slot)
    target = next(node for node in own.nodes[:3] if node is not source)

    await run_through(hands, lambda: asyncio.to_thread(move_slot, own, slot, source, target))

    assert own.primary_of(slot) is target
    assert target("CLUSTER", "COUNTKEYSINSLOT", slot) > 0

    # Red when: read_redirect takes TRYAGAIN for the answer of the command.


@pytest.mark.slow
async def test_queues_of_the_other_nodes_go_on_while_a_node_is_gone_for_good(own: Cluster, hands: Crew) -> None:
    primary = own.primary_of(slot_of(QUEUE))
    other = next(name for name in ("two", "three") if own.primary_of(slot_of(name)) is not primary)
    for node in own.nodes:
        node("CONFIG", "SET", "cluster-require-full-coverage", "no")
    await hands.worker(concurrency=20, lease=LEASE, queues=f"{QUEUE},{other}")
    async with hands.app(lease=LEASE, redis_acquire_timeout=1.0) as app:
        await app.step.enqueue_many([((number, 0.2),) for number in range(100)])
        await hands.journal.until("start", 20)
        await asyncio.to_thread(own.replica_of(primary).kill)
        await asyncio.to_thread(primary.kill)
        began = len(hands.journal("end"))

        producing = asyncio.create_task(Producer(app, other).run())
        # Less than the time that one round trip of a worker may take.
        await hands.journal.until("end", began + 500, timeout=8.0)

        producing.cancel()
        await asyncio.gather(producing, return_exceptions=True)
        with pytest.raises(ConnectionLost):
            await app.step.enqueue(0)

    # Red when: a round trip of a worker waits its whole time for the one node that is gone.


def move_slot(own: Cluster, slot: int, source: Node, target: Node) -> None:
    """Move a slot while it is used, as `valkey-cli --cluster reshard` does."""
    target("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    while keys := source("CLUSTER", "GETKEYSINSLOT", slot, 10):
        source("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
    for node in (target, source, *own.nodes[:3]):
        node("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    wait_until(lambda: all(owner_of(node, slot) == target.id for node in own.nodes), "all know who has the slot")


def owner_of(node: Node, slot: int) -> str:
    return next(owner for low, high, owner in slot_ranges(node) if low <= slot <= high)
