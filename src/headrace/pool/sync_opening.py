"""Opening connections by the hands of the threads that wait; one guarded attempt after another while nobody answers.

A thread that waits opens a connection when the ledger wants one more, and what it opens goes to whoever is first in
line then. While the server is away one thread at a time tries, after a back-off with jitter: 300 waiting threads make
no storm. An attempt that hangs, since packets vanish, is joined by a few more. Everything here happens under the lock
of the pool, but for the opening itself.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from headrace.pool.backoff import BACKOFF_FIRST, BACKOFF_MOST
from headrace.pool.client_errors import open_error
from headrace.pool.opening import HANGING, is_final, patience_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.pool.ledger import Ledger
    from headrace.pool.options import PoolOptions

logger = logging.getLogger(__name__)

NEVER: Final = float("inf")
#: Attempts under way at the same time while packets vanish: each hangs for up to `open_timeout`, 5 s unless set, and
#: one that begins within a second after the server is back must find it.
HANGING_ATTEMPTS: Final = 6


class Owner(Protocol):
    """What the lending needs of the pool."""

    def make_connection(self) -> Any:
        """Make a connection that is not open yet."""
        ...

    def connect_once(self, connection: Any, seconds: float) -> None:
        """Open a connection, without repeating, each step within so many seconds."""
        ...

    def expects_pushes(self) -> bool:
        """Tell whether the server may send messages that nobody asked for."""
        ...


class Opener(Protocol):
    """What opening needs of the pool."""

    name: str

    def make(self) -> Any:
        """Make a connection that is not open yet."""
        ...

    def open(self, connection: Any, seconds: float) -> None:
        """Open it, each step within so many seconds."""
        ...

    def entered(self, connection: Any) -> None:
        """Take a connection that has been opened; called under the lock."""
        ...


class SyncOpening:
    """Say when a connection is to be opened, and keep in mind how it went.

    Args:
        pool: Makes connections and takes them.
        ledger: Says how many.
        options: Limits and durations.
    """

    def __init__(self, pool: Opener, ledger: Ledger[Any], options: PoolOptions) -> None:
        self._pool = pool
        self._ledger = ledger
        self._options = options
        self._backoff = BACKOFF_FIRST
        # How long one step of an attempt may take while the server is away; longer after each that hung for so long.
        self._hanging = HANGING
        self._next = 0.0
        # While attempts hang, no other begins before this time.
        self._next_beside = 0.0
        self._answered = 0.0
        #: Attempts under way; at most `open_parallel`, and HANGING_ATTEMPTS while the server is away.
        self.attempts = 0
        #: Since when the server has been away, and why; None while it answers.
        self.away_since: float | None = None
        self.last_error: BaseException | None = None

    def due(self, now: float) -> float:
        """Return when the next connection may be opened: by now at once, `NEVER` when nobody is to open one."""
        if not self._ledger.openings_wanted():
            return NEVER
        if self.away_since is None:
            return now if self.attempts < self._options.open_parallel else NEVER
        if self.attempts >= HANGING_ATTEMPTS:
            return NEVER
        return max(now, self._next, self._next_beside if self.attempts else 0.0)

    def begin(self) -> float:
        """Count an attempt that begins, and return how long each of its steps may take, seconds."""
        self._ledger.open_began()
        self.attempts += 1
        if self.away_since is None:
            return self._options.open_timeout
        # Why: while packets vanish, an attempt that hangs must not keep the next from finding the server again.
        seconds = min(self._options.open_timeout, self._hanging)
        self._next_beside = time.monotonic() + seconds / HANGING_ATTEMPTS
        return seconds

    def attempt(self, lock: Any, seconds: float) -> None:
        """Open one connection, after `begin` and without the lock.

        Raises:
            BaseException: What interrupted the thread; a failure is no exception here but told to those who wait.
        """
        began = time.monotonic()
        try:
            connection = self._pool.make()
            self._pool.open(connection, seconds)
        # Why: a login function or a credential provider of the user may raise anything; it belongs to those who wait.
        except Exception as error:  # noqa: BLE001 - handed to every waiter
            with lock:
                self._failed(error, began)
        except BaseException as error:
            with lock:
                self.attempts -= 1
                self._ledger.open_failed(error)
            raise
        else:
            with lock:
                self._succeeded()
                self._pool.entered(connection)

    def _succeeded(self) -> None:
        self.attempts -= 1
        since, self.away_since = self.away_since, None
        self._backoff, self._hanging, self.last_error = BACKOFF_FIRST, HANGING, None
        self._answered = time.monotonic()
        if since is not None:
            away = round(time.monotonic() - since, 3)
            logger.warning("server answers again", extra={"pool": self._pool.name, "away_s": away})

    def _failed(self, error: Exception, began: float) -> None:
        now = time.monotonic()
        self.attempts -= 1
        self._ledger.open_failed(error)
        if began < self._answered and not is_final(error):
            # Why: the server has answered another attempt since, so this one tells nothing about it.
            return
        self.last_error = error
        if self.away_since is None:
            self.away_since = now
            reason = str(error) or type(error).__name__
            logger.warning("server cannot be reached", extra={"pool": self._pool.name, "reason": reason[:300]})
        if now - began >= 0.9 * self._hanging:
            self._hanging = min(self._options.open_timeout, self._hanging * 2)
        self._next = now + random.uniform(0.0, self._backoff)  # noqa: S311 - jitter, no secret
        self._backoff = min(BACKOFF_MOST, self._backoff * 2)
        away = now - self.away_since
        waited = patience_after(error, away, self._options.reconnect_patience)
        self._ledger.refuse(error_maker(self._pool.name, error, away), now, waited)


def error_maker(name: str, error: Exception, away: float) -> Callable[[], Exception]:
    """Return what builds the error of each waiting thread, so that each raises its own."""
    return lambda: open_error(name, error, away)
