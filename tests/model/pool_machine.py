"""A hypothesis machine that uses a real pool on a real server in any order, with cancels at any step of the loop.

Every socket that the pool opens is counted where it is made. The way to the server is cut and refused in between. What
a rule finds depends on time, so no rule has a condition: one that finds nothing to do does nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headrace.census import Census
from headrace.errors import ConnectionLost, PoolClosed, PoolTimeout
from headrace.ids import random_name
from headrace.pool.client_pool import ConnectionPool
from tests.support.pools import agrees, ask, seen

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from redis.asyncio.connection import AbstractConnection

    from tests.support.proxy import FaultProxy
    from tests.support.raw import Raw

LANES = ("jobs", "user")
EXPECTED = (PoolTimeout, PoolClosed, ConnectionLost)
steps = st.integers(0, 6)
indexes = st.integers(0, 20)
Task = asyncio.Task[Any]


class PoolMachine(RuleBasedStateMachine):
    """Callers, holders, operators, and a bad network; set `way` and `raw` in a subclass."""

    way: ClassVar[FaultProxy]
    raw: ClassVar[Raw]

    @initialize(maximum=st.integers(2, 5), minimum=st.integers(0, 2))
    def begin(self, maximum: int, minimum: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.name = f"machine-{random_name(8)}"
        self.census = Census()
        self.transports: list[asyncio.BaseTransport] = []
        self.most = maximum
        self.callers: list[tuple[str, Task]] = []
        self.others: list[Task] = []
        self.held: list[AbstractConnection] = []
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.way.refusing = False

        async def make() -> ConnectionPool:
            return ConnectionPool.from_url(
                self.way.url,
                max_connections=maximum,
                min_connections=minimum,
                lanes={"jobs": 1, "user": maximum - 1},
                census=self.census,
                client_name=self.name,
                reconnect_patience=0.05,
                check_timeout=0.3,
                socket_timeout=0.3,
                idle_timeout=0.05,
                max_lifetime=0.2,
                check_after=0.02,
                exhausted_after=0.01,
                retry=Retry(NoBackoff(), 0),
            )

        self.pool = self.run(make())
        create = self.loop.create_unix_connection

        async def counted(*args: Any, **options: Any) -> Any:
            transport, protocol = await create(*args, **options)
            self.transports.append(transport)
            return transport, protocol

        self.loop.create_unix_connection = counted  # type: ignore[method-assign]  # every socket is counted here

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 10.0))

    def turn(self, count: int, seconds: float = 0.0) -> None:
        """Let the loop go round so many times, and collect what callers got."""

        async def go_round() -> None:
            for _ in range(count):
                await asyncio.sleep(0)
            if seconds:
                await asyncio.sleep(seconds)

        self.run(go_round())
        for entry in [entry for entry in self.callers if entry[1].done()]:
            self.callers.remove(entry)
            task = entry[1]
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self.held.append(task.result())
            else:
                assert isinstance(error, EXPECTED), repr(error)

    def open_sockets(self) -> int:
        self.transports = [each for each in self.transports if each.get_extra_info("socket").fileno() >= 0]
        return len(self.transports)

    # What callers do

    @rule(lane=st.sampled_from(LANES), timeout=st.sampled_from([0.0, 0.01, 5.0, 5.0]), count=steps)
    def acquire(self, lane: str, timeout: float, count: int) -> None:
        view = self.pool.lane(lane)
        view.timeout = timeout
        self.callers.append((lane, self.loop.create_task(view.get_connection())))
        self.turn(count)

    @rule(index=indexes, count=steps)
    def cancel(self, index: int, count: int) -> None:
        if not self.callers:
            return
        self.callers[index % len(self.callers)][1].cancel()
        self.turn(count)

    @rule(index=indexes, count=steps, cancelled=st.booleans())
    def release(self, index: int, count: int, *, cancelled: bool) -> None:
        if not self.held:
            return
        connection = self.held.pop(index % len(self.held))
        releasing = self.loop.create_task(self.pool.release(connection))
        self.turn(count + 1)
        if cancelled:
            releasing.cancel()
        self.others.append(releasing)

    @rule(index=indexes, count=steps)
    def hand_over_and_cancel_at_once(self, index: int, count: int) -> None:
        """The turn goes to somebody who is cancelled before he can take it."""
        if not self.held:
            return
        self.others.append(self.loop.create_task(self.pool.release(self.held.pop(index % len(self.held)))))
        self.turn(1)
        for _, caller in self.callers[:2]:
            caller.cancel()
        self.turn(count)

    @rule(index=indexes)
    def send_a_command(self, index: int) -> None:
        if not self.held:
            return
        connection = self.held[index % len(self.held)]

        async def send() -> None:
            try:
                assert await ask(connection, "ECHO", self.name) in {self.name, self.name.encode()}
            except (redis.RedisError, OSError):
                await connection.disconnect()

        self.run(send())

    @rule(index=indexes)
    def break_one(self, index: int) -> None:
        if not self.held:
            return
        self.run(self.held[index % len(self.held)].disconnect())

    # What the network and operators do

    @rule()
    def cut(self) -> None:
        self.way.cut()
        self.turn(1, 0.003)

    @rule(refusing=st.booleans())
    def refuse(self, *, refusing: bool) -> None:
        self.way.refusing = refusing

    @rule(maximum=st.integers(2, 5), minimum=st.integers(0, 2), count=steps)
    def resize(self, maximum: int, minimum: int, count: int) -> None:
        self.run(self.pool.resize(maximum=maximum, minimum=minimum))
        self.most = max(self.most, maximum)
        self.turn(count)

    @rule(count=steps)
    def disconnect_idle(self, count: int) -> None:
        self.others.append(self.loop.create_task(self.pool.disconnect(inuse_connections=False)))
        self.turn(count)

    @rule(count=steps, again=st.booleans())
    def close(self, count: int, *, again: bool) -> None:
        self.others.append(self.loop.create_task(self.pool.aclose()))
        self.turn(count)
        if again:
            self.others.append(self.loop.create_task(self.pool.start()))
        self.turn(count)

    @rule()
    def start(self) -> None:
        self.others.append(self.loop.create_task(self.pool.start()))
        self.turn(2)

    @rule(milliseconds=st.sampled_from([1, 5, 60]))
    def let_time_pass(self, milliseconds: int) -> None:
        self.turn(1, milliseconds / 1000)

    # What holds after every step

    @invariant()
    def the_bound_holds(self) -> None:
        if not hasattr(self, "pool"):
            return
        ledger = self.pool._core.ledger
        # A socket that was dropped is closed in the next turn, before anything that begins in it.
        self.turn(1)
        assert self.open_sockets() <= ledger.total <= self.most
        if ledger.total <= self.pool.max_connections:
            self.most = self.pool.max_connections
        stats = self.pool.stats()
        assert stats.total == stats.active + stats.idle
        assert stats.waiting <= len(self.callers)
        # The rest is being checked, or was handed over and not taken yet.
        assert len(self.held) <= stats.active + self.outlived() <= len(self.held) + len(self.callers) + self.outlived()
        assert self.complaints == []

    def outlived(self) -> int:
        return sum(connection not in self.pool._core.ledger.leased for connection in self.held)

    def teardown(self) -> None:
        """When the network is well and all is released, everybody is served or told, and nothing is left."""
        if not hasattr(self, "pool"):
            return
        try:
            self.way.refusing = False
            self.run(self.let_end())
            assert self.complaints == []
        finally:
            self.loop.close()

    async def let_end(self) -> None:
        while self.callers or self.held:
            for connection in self.held:
                await self.pool.release(connection)
            self.held.clear()
            await asyncio.sleep(0.001)
            for entry in [entry for entry in self.callers if entry[1].done()]:
                self.callers.remove(entry)
                task = entry[1]
                if not task.cancelled() and task.exception() is None:
                    self.held.append(task.result())
                elif not task.cancelled():
                    assert isinstance(task.exception(), EXPECTED), repr(task.exception())
        for end in await asyncio.gather(*self.others, return_exceptions=True):
            assert end is None or isinstance(end, (*EXPECTED, asyncio.CancelledError)), repr(end)
        await self.still_works()
        await self.pool.aclose()
        agrees(self.pool)
        assert self.pool.stats().total == self.pool._core.ledger.total == 0
        assert self.census.entries() == []
        await asyncio.sleep(0)
        assert self.open_sockets() == 0
        assert asyncio.all_tasks() == {asyncio.current_task()} | self.waiting_for_this()
        for _ in range(500):
            if seen(self.raw, self.name) == 0:
                return
            await asyncio.sleep(0.002)
        raise AssertionError("the server still sees connections")

    async def still_works(self) -> None:
        """Whatever happened, the pool lends its maximum when it is asked."""
        for _ in range(3):
            try:
                await self.pool.start()
            except ConnectionLost:
                continue
            break
        views = [self.pool.lane(lane) for lane, row in self.pool.stats().lanes.items() for _ in range(row.share)]
        for _ in range(5):
            ends = await asyncio.gather(*(view.get_connection() for view in views), return_exceptions=True)
            got = [end for end in ends if not isinstance(end, BaseException)]
            for connection in got:
                await self.pool.release(connection)
            if len(got) == self.pool.max_connections:
                return
            # Patience is so short here that a machine that stands still for a moment uses it up.
            assert all(isinstance(end, ConnectionLost) for end in ends if isinstance(end, BaseException)), ends
        raise AssertionError("the pool does not lend its maximum")

    @staticmethod
    def waiting_for_this() -> set[Task]:
        """The task of `wait_for`, which is not the one that runs in it."""
        return {task for task in asyncio.all_tasks() if "wait_for" in repr(task.get_coro())}
