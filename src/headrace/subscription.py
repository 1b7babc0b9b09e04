"""Events and subscriptions: the bounded buffer of one subscriber, and how its callback is called.

A subscription takes events from any thread, keeps the newest up to its limit, and hands them to its callback on the
loop: a plain function directly, a coroutine function in a task. Errors and losses are counted and named in the log. Who
gets which event is decided by `headrace.events`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import math
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias

import msgspec

from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger(__name__)

LIMIT_MAXIMUM: Final = 1_000_000
BATCH: Final = 256
REPORT_INTERVAL: Final = 60.0
SLOW_AFTER: Final = 5.0
"""A subscriber whose oldest waiting event is so many seconds older than the newest is slow."""

_NAME = r"[a-z0-9_]+(?:\.[a-z0-9_]+)*"
_PATTERN: Final = re.compile(rf"\*|{_NAME}(?:\.\*)?", re.ASCII)


class Event(msgspec.Struct, frozen=True, eq=False):
    """Something that happened.

    Attributes:
        name: What happened: `job.completed`.
        at: When, in seconds since 1970.
        fields: The facts; they cannot be changed, for others see them too.
    """

    name: str
    at: float
    fields: Mapping[str, Any]


Callback: TypeAlias = "Callable[[Event], object]"
"""What a subscriber hands over: a plain function, called on the loop, or a coroutine function, awaited in a task."""


@dataclass(frozen=True, slots=True)
class SubscriptionStats:
    """What is known of one subscriber.

    Attributes:
        event: The name or pattern that was subscribed to.
        name: Name of the subscriber.
        owner: The part that subscribed.
        waiting: Events that wait for it.
        limit: Most events that may wait; one more drops the oldest.
        delivered: Events that it got.
        dropped: Events that it lost because it was too slow.
        failures: Calls that raised.
        behind: Seconds since the oldest event happened that waits for it.
        slow: Whether it has lost events, or is so far behind that it soon may.
    """

    event: str
    name: str
    owner: str
    waiting: int
    limit: int
    delivered: int
    dropped: int
    failures: int
    behind: float
    slow: bool


class Bus(Protocol):
    """What a subscription needs of its bus."""

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription that closed."""

    def spawn(
        self, subscription: Subscription, coro: Coroutine[Any, Any, None], context: contextvars.Context
    ) -> asyncio.Task[None]:
        """Start the task of a subscription."""


