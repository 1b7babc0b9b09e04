"""What every app brings along that holds memory: idle connections, figures of its pool and health, and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from headrace.events import NAME_LIMIT
from headrace.histogram import RECENT_HISTOGRAM_BYTES, RECENT_MAXIMUM_BYTES
from headrace.store.store import MAX_PREPARED_QUEUES, PREPARED_BYTES

if TYPE_CHECKING:
    from headrace.events import EventBus
    from headrace.memory.actions import Actions, Cache

#: What one event that waits is taken for, bytes: itself and a few small fields.
EVENT_BYTES: Final = 600
#: Figures of a pool: times of waits and of responses, the most waiters of all and of each lane, errors by class.
POOL_BYTES: Final = 2 * RECENT_HISTOGRAM_BYTES + 5 * RECENT_MAXIMUM_BYTES + 8_192
#: Figures of health: times of answers, delays of the loop, the server's latest answer to INFO and what was read in it.
HEALTH_BYTES: Final = 2 * RECENT_HISTOGRAM_BYTES + 65_536
#: What one name of an event is taken for, bytes, beside 8 for each of its subscribers.
NAME_BYTES: Final = 320


class Shrinkable(Protocol):
    """A pool that can close idle connections."""

    def shrink(self) -> int:
        """Close the idle connections above the minimum now, and return how many those are."""
        ...


class Preparing(Protocol):
    """A store that keeps the calls of queues packed."""

    @property
    def prepared(self) -> int:
        """Queues whose calls are kept."""
        ...

    def forget_prepared(self) -> None:
        """Let go of them."""
        ...


class Owner(Protocol):
    """An open app, as far as what it holds is concerned."""

    events: EventBus

    @property
    def pool(self) -> Shrinkable:
        """The pool of the app."""
        ...

    @property
    def store(self) -> Preparing:
        """The store of the app."""
        ...


def register_belongings(actions: Actions, app: Owner) -> list[Cache]:
    """Register what an app holds; each of what is returned is to be closed with the app."""
    pool, events, store = app.pool, app.events, app.store

    def shrink() -> None:
        pool.shrink()

    def waiting() -> int:
        return sum(subscription.waiting for subscription in events.subscriptions()) * EVENT_BYTES

    def most() -> int:
        return sum(subscription.limit for subscription in events.subscriptions()) * EVENT_BYTES

    def names() -> int:
        return events.names * (NAME_BYTES + 8 * len(events.subscriptions()))

    def most_names() -> int:
        return NAME_LIMIT * (NAME_BYTES + 8 * len(events.subscriptions()))

    # Why the same now and at most: what does not grow is taken for full.
    figures = POOL_BYTES + HEALTH_BYTES
    return [
        actions.register("idle connections", shrink),
        actions.register("figures of the pool and of health", None, size=lambda: figures, limit_bytes=figures),
        actions.register("events that wait for subscribers", None, size=waiting, limit_bytes=most),
        actions.register(
            "packed calls of queues",
            store.forget_prepared,
            size=lambda: store.prepared * PREPARED_BYTES,
            limit_bytes=MAX_PREPARED_QUEUES * PREPARED_BYTES,
        ),
        actions.register("who gets which events", None, size=names, limit_bytes=most_names),
    ]
