"""The event bus of an app: publish what happened, and hand it to whoever subscribed, without waiting for them.

Publishing is a plain call that costs next to nothing while nobody listens. Every subscription has its own bounded
buffer, so a slow subscriber loses its own oldest events, counted and named in the log, and delays nobody. The bus knows
no event by name; what is published, and with which fields, is the business of the parts that publish.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from headrace.census import Kind
from headrace.errors import OptionError, UsageError
from headrace.subscription import BATCH, Callback, Event, Subscription, SubscriptionStats, check_options, matches

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from headrace.census import Census, Entry

__all__ = ["Callback", "Event", "EventBus", "Subscription", "SubscriptionStats"]

logger = logging.getLogger(__name__)

SUBSCRIPTION_LIMIT: Final = 1_000
NAME_LIMIT: Final = 1_024


class EventBus:
    """The events of one app.

    Events are handed over by the loop, after `publish` has returned: plain callbacks one after the other, coroutine
    functions in a task of their subscription, which exists only while events wait for it. Each subscriber gets its
    events in the order in which they were published. Any thread may publish; subscribing and closing belong to the
    thread of the loop. Until a loop runs, events wait in the buffers.

    Invariant: a buffer never holds more events than its limit.
    """

    def __init__(self, census: Census, owner: str = "events") -> None:
        """Make a bus that nobody listens to.

        Args:
            census: Where subscriptions and their tasks are entered.
            owner: Owner of those subscriptions that name none.
        """
        self._census = census
        self._owner = owner
        # Bounded: SUBSCRIPTION_LIMIT.
        self._subscriptions: dict[Subscription, Entry] = {}
        # Event name -> who gets it, found out once; bounded: NAME_LIMIT.
        self._targets: dict[str, tuple[Subscription, ...]] = {}
        # Tasks of subscriptions, those of closed ones too; at most one for each.
        self._tasks: set[asyncio.Task[None]] = set()
        # Why one that a thread may take again: a collection of garbage, at any line, may end a subscription.
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._scheduled = False
        self._closing = False
        # Context variables of whoever publishes must not reach the hand-over.
        self._context = contextvars.Context()

    def subscribe(
        self, event: str, callback: Callback, *, limit: int = 1_024, name: str | None = None, owner: object = None
    ) -> Subscription:
        """Call a function for every event of a name from now on.

        Args:
            event: A name (`job.completed`), all names that start with one (`job.*`), or all events (`*`).
            callback: A function or coroutine function that takes the `Event`. An error is logged, and the next event
                comes as usual.
            limit: Most events that wait for the subscriber, 1 <= limit <= 1000000; one more drops the oldest.
            name: Name of the subscriber in the census and in the log; the name of the function if None.
            owner: Whom it belongs to; that of the bus if None. A text names the part that subscribes. With any other
                object the subscription ends when that is gone; a callback that is a method of it does not keep it
                alive, a function that holds it does.

        Returns:
            The subscription; `close` ends it, and so does the end of a `with` block, or closing the app.

        Raises:
            OptionError: An argument is malformed or outside its bounds, or the owner allows no weak reference.
            UsageError: The bus is closing, or already has 1,000 subscriptions.
        """
        check_options(event, callback, limit)
        name = name or str(getattr(callback, "__qualname__", type(callback).__qualname__))
        lives_with = None if owner is None or isinstance(owner, str) else owner
        part = owner if isinstance(owner, str) and owner else self._owner
        if lives_with is not None:
            part = type(lives_with).__qualname__
        self._check_room(event)
        try:
            subscription = Subscription(
                self, event, callback, limit=limit, name=name, owner=part, lives_with=lives_with
            )
        except TypeError as error:
            raise OptionError(
                f"subscribe({event!r}, owner={owner!r:.80}): no weak reference can be made to a {part}. Pass an "
                "object of a class of your own, or a text."
            ) from error
        entry = self._census.add(Kind.SUBSCRIPTION, f"{event} -> {name}", part, subscription, outside=True)
        with self._lock:
            self._subscriptions[subscription] = entry
            self._targets = {}
        return subscription

    def wants(self, event: str) -> bool:
        """Tell whether anybody gets events of this name, so that a hot path can save the making of their fields."""
        targets = self._targets.get(event)
        return bool(self._find(event) if targets is None else targets)

    def publish(self, event: str, /, **fields: object) -> None:
        """Let everybody know who subscribed; returns before they are called, and does nothing when nobody did.

        Args:
            event: Name of what happened: small letters, digits and `_`, in parts joined by dots.
            fields: The facts; a subscriber may keep them, so hand over nothing that changes later.
        """
        targets = self._targets.get(event)
        if targets is None:
            targets = self._find(event)
        if not targets or self._closing:
            return
        happened = Event(event, time.time(), MappingProxyType(fields))
        for subscription in targets:
            subscription.offer(happened)
        self._wake()

    def start(self) -> None:
        """Bind the bus to the running loop; events that waited for one are handed over.

        Without a call, the first `publish` from a coroutine does it.

        Raises:
            UsageError: No event loop runs in this thread.
        """
        if self._bind() is None:
            raise UsageError(
                "the event bus cannot start: no event loop runs in this thread. Start it from a coroutine."
            )
        self._wake()

    async def flush(self, timeout: float = 1.0) -> None:
        """Hand over what waits, and wait until the coroutine functions have had theirs; for tests.

        Args:
            timeout: Longest wait in seconds; slower ones go on.

        Nothing happens on another loop than that of the bus, which hands over by itself.
        """
        if self._loop is not asyncio.get_running_loop():
            return
        for subscription in list(self._subscriptions):
            subscription.deliver(subscription.limit)
        pending = {task for task in self._tasks if task is not asyncio.current_task()}
        if pending:
            await asyncio.wait(pending, timeout=timeout)

    async def aclose(self, grace: float = 5.0) -> None:
        """Hand over what waits, then close every subscription; the bus may be used again afterwards.

        Args:
            grace: Seconds that coroutine functions get for the events that wait, 0 <= grace; then they are cancelled,
                and get as long again to obey. One that does not is named in the log.

        Cancelling the wait cancels them at once.
        """
        self._closing = True
        try:
            for subscription in list(self._subscriptions):
                subscription.deliver(subscription.limit)
            current = asyncio.current_task()
            pending = {task for task in self._tasks if task is not current}
            try:
                if pending:
                    _, pending = await asyncio.wait(pending, timeout=grace)
            finally:
                for task in pending:
                    task.cancel()
            if pending:
                _, pending = await asyncio.wait(pending, timeout=grace)
            for task in pending:
                logger.error(
                    "subscriber ignores its cancellation; it must let CancelledError pass",
                    extra={"subscriber": task.get_name(), "grace": grace},
                )
        finally:
            for subscription in list(self._subscriptions):
                subscription.close()
            self._loop = None
            self._closing = False

    @property
    def names(self) -> int:
        """Names of events of which it is known who gets them, at most 1,024."""
        return len(self._targets)

    def subscriptions(self) -> list[Subscription]:
        """List the open subscriptions in the order they were made."""
        return list(self._subscriptions)

    def stats(self) -> list[SubscriptionStats]:
        """List the figures of every open subscription, in the order they were made."""
        return [subscription.stats() for subscription in self.subscriptions()]

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription that closed; called by its `close`."""
        with self._lock:
            entry = self._subscriptions.pop(subscription, None)
            self._targets = {}
        if entry is not None:
            entry.close()

    def spawn(
        self, subscription: Subscription, coro: Coroutine[Any, Any, None], context: contextvars.Context
    ) -> asyncio.Task[None]:
        """Start the task of a subscription; called by it when events wait."""
        name = f"{subscription.event} -> {subscription.name}"
        task = self._census.create_task(coro, name=name, owner=subscription.owner, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _check_room(self, event: str) -> None:
        if self._closing:
            raise UsageError(f"subscribe({event!r}): the event bus is closing. Subscribe before the app closes.")
        if len(self._subscriptions) >= SUBSCRIPTION_LIMIT:
            ((name, count),) = Counter(subscription.name for subscription in self._subscriptions).most_common(1)
            raise UsageError(
                f"subscribe({event!r}): {SUBSCRIPTION_LIMIT} subscriptions are open, {count} of them by {name!r}. "
                "Close each subscription when it is no longer needed."
            )

    def _find(self, event: str) -> tuple[Subscription, ...]:
        with self._lock:
            open_now = list(self._subscriptions)
            targets = tuple(subscription for subscription in open_now if matches(subscription.event, event))
            if len(self._targets) >= NAME_LIMIT:
                self._targets = {}
            self._targets[event] = targets
        return targets

    def _wake(self) -> None:
        """See that the loop hands over soon; one call of it serves all events until then."""
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._bind()
        if loop is None or self._scheduled:
            return
        self._scheduled = True
        try:
            if threading.get_ident() == self._thread:
                loop.call_soon(self._drain, context=self._context)
            else:
                loop.call_soon_threadsafe(self._drain, context=self._context)
        except RuntimeError:
            # The loop closed between the look at it and the call; the events wait for the next one.
            self._scheduled = False

    def _bind(self) -> asyncio.AbstractEventLoop | None:
        """Take the running loop; a hand-over that a closed one still owed is forgotten, its events are not."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._thread = threading.get_ident()
        self._scheduled = False
        return self._loop

    def _drain(self) -> None:
        # Why: the flag falls first, so an event that comes during the delivery is either seen by it or wakes again.
        self._scheduled = False
        left = False
        for subscription in list(self._subscriptions):
            left = subscription.deliver(BATCH) or left
        if left:
            self._wake()
