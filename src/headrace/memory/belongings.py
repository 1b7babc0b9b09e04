"""What every app brings along that holds memory: idle connections, figures of its pool, events that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from headrace.histogram import HISTOGRAM_BYTES

if TYPE_CHECKING:
    from headrace.events import EventBus
    from headrace.memory.actions import Actions, Cache

#: What one event that waits is taken for, bytes: itself and a few small fields.
EVENT_BYTES: Final = 600
#: Histograms of a pool: waits and responses, in two windows each.
POOL_HISTOGRAMS: Final = 4


class Shrinkable(Protocol):
    """A pool that can close idle connections."""

    def shrink(self) -> int:
        """Close the idle connections above the minimum now, and return how many those are."""
        ...


class Owner(Protocol):
    """An open app, as far as what it holds is concerned."""

    events: EventBus

    @property
    def pool(self) -> Shrinkable:
        """The pool of the app."""
        ...


def register_belongings(actions: Actions, app: Owner) -> list[Cache]:
    """Register what an app holds; each of what is returned is to be closed with the app."""
    pool, events = app.pool, app.events

    def shrink() -> None:
        pool.shrink()

    def waiting() -> int:
        return sum(subscription.waiting for subscription in events.subscriptions()) * EVENT_BYTES

    def most() -> int:
        return sum(subscription.limit for subscription in events.subscriptions()) * EVENT_BYTES

    figures = POOL_HISTOGRAMS * HISTOGRAM_BYTES
    return [
        actions.register("idle connections", shrink),
        actions.register("figures of the pool", None, size=lambda: figures, limit_bytes=figures),
        actions.register("events that wait for subscribers", None, size=waiting, limit_bytes=most),
    ]
