"""The pools that the contract is asked of, behind one way to call the asyncio ones and the threaded ones.

The contract is what redis-py's own `BlockingConnectionPool` gives to its clients. It is asked of redis-py's two classes
first, which shows that the tests demand no more than users have today, and then of ours.
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry

import headrace.pool
import headrace.pool.sync

if TYPE_CHECKING:
    from collections.abc import Callable

#: Nothing in these tests takes longer, seconds.
DEADLINE: Final = 10.0
#: Threads that may wait in a threaded pool at once, and so the most callers that a test can have.
THREADS: Final = 24


@dataclass
class Subject:
    """One pool class, with the client that belongs to it.

    Attributes:
        name: What the test's id shows.
        pool_class: The pool under test.
        library: `redis` or `redis.asyncio`.
        ours: Whether it is a class of Headrace, where it deliberately differs.
        threaded: Whether calls block their thread.
    """

    name: str
    pool_class: Any
    library: Any
    ours: bool
    threaded: bool
    _pools: list[Any] = field(default_factory=list)
    _threads: ThreadPoolExecutor | None = None

    def pool(self, **options: Any) -> Any:
        """Make a pool that is closed with the test."""
        return self._keep(self.pool_class(**options))

    def pool_from(self, url: str, **options: Any) -> Any:
        """Make a pool from a URL; it is closed with the test."""
        return self._keep(self.pool_class.from_url(url, **options))

    def client(self, pool: Any, **options: Any) -> Any:
        """Make a client that does not own its pool."""
        return self.library.Redis(connection_pool=pool, **options)

    async def do(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make one call that may wait, in a thread where it would block."""
        if self.threaded:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, "contract")
            future = asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **options))
            return await asyncio.wait_for(future, DEADLINE)
        answer = call(*args, **options)
        return await asyncio.wait_for(answer, DEADLINE) if inspect.isawaitable(answer) else answer

    def start(self, call: Callable[..., Any], *args: Any, **options: Any) -> asyncio.Task[Any]:
        """Make one call beside the test."""
        return asyncio.create_task(self.do(call, *args, **options))

    async def collect(self, items: Any) -> list[Any]:
        """Read an iterator to its end."""
        if self.threaded:
            return list(await self.do(list, items))
        return [item async for item in items]

    def connection_class(self, name: str = "Connection") -> Any:
        """Return one of redis-py's connection classes on this side."""
        return getattr(self.library, name)

    def retry(self, backoff: Any, retries: int, **options: Any) -> Any:
        """Return a retry policy of this side."""
        module: Any = redis.retry if self.threaded else redis.asyncio.retry
        return module.Retry(backoff, retries, **options)

    async def close(self, pool: Any) -> None:
        """Close a pool."""
        await self.do(pool.close if self.threaded else pool.aclose)

    async def finish(self) -> None:
        """Close all pools and end the threads."""
        for pool in self._pools:
            await self.close(pool)
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)

    def _keep(self, pool: Any) -> Any:
        self._pools.append(pool)
        return pool


def counts(pool: Any) -> tuple[int, int]:
    """Return how many connections are idle, and how many are in use, as the pool reports them to redis-py's metrics."""
    (idle, _), (used, _) = pool.get_connection_count()
    return idle, used


def subjects() -> dict[str, Callable[[], Subject]]:
    """Return what the contract is asked of, by the id of its tests."""
    pools: dict[str, tuple[Any, Any]] = {
        "redis-py-asyncio": (redis.asyncio.BlockingConnectionPool, redis.asyncio),
        "redis-py-threads": (redis.BlockingConnectionPool, redis),
        "headrace-asyncio": (headrace.pool.ConnectionPool, redis.asyncio),
        "headrace-threads": (headrace.pool.sync.ConnectionPool, redis),
    }
    return {
        name: partial(
            Subject, name, pool_class, library, ours=name.startswith("headrace"), threaded=name.endswith("threads")
        )
        for name, (pool_class, library) in pools.items()
    }
