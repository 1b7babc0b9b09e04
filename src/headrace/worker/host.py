"""What a worker asks of the app that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from headrace.census import Census
    from headrace.clock import Clock
    from headrace.events import EventBus
    from headrace.middleware import Hooks
    from headrace.pool.carrier import Carrier, Carriers
    from headrace.pool.pool import Pool
    from headrace.settings import Settings
    from headrace.store.store import Store
    from headrace.task import Registry


class Taken(Protocol):
    """What a process has taken of the settings of the fleet; see `headrace.fleet.live.Taken`."""

    @property
    def version(self) -> int:
        """Number of the version."""
        ...

    @property
    def restart(self) -> Sequence[str]:
        """What of it waits for a restart."""
        ...

    @property
    def refused(self) -> int:
        """Number of a later version that was refused, 0 for none."""
        ...

    @property
    def reason(self) -> str:
        """Why it was."""
        ...


class Follower(Protocol):
    """A part that takes changed settings while it runs."""

    async def retune(self, before: Settings, after: Settings) -> Sequence[str]:
        """Take what has changed; returns variables that do not count here, each with the reason in brackets."""
        ...

    async def announce(self) -> None:
        """Tell others what `Host.taken` says now."""
        ...

    def figures(self) -> Mapping[str, int] | None:
        """Return concurrency, running and buffered of now; None for a part that runs no jobs."""
        ...


class Host(Protocol):
    """An open app, as its workers see it."""

    settings: Settings
    tasks: Registry
    hooks: Hooks
    events: EventBus

    @property
    def pool(self) -> Pool:
        """The pool that gives the worker its links."""
        ...

    @property
    def links(self) -> Carriers:
        """What gives the worker its links, to the server or to the nodes of a cluster."""
        ...

    @property
    def store(self) -> Store:
        """The store that packs and sends transitions."""
        ...

    @property
    def clock(self) -> Clock:
        """The one clock of the process."""
        ...

    @property
    def control(self) -> Carrier:
        """The link of the control lane, shared with the app."""
        ...

    @property
    def user(self) -> Carrier:
        """The link of the user lane, for what tasks say about their jobs."""
        ...

    @property
    def census_book(self) -> Census:
        """Where everything live is entered."""
        ...

    async def listen(self, channels: Iterable[str], callback: Callable[[str, bytes], None]) -> None:
        """Call back with channel and message of these control channels; `reopened` when some may have been lost."""
        ...

    def unlisten(self, callback: Callable[[str, bytes], None]) -> None:
        """Stop calling back."""
        ...

    @property
    def taken(self) -> Taken:
        """What the app has taken of the settings of the fleet."""
        ...

    def follow(self, follower: Follower) -> None:
        """Tell a part of each change of the settings from now on."""
        ...

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""
        ...

    async def __aenter__(self) -> Any:
        """Open the app, or count another use of it."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """End this use of the app."""
        ...