class Subscription:
    """One subscriber of a bus; `close` ends it, and so does the end of a `with` block around it.

    Attributes:
        event: The name or pattern that was subscribed to.
        name: Name of the subscriber in the census and in the log.
        owner: The part that subscribed.
        limit: Most events that wait for the subscriber; one more drops the oldest.
        delivered: Events that the callback was called with.
        dropped: Events that were lost because the subscriber was too slow.
        failures: Calls that raised.
        closed: Whether `close` was called.
    """

    def __init__(
        self, bus: Bus, event: str, callback: Callback, *, limit: int, name: str, owner: str, lives_with: object = None
    ) -> None:
        """Made by `EventBus.subscribe`; it closes when the object that it lives with is gone."""
        self.event = event
        self.name = name
        self.owner = owner
        self._is_async = inspect.iscoroutinefunction(callback)
        self._life: weakref.ref[object] | None = None
        if lives_with is not None:
            if getattr(callback, "__self__", None) is lives_with:
                # Why: the subscription would keep alive what it is to end with.
                callback = _weakly(callback)
            me = weakref.ref(self)
            self._life = weakref.ref(lives_with, lambda _: _close(me))
        self.limit = limit
        self.delivered = self.dropped = self.failures = 0
        self.closed = False
        self._bus = bus
        self._callback = callback
        # A subscriber runs with the context variables of the place where it subscribed, not of who publishes.
        self._context = contextvars.copy_context()
        self._buffer: deque[Event] = deque(maxlen=limit)
        # Why one that a thread may take again: a collection of garbage, at any line, may end what this lives with.
        self._lock = threading.RLock()
        self._task: asyncio.Task[None] | None = None
        self._slow_reported = self._failure_reported = -math.inf

    def __repr__(self) -> str:
        """Show the pattern and the subscriber."""
        return f"Subscription({self.event!r} -> {self.name!r})"

    def __enter__(self) -> Self:
        """Get events for the length of the block."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Get no more events."""
        self.close()

    def close(self) -> None:
        """Get no more events; those that wait are dropped. A second call does nothing.

        A call of the callback that is under way goes on to its end, so a callback may close its own subscription.
        """
        self.closed = True
        self._bus.remove(self)
        with self._lock:
            self._buffer.clear()

    @property
    def waiting(self) -> int:
        """Events that wait for the subscriber."""
        return len(self._buffer)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that awaits the callback; there is one only while events wait for it."""
        return self._task

    def stats(self) -> SubscriptionStats:
        """Give the figures of this subscriber."""
        with self._lock:
            waiting = len(self._buffer)
            behind = max(0.0, time.time() - self._buffer[0].at) if waiting else 0.0
        return SubscriptionStats(
            event=self.event,
            name=self.name,
            owner=self.owner,
            waiting=waiting,
            limit=self.limit,
            delivered=self.delivered,
            dropped=self.dropped,
            failures=self.failures,
            behind=behind,
            slow=bool(self.dropped) or behind >= SLOW_AFTER,
        )

    def offer(self, event: Event) -> None:
        """Put an event into the buffer, in place of the oldest when it is full; any thread may do so."""
        with self._lock:
            if self.closed:
                return
            full = len(self._buffer) == self.limit
            self._buffer.append(event)
            self.dropped += full
            behind = event.at - self._buffer[0].at
        if full or behind >= SLOW_AFTER:
            self._report_slow(behind, full=full)

    def _report_slow(self, behind: float, *, full: bool) -> None:
        if time.monotonic() - self._slow_reported < REPORT_INTERVAL:
            return
        self._slow_reported = time.monotonic()
        logger.warning(
            "slow subscriber loses its oldest events; make it faster, or raise its limit"
            if full
            else "slow subscriber is behind; make it faster, or it will lose events",
            extra={
                "subscriber": self.name,
                "owner": self.owner,
                "event": self.event,
                "limit": self.limit,
                "waiting": len(self._buffer),
                "behind_s": round(behind, 1),
                "dropped": self.dropped,
            },
        )

    def deliver(self, most: int) -> bool:
        """Call a plain callback with up to `most` events, or see that a task does; on the loop only.

        Returns:
            Whether events are left that nobody takes care of.
        """
        for _ in range(most):
            if self._is_async:
                self._start_task(None)
                return False
            event = self._take()
            if event is None:
                return False
            self._context.run(self._call, event)
        return bool(self._buffer)

    def _take(self) -> Event | None:
        with self._lock:
            return self._buffer.popleft() if self._buffer else None

    def _call(self, event: Event) -> None:
        self.delivered += 1
        try:
            result = self._callback(event)
        except Exception as error:  # noqa: BLE001  # The edge of a subscriber: one that fails must not harm the others.
            self._failed(error)
            return
        if inspect.iscoroutine(result):
            # A plain function that returns a coroutine, such as a lambda around one, shows itself only now.
            self._is_async = True
            self._start_task(result)

    def _start_task(self, first: Coroutine[Any, Any, object] | None) -> None:
        if self._task is None and (first is not None or self._buffer):
            task = self._bus.spawn(self, self._serve(first), self._context)
            # Why: a loop with an eager task factory may have ended the task by now.
            self._task = None if task.done() else task

    async def _serve(self, first: Coroutine[Any, Any, object] | None) -> None:
        """Await the callback for one event after the other until none is left."""
        try:
            if first is not None:
                await self._await(lambda: first)
            while (event := self._take()) is not None:
                self.delivered += 1
                await self._await(functools.partial(self._callback, event))
                if self.delivered % BATCH == 0:
                    # A callback that never waits must not hold the loop.
                    await asyncio.sleep(0)
        finally:
            # Why: between the last look at the buffer and this line there is no await, so no event is overlooked.
            self._task = None

    async def _await(self, call: Callable[[], object]) -> None:
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The callback awaited something that was cancelled; the subscription itself was not.
            self._failed(error)
        except Exception as error:  # noqa: BLE001  # The edge of a subscriber, as in `_call`.
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if time.monotonic() - self._failure_reported >= REPORT_INTERVAL:
            self._failure_reported = time.monotonic()
            logger.error(
                "subscriber failed; it stays subscribed and is reported at most once a minute",
                exc_info=error,
                extra={"subscriber": self.name, "event": self.event, "failures": self.failures},
            )


def _weakly(method: Any) -> Callback:
    """Return a function that calls a bound method as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call(event: Event) -> object:
        living = reference()
        return None if living is None else living(event)

    return call


def _close(reference: weakref.ref[Subscription]) -> None:
    """Close a subscription whose owner is gone; called at any line of any thread."""
    subscription = reference()
    if subscription is not None:
        subscription.close()


def check_options(event: object, callback: object, limit: object) -> None:
    """Refuse a malformed subscription.

    Raises:
        OptionError: The pattern, the callback or the limit is malformed; the message says which and what is allowed.
    """
    if not isinstance(event, str) or not _PATTERN.fullmatch(event):
        raise OptionError(
            f"subscribe({event!r:.80}): expected a name as 'job.completed', a start as 'job.*', or '*'. "
            "Pass one of these."
        )
    if not callable(callback):
        raise OptionError(
            f"subscribe({event!r:.80}, {callback!r:.80}): expected a function that takes an Event. Pass one."
        )
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAXIMUM:
        raise OptionError(
            f"subscribe({event!r:.80}, limit={limit!r:.40}): expected a whole number from 1 to {LIMIT_MAXIMUM}. "
            "It is the number of events that may wait."
        )


def matches(pattern: str, event: str) -> bool:
    """Tell whether a pattern covers an event.

    Example:
        >>> [matches(pattern, "job.completed") for pattern in ("job.completed", "job.*", "*", "jo.*", "job")]
        [True, True, True, False, False]
    """
    return pattern in ("*", event) or (pattern.endswith(".*") and event.startswith(pattern[:-1]))
