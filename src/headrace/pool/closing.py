"""Closing connections that the ledger has taken out, and noticing those that the server ends while they are idle.

A connection counts until its socket is gone. One that ends by itself is noticed when it happens and not when somebody
borrows it: the stream tells, so nobody has to look.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from headrace.census import Kind
from headrace.pool.loops import weakly
from headrace.pool.transport import abort, has_ended, watch_end

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from headrace.census import Census, Entry
    from headrace.clock import Alarm, Duty
    from headrace.pool.ledger import Ledger, Member

#: Longest time that a closed connection may take to end; then its socket is dropped, seconds.
CLOSE_TIMEOUT: Final = 1.0


class Closing:
    """Know the open connections of a pool, and end them.

    Args:
        name: Name of the pool.
        ledger: The book.
        census: Where connections and tasks are entered.
        loop: The loop of the pool.
        need: Called when a place has come free.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger[AbstractConnection],
        census: Census,
        loop: asyncio.AbstractEventLoop,
        need: Callable[[], None],
    ) -> None:
        self._owner = f"pool {name}"
        self._name = f"{name}:client"
        self._ledger = ledger
        self._census = census
        self._loop = loop
        self._need = need
        # Bounded by the maximum, all three: one for each open connection, or for each that is being closed.
        self.entries: dict[AbstractConnection, Entry] = {}
        #: Connections whose stream has ended since they were opened.
        self.lost: set[AbstractConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping = False

    def entered(self, connection: AbstractConnection) -> None:
        """Enter a connection that was opened."""
        self.entries[connection] = self._census.add(Kind.CONNECTION, self._name, self._owner)
        watch_end(connection, weakly(self._note_end))

    def is_lost(self, connection: AbstractConnection) -> bool:
        """Tell whether a connection in `lost` is; its holder may have opened it anew, and then it is watched again."""
        if has_ended(connection):
            return True
        self.lost.discard(connection)
        watch_end(connection, weakly(self._note_end))
        return False

    def retire(self, members: Iterable[Member[AbstractConnection]], *, drop: bool = False) -> None:
        """End connections that the ledger has taken out; with `drop` at once, whatever is still to be written."""
        for member in members:
            connection = member.connection
            if drop:
                abort(connection)
            if not connection.is_connected:
                self._ended(connection)
                continue
            task = self._census.create_task(self._close(connection), name="close a connection", owner=self._owner)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def begin(self, end: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the end of the pool beside whoever waits for it."""
        return self._census.create_task(end, name="close the pool", owner=self._owner)

    async def wait(self) -> None:
        """Wait until all connections that are being closed have ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def forget(self) -> None:
        """Take all connections out of the census."""
        for entry in self.entries.values():
            entry.close()
        self.entries.clear()
        self.lost.clear()

    async def _close(self, connection: AbstractConnection) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await connection.disconnect()
        except asyncio.CancelledError:
            # Why: the loop ends, so nothing new is begun for the place that comes free.
            abort(connection)
            self._count(connection)
            raise
        except (TimeoutError, OSError, RedisError):
            abort(connection)
        self._ended(connection)

    def _ended(self, connection: AbstractConnection) -> None:
        self._count(connection)
        self._need()

    def _count(self, connection: AbstractConnection) -> None:
        self._ledger.closed()
        self.lost.discard(connection)
        entry = self.entries.pop(connection, None)
        if entry is not None:
            entry.close()

    def _note_end(self, connection: AbstractConnection) -> None:
        if connection not in self.entries:
            return
        self.lost.add(connection)
        if not self._sweeping:
            # Why: when a server ends, it ends all of them; they are looked for in one pass.
            self._sweeping = True
            self._loop.call_soon(self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        gone = self._ledger.retire_lost(self.lost, time.monotonic())
        self.retire(gone, drop=True)
        if gone:
            self._need()


def drop_all(
    name: str,
    loop: asyncio.AbstractEventLoop,
    runners: Sequence[Alarm | Duty],
    entries: dict[AbstractConnection, Entry],
) -> None:
    """End what a pool leaves that was dropped unclosed; called by the collector, maybe in another thread."""

    def end() -> None:
        for runner in runners:
            runner.close()
        for connection, entry in entries.items():
            abort(connection)
            entry.close()
        entries.clear()

    if entries:
        text = f"pool '{name}' was dropped with {len(entries)} connections open. Call `await pool.aclose()`."
        warnings.warn(text, ResourceWarning, stacklevel=2)
    # Why: the loop may close in between; then nothing runs any more that would have to end.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(end)
