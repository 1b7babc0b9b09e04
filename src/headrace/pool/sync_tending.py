"""What a pool for threads does when nobody calls it: dead connections, threads that open the minimum."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.census import Census, Kind
from headrace.pool.ledger import ENDED_IDLE
from headrace.pool.sync_socket import is_clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Entry
    from headrace.pool.ledger import Ledger, Member
    from headrace.pool.sync_line import Line
    from headrace.pool.sync_opening import SyncOpening

logger = logging.getLogger(__name__)

#: Threads that open the minimum of one pool at the same time.
MOST_HELPERS: Final = 8
#: Idle connections that one upkeep looks at for a closed socket, the longest unused first.
MOST_LOOKED_AT: Final = 256


class Helpers:
    """Open what is wanted and nobody waits for, in parallel, by threads that end when it is open.

    Args:
        name: Name of the pool.
        lock: Its lock.
        opening: Says when a connection is to be opened.
        line: Those who wait.
        census: Where the threads are entered.
    """

    def __init__(self, name: str, lock: threading.RLock, opening: SyncOpening, line: Line, census: Census) -> None:
        self._name = f"headrace pool opening of {name}"
        self._owner = f"pool {name}"
        self._lock = lock
        self._opening = opening
        self._line = line
        self._census = census
        # Bounded: MOST_HELPERS.
        self._threads: dict[threading.Thread, Entry] = {}

    def help(self, wanted: int) -> None:
        """Start threads for so many connections; called under the lock."""
        now = time.monotonic()
        if self._opening.due(now) > now:
            return
        for _ in range(min(wanted, MOST_HELPERS - len(self._threads))):
            thread = threading.Thread(target=self._open_wanted, name=self._name, daemon=True)
            self._threads[thread] = self._census.add(Kind.THREAD, self._name, self._owner, thread)
            thread.start()

    def await_all(self) -> None:
        """Wait until no helper is at work."""
        while True:
            with self._lock:
                threads = list(self._threads)
            if not threads:
                return
            for thread in threads:
                thread.join()

    def _open_wanted(self) -> None:
        try:
            while True:
                with self._lock:
                    now = time.monotonic()
                    if self._line.closed is not None or self._opening.due(now) > now:
                        return
                    seconds = self._opening.begin()
                self._opening.attempt(self._lock, seconds)
        finally:
            with self._lock:
                self._threads.pop(threading.current_thread()).close()
                self._line.nudge()


def retire_dead(ledger: Ledger[Any], pushes: Callable[[], bool]) -> list[Member[Any]]:
    """Take out idle connections that the server has closed, to be closed by the caller; called under the lock."""
    dead = [
        member
        for member in ledger.idle[:MOST_LOOKED_AT]
        if not member.connection.is_connected or not is_clean(member.connection, pushes)
    ]
    for member in dead:
        ledger.retire_idle(member)
        ledger.count_broken(ENDED_IDLE)
    return dead
