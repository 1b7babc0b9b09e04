"""What the engine needs of a connection and of who hands it out, whether the server is one or a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from headrace.pool.confirm import SyncTrip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.pool.address import Address
    from headrace.pool.lanes import Lane


class Carrier(Protocol):
    """Carries packed commands to the server or to the nodes of a cluster: a `Link`, or a `ClusterLink`.

    Attributes:
        on_roundtrip: Called with the seconds of each call that got its replies.
        on_error: Called with the name of the class of each error of a call or an opening.
    """

    on_roundtrip: Callable[[float], None] | None
    on_error: Callable[[str], None] | None

    @property
    def address(self) -> Address:
        """Where the server is, or the nodes that the URL names."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the connection is there that carries subscriptions and commands without a key."""
        ...

    @property
    def opened_total(self) -> int:
        """Connections opened so far."""
        ...

    @property
    def last_failure(self) -> str:
        """Why the latest attempt to open a connection failed; empty since one succeeded."""
        ...

    async def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands and return their replies in order; error replies stand in the list.

        Of a cluster, a ConnectionLost may stand there too, for the commands of one node; it is raised when no command
        has another answer.
        """
        ...

    async def subscribe(self, channels: Iterable[str], *, timeout: float = 10.0) -> None:
        """Subscribe to channels, now and after each reopening."""
        ...


class Carriers(Protocol):
    """Hands out carriers within the bound of a pool: a `Pool`, or a `Cluster`."""

    def link(
        self,
        lane: Lane,
        purpose: str,
        *,
        owner: str,
        on_push: Callable[[bytes, bytes], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> Carrier:
        """Return a new carrier; it opens on first use and belongs to the caller until `release`."""
        ...

    async def release(self, link: Any) -> None:
        """Close a carrier and give its places back."""
        ...


class SyncCarrier(SyncTrip, Protocol):
    """Does what a `Carrier` does, from synchronous code."""

    def close(self) -> None:
        """Close the connections."""
        ...
