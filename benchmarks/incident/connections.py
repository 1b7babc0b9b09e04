"""The incident's pool: 20 connections of redis-py, lent first in, first out, and more than 20 when many ask at once.

The fault is an ordinary one. `acquire` compares the size with the maximum, awaits the opening of a connection, and
counts it after that. Whoever asks during the await sees the old size, and opens one too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import redis.asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class ServicePool:
    """Lend connections to one server.

    Args:
        url: The server.
        maximum: Connections that it should not pass.
        minimum: Connections opened at the start.
        timeout: Longest wait for a connection, seconds.
    """

    def __init__(self, url: str, *, maximum: int = 20, minimum: int = 5, timeout: float = 10.0) -> None:
        self._factory = redis.asyncio.ConnectionPool.from_url(url, decode_responses=True)
        self._minimum = minimum
        self._timeout = timeout
        self._idle: deque[Any] = deque()
        self._waiters: deque[asyncio.Future[Any]] = deque()
        self.maximum = maximum
        self.total = 0
        self.errors = 0

    @property
    def in_use(self) -> int:
        """Connections that are lent."""
        return self.total - len(self._idle)

    @property
    def idle(self) -> int:
        """Connections that are not."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Callers without a connection."""
        return sum(not waiter.done() for waiter in self._waiters)

    async def start(self) -> None:
        """Open the minimum."""
        for _ in range(self._minimum):
            self._idle.append(await self._open())

    async def acquire(self) -> Any:
        """Take a connection, or wait for one in order of arrival.

        Raises:
            TimeoutError: The wait ran out.
        """
        if self._idle:
            return self._idle.popleft()
        if self.total < self.maximum:
            return await self._open()
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._timeout):
                return await waiter
        except TimeoutError:
            self.errors += 1
            if waiter.done() and not waiter.cancelled():
                self.release(waiter.result())
            raise

    def release(self, connection: Any) -> None:
        """Give a connection back, to the next who waits if there is one."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Hold a connection for a block."""
        connection = await self.acquire()
        try:
            yield connection
        finally:
            self.release(connection)

    async def call(self, *command: object) -> Any:
        """Send one command on a connection taken for it, as a redis-py client does."""
        async with self.connection() as connection:
            return await send(connection, *command)

    async def close(self) -> None:
        """Close what is idle; what is lent ends with the process."""
        while self._idle:
            await self._idle.popleft().disconnect()

    async def _open(self) -> Any:
        connection = self._factory.make_connection()  # type: ignore[no-untyped-call]  # redis-py has no types here
        await connection.connect()
        self.total += 1
        return connection


async def send(connection: Any, *command: object) -> Any:
    """Send one command on a connection and return its reply."""
    await connection.send_command(*command)
    return await connection.read_response()
