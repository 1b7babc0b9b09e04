"""Connections of redis-py that ask the sentinels for the primary each time they open, and refuse a replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection

from headrace.errors import CommandRefused, ConnectionLost
from headrace.pool.client_errors import ClientConnectionLost, ClientLoginRefused
from headrace.pool.sentinel import locate

if TYPE_CHECKING:
    from headrace.pool.address import Address


class _Located(AbstractConnection):
    """Find the primary, connect there, and check that it is one.

    Args:
        address: An address with sentinels.
        **kwargs: What redis-py's connections take.
    """

    host: str
    port: int

    def __init__(self, *, address: Address, **kwargs: Any) -> None:
        super().__init__(host="", port=0, **kwargs)  # type: ignore[call-arg]  # the class beside it takes both
        self._address = address

    async def _connect(self) -> None:
        try:
            place = await locate(self._address)
        except ConnectionLost as error:
            raise ClientConnectionLost(str(error)) from error
        except CommandRefused as error:
            raise ClientLoginRefused(str(error)) from error
        self.host, self.port = place.host, place.port
        await super()._connect()  # type: ignore[safe-super, no-untyped-call]  # the class beside it connects

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Log in, and refuse what is no primary."""
        await super().on_connect_check_health(check_health=check_health)
        await self.send_command("ROLE", check_health=False)
        role = await self.read_response()
        if role[0] not in {b"master", "master"}:
            self._address.doubt()
            text = f"{self._address}: the sentinels named {self.host}:{self.port}, which is a replica."
            raise ClientConnectionLost(text + " They are asked again.")


class PrimaryConnection(_Located, Connection):
    """A connection to the primary of a group of sentinels."""


class PrimarySSLConnection(_Located, SSLConnection):
    """The same with TLS."""
