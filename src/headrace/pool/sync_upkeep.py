"""The one thread of a process that looks after all of its synchronous pools.

It closes what is idle or old or dead, reports long holds, keeps the minimum open and writes the line in the log. It
starts with the first pool that is used and ends with the last one that is closed or forgotten. No pool depends on it to
lend: without it, threads that wait open what they need.

Why a thread: nobody calls a pool that is idle, and a connection that is held too long is one that nobody releases.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from headrace.census import Census, CensusRow, Kind
from headrace.pool.loops import watch_forks

if TYPE_CHECKING:
    from headrace.census import Entry

logger = logging.getLogger(__name__)

#: Longest sleep of the thread; a pool that was forgotten without being closed is noticed after it, seconds.
LONGEST: Final = 1.0
#: Longest wait for the thread to end with the last pool, seconds.
END_TIMEOUT: Final = 5.0


class Tended(Protocol):
    """A pool that is looked after."""

    name: str

    def upkeep(self, now: float) -> float:
        """Look after the pool, and return when to come again."""
        ...


class SyncUpkeep:
    """Call the upkeep of each pool when it is due."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._entry: Entry | None = None
        self._begin()
        watch_forks(self)

    def abandon(self) -> None:
        """Begin without pools and without the parent's thread; pools come again when they are used."""
        self._begin()

    def add(self, pool: Tended) -> None:
        """Look after a pool from now on."""
        with self._condition:
            self._pools[pool] = 0.0
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headrace pool upkeep", daemon=True)
                self._entry = self.census.add(Kind.THREAD, self._thread.name, "pool upkeep", self._thread)
                self._thread.start()
            else:
                self._condition.notify()

    def remove(self, pool: Tended) -> None:
        """Look after a pool no more."""
        with self._condition:
            self._pools.pop(pool, None)
            self._condition.notify()

    def await_end(self) -> None:
        """Wait for the thread to end, when no pool is left."""
        with self._condition:
            thread = self._thread if not self._pools else None
        if thread is not None and thread is not threading.current_thread():
            thread.join(END_TIMEOUT)

    def wake(self, pool: Tended) -> None:
        """Look after this pool at once."""
        self.call(pool, 0.0)

    def call(self, pool: Tended, when: float) -> None:
        """Look after this pool at a time of the monotonic clock, or sooner."""
        with self._condition:
            if pool in self._pools and when < self._pools[pool]:
                self._pools[pool] = when
                self._condition.notify()

    def rows(self) -> list[CensusRow]:
        """List the thread while it runs."""
        return self.census.entries()

    def _begin(self) -> None:
        # Weak, so bounded by the pools that are in use.
        self._pools: weakref.WeakKeyDictionary[Tended, float] = weakref.WeakKeyDictionary()
        # Why: a lock that a thread may take again, since a collection of garbage may end a pool at any line.
        self._condition = threading.Condition(threading.RLock())
        self._thread = self._entry = None
        self.census = Census()

    def _run(self) -> None:
        while self._sleep():
            self._tend(time.monotonic())

    def _tend(self, now: float) -> None:
        # Why: a function of its own, so that no name of it keeps a forgotten pool alive while the thread sleeps.
        for pool in self._due(now):
            try:
                again = pool.upkeep(now)
            # Why: the edge of a duty; one pool's fault must not end the upkeep of the others.
            except Exception:
                logger.exception("upkeep of a pool failed", extra={"pool": pool.name})
                again = now + LONGEST
            with self._condition:
                if self._pools.get(pool) == now:
                    self._pools[pool] = again

    def _due(self, now: float) -> list[Tended]:
        with self._condition:
            due = [pool for pool, when in self._pools.items() if when <= now]
            for pool in due:
                self._pools[pool] = now
            return due

    def _sleep(self) -> bool:
        """Wait until a pool is due; returns False, and forgets the thread, when there is no pool any more."""
        with self._condition:
            while self._pools:
                now = time.monotonic()
                pause = min(self._pools.values(), default=now) - now
                if pause <= 0:
                    return True
                self._condition.wait(min(pause, LONGEST))
            self._thread = None
            if self._entry is not None:
                self._entry.close()
            return False


#: The one of this process.
sync_upkeep: Final = SyncUpkeep()
