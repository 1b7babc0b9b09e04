"""Opening connections for all who wait: in parallel while the server answers, by one guarded series while it does not.

Nobody who waits opens a connection himself. What is opened goes to whoever is first in line then, so a caller who gives
up costs nothing, and who waits for an opening is served by a release that comes sooner. While the server is away there
is one series of attempts for all callers, with back-off and jitter: 300 callers make no storm.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final, Protocol

import redis.exceptions
from redis.exceptions import AuthenticationError, AuthorizationError, ResponseError

from headrace.pool.backoff import BACKOFF_FIRST, BACKOFF_MOST
from headrace.pool.client_errors import open_error
from headrace.pool.loops import weakly
from headrace.pool.transport import abort

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from headrace.census import Census
    from headrace.clock import Alarm, Clock
    from headrace.pool.ledger import Ledger
    from headrace.pool.options import PoolOptions

logger = logging.getLogger(__name__)

#: Attempts under way at the same time while the server is away. One that hangs, since its packets vanish, must not keep
#: the next from finding the server when it is back.
AWAY_ATTEMPTS: Final = 4
#: An attempt may be given up for a new one after this, seconds.
HANGING: Final = 1.0


class Opener(Protocol):
    """What opening needs of the pool."""

    name: str

    def make(self) -> AbstractConnection:
        """Make a connection that is not open yet."""
        ...

    def entered(self, connection: AbstractConnection) -> None:
        """Take a connection that has been opened."""
        ...

    def refuse(self, make_error: Callable[[], Exception], *, waited: float) -> None:
        """End the waits of those who have waited for at least so many seconds."""
        ...


class Opening:
    """Open as many connections as the ledger wants.

    Args:
        pool: Makes connections and takes them.
        ledger: Says how many.
        options: Limits and durations.
        census: Where the attempts are entered.
        clock: Wakes for the next attempt.
    """

    def __init__(
        self, pool: Opener, ledger: Ledger[AbstractConnection], options: PoolOptions, census: Census, clock: Clock
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._options = options
        self._census = census
        # Bounded: `open_parallel` while the server answers, AWAY_ATTEMPTS while it does not. Oldest first.
        self._attempts: dict[asyncio.Task[None], float] = {}
        # Those of them that were given up since they took too long.
        self._hanging: set[asyncio.Task[None]] = set()
        self._alarm: Alarm = clock.alarm("open a connection", weakly(self._attempt), owner=f"pool {pool.name}")
        #: What runs on the clock.
        self.runners = (self._alarm,)
        self._clock = clock
        self._backoff = BACKOFF_FIRST
        # No attempt begins before this time of the clock while the server is away, whoever asks.
        self._not_before = 0.0
        # Whether the server answered, and refused for good: then nothing but a caller or the upkeep asks again.
        self._refused = False
        #: Since when the server has been away, and why; None while it answers.
        self.away_since: float | None = None
        self.last_error: Exception | None = None
        self._closed = False

    def need(self) -> None:
        """Open what the ledger wants by now; called after each change that may make it want more."""
        wanted = self._ledger.openings_wanted()
        if wanted <= 0 or self._closed:
            return
        if self.away_since is not None:
            if self._alarm.when is None:
                self._alarm.set(max(self._clock.now(), self._not_before))
            return
        for _ in range(min(wanted, self._options.open_parallel - len(self._attempts))):
            self._start()

    async def opened_all(self) -> None:
        """Wait until no attempt is under way; the last error, if any, is in `last_error`."""
        while self._attempts:
            await asyncio.wait(list(self._attempts))

    async def close(self) -> None:
        """Give up all attempts."""
        self._closed = True
        self._alarm.close()
        attempts = list(self._attempts)
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)

    def _start(self) -> None:
        self._ledger.open_began()
        task = self._census.create_task(self._open(), name="open a connection", owner=f"pool {self._pool.name}")
        self._attempts[task] = time.monotonic()
        task.add_done_callback(self._ended)
        self._watch_hanging()

    def _watch_hanging(self) -> None:
        """Come back for the oldest attempt when it has taken too long."""
        if self.away_since is None and self._alarm.when is None and self._attempts:
            oldest = next(iter(self._attempts.values()))
            self._alarm.set(self._clock.now() + max(0.0, oldest + HANGING - time.monotonic()))

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Why: here and not in the task, since one that is cancelled before its first step runs none of its code.
        del self._attempts[task]
        if not task.cancelled() and task.exception() is None:
            if not self._refused:
                self.need()
            self._watch_hanging()
            return
        # Why: no task is begun from here on, since the loop may be ending and cancels all tasks.
        if task in self._hanging:
            self._hanging.discard(task)
            self._failed(TimeoutError(f"no answer within {HANGING:g} s"))
            return
        self._ledger.open_failed(None)
        if not self._closed and self._alarm.when is None and self._ledger.lacks():
            self._set_alarm()

    def _set_alarm(self) -> None:
        """Space out the attempts: full jitter up to the present back-off."""
        self._not_before = self._clock.now() + random.uniform(0.0, self._backoff)  # noqa: S311 - jitter, no secret
        self._alarm.set(self._not_before)

    def _attempt(self) -> None:
        """Make the next attempt while the server is away, and find out that it is when attempts hang."""
        if self._closed or not self._ledger.lacks():
            return
        now = time.monotonic()
        if self.away_since is None:
            if not self._attempts:
                self.need()
                return
            if now - next(iter(self._attempts.values())) < HANGING:
                self._watch_hanging()
                return
            # Why: what it was sent has vanished without a word. From here on there is one series of attempts.
            self._left(now, f"no answer within {HANGING:g} s")
            for hanging in list(self._attempts)[: max(0, len(self._attempts) - AWAY_ATTEMPTS + 1)]:
                self._give_up(hanging)
        elif self._attempts and (len(self._attempts) >= AWAY_ATTEMPTS or self._ledger.is_full()):
            oldest, began = next(iter(self._attempts.items()))
            if now - began >= HANGING:
                self._give_up(oldest)
        elif not self._ledger.is_full():
            self._start()
        self._set_alarm()
        self._backoff = min(BACKOFF_MOST, self._backoff * 2)

    def _give_up(self, attempt: asyncio.Task[None]) -> None:
        self._hanging.add(attempt)
        attempt.cancel()

    async def _open(self) -> None:
        connection: AbstractConnection | None = None
        try:
            async with asyncio.timeout(self._options.open_timeout):
                connection = self._pool.make()
                # Why: `connect` would repeat by redis-py's own rule, past the guard; this is one attempt of it.
                await connection.connect_check_health(check_health=True, retry_socket_connect=False)
        except asyncio.CancelledError:
            if connection is not None:
                abort(connection)
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Why: nobody cancelled this attempt; the user's login function cancelled something of its own.
            self._failed(ConnectionError("the login was cancelled from inside"))
        # Why: a login function or a credential provider of the user may raise anything; it belongs to those who wait.
        except Exception as error:  # noqa: BLE001 - handed to every waiter
            if connection is not None:
                abort(connection)
            self._failed(unwrap(error))
        else:
            self._succeeded(connection)

    def _succeeded(self, connection: AbstractConnection) -> None:
        since, self.away_since = self.away_since, None
        self._backoff = BACKOFF_FIRST
        self._refused = False
        self.last_error = None
        self._alarm.set(None)
        if since is not None:
            away = time.monotonic() - since
            # Why: what began long before this attempt was sent to a server that is gone, and would hold its place.
            task = asyncio.current_task()
            mine = self._attempts[task] if task is not None else 0.0
            for older in [older for older, began in self._attempts.items() if began < mine - HANGING / 10]:
                older.cancel()
            logger.warning("server answers again", extra={"pool": self._pool.name, "away_s": round(away, 3)})
        self._pool.entered(connection)

    def _failed(self, error: Exception) -> None:
        self._ledger.open_failed(error)
        self.last_error = error
        now = time.monotonic()
        if self.away_since is None:
            self._left(now, str(error) or type(error).__name__)
        away = now - (self.away_since or now)
        self._refused = is_final(error)
        waited = patience_after(error, away, self._options.reconnect_patience)
        self._pool.refuse(lambda: open_error(self._pool.name, error, away), waited=waited)
        if self._refused:
            # Why: a login that was refused is tried again when somebody asks, or at the next upkeep, and not in a
            # series, which may lock the user out.
            self._alarm.set(None)
        elif self._alarm.when is None and self._ledger.lacks():
            self._set_alarm()

    def _left(self, now: float, reason: str) -> None:
        self.away_since = now
        self._backoff = BACKOFF_FIRST
        # The alarm for hanging attempts is of no use any more.
        self._alarm.set(None)
        logger.warning("server cannot be reached", extra={"pool": self._pool.name, "reason": reason[:300]})


def unwrap(error: Exception) -> Exception:
    """Return what redis-py has wrapped whole, as it does with a refused login on a unix socket.

    Example:
        >>> type(unwrap(redis.exceptions.ConnectionError(AuthenticationError("WRONGPASS")))).__name__
        'AuthenticationError'
    """
    inner = error.args[0] if type(error) is redis.exceptions.ConnectionError and error.args else None
    return inner if isinstance(inner, Exception) else error


def is_final(error: Exception) -> bool:
    """Tell whether waiting cannot help: the login or the configuration is wrong."""
    if isinstance(error, AuthenticationError | AuthorizationError | ResponseError):
        return True
    return not isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError | OSError)


def patience_after(error: Exception, away: float, patience: float) -> float:
    """Return how long somebody has to have waited, seconds, to be told of an attempt that failed.

    Args:
        error: What the attempt raised.
        away: Seconds since the server went away.
        patience: The pool's `reconnect_patience`.

    Example:
        >>> lost, wrong = ConnectionRefusedError(), AuthenticationError("WRONGPASS")
        >>> patience_after(lost, 0.2, 1.0), patience_after(lost, 5.0, 1.0), patience_after(wrong, 0.2, 1.0)
        (1.0, 0.1, 0.0)
    """
    if is_final(error):
        return 0.0
    # Why: when it has been away for long, whoever has waited for this attempt need not wait for the next.
    return patience if away < patience else min(patience, HANGING / 10)
