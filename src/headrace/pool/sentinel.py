"""Ask sentinels where the primary is now.

Which sentinel is asked, and what the answers mean, is decided in `Search`, which does no I/O; `locate` asks from a loop
and `locate_sync` from synchronous code. What a sentinel names may be out of date: who connects there checks the role
(`headrace.pool.connection.login_error`) and tells `Address.doubt` when it was wrong.

Source: "Guidelines for Redis clients with support for Redis Sentinel",
redis.io/docs/latest/develop/reference/sentinel-clients.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import CommandRefused, ConnectionLost
from headrace.pool.connection import Connection, ServerReplyError, new_reader
from headrace.pool.sockets import exchange_all, open_socket
from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.pool.address import Address

#: Longest time for one sentinel, its connection included, seconds.
SENTINEL_TIMEOUT: Final = 0.5
#: Longest time for all of them, seconds: with more than six, each gets less.
LOCATE_TIMEOUT: Final = 3.0
#: Shown by CLIENT LIST of a sentinel that names its clients.
CLIENT_NAME: Final = "headrace:locate"
PARTS: Final = 2


class Search:
    """Go through the sentinels of an address until one names the primary; the one that does is asked first next time.

    Args:
        address: An address with sentinels.
        timeout: Longest time for all of them, seconds.
    """

    def __init__(self, address: Address, timeout: float = LOCATE_TIMEOUT) -> None:
        self._address = address
        self._sentinels = address.sentinel_addresses()
        self._service = "" if address.sentinels is None else address.sentinels.service
        self.timeout = max(0.001, min(SENTINEL_TIMEOUT, timeout / max(1, len(self._sentinels))))
        self.query = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        self._failures: list[str] = []
        self._refused = 0

    def __iter__(self) -> Iterator[Address]:
        """Give the sentinels in the order in which to ask them."""
        return iter(self._sentinels)

    def answered(self, sentinel: Address, reply: Any) -> Address | None:
        """Take an answer to `query`; returns the address of the primary, or None to ask the next one."""
        if isinstance(reply, list) and len(reply) == PARTS and isinstance(reply[0], bytes) and reply[1].isdigit():
            if self._address.sentinels is not None:
                self._address.sentinels.trust((sentinel.host, sentinel.port))
            return self._address.primary_at(reply[0].decode(), int(reply[1]))
        self._refused += 1
        said = str(reply) if isinstance(reply, Exception) else f"knows no primary '{self._service}'"
        self._failures.append(f"{sentinel.host}:{sentinel.port} {said}")
        return None

    def failed(self, sentinel: Address, error: Exception) -> None:
        """Take the error that came instead of an answer."""
        self._refused += isinstance(error, CommandRefused)
        reason = error.__cause__ or error
        self._failures.append(f"{sentinel.host}:{sentinel.port} {str(reason) or type(reason).__name__}")

    def error(self) -> CommandRefused | ConnectionLost:
        """Return the error when all were asked: CommandRefused when each of them answered with a refusal."""
        text = f"{self._address}: no sentinel named the primary: {'; '.join(self._failures)}. "
        if self._refused == len(self._sentinels):
            remedy = "Correct the name of the primary, sentinel_username or sentinel_password in REDIS_URL."
            return CommandRefused(text + remedy)
        return ConnectionLost(text + "They are asked again. Check that they run and that REDIS_URL names them.")


async def locate(address: Address) -> Address:
    """Return the place where the primary is now, as the first sentinel that answers says; a place is returned as it is.

    Takes at most `LOCATE_TIMEOUT`. Cancelling it closes the connection to the sentinel.

    Raises:
        ConnectionLost: No sentinel could be reached, or those that were do not know.
        CommandRefused: All sentinels refuse, or none knows the name of the primary.
    """
    if address.sentinels is None:
        return address
    if address.is_sentinel:
        # Why: who listens to a sentinel wants any of them, and takes the next after each failure.
        return address.sentinel_addresses()[0]
    search = Search(address)
    for sentinel in search:
        connection = Connection(sentinel, name=CLIENT_NAME)
        try:
            reply = await _ask(connection, search)
        except (ConnectionLost, CommandRefused) as error:
            search.failed(sentinel, error)
            continue
        finally:
            connection.abort()
        if (primary := search.answered(sentinel, reply)) is not None:
            return primary
    raise search.error()


def locate_sync(address: Address, timeout: float = LOCATE_TIMEOUT) -> Address:
    """Do what `locate` does, from synchronous code, where it blocks for `timeout` seconds at most."""
    if address.sentinels is None:
        return address
    search = Search(address, timeout)
    for sentinel in search:
        deadline = time.monotonic() + search.timeout
        try:
            with open_socket(sentinel, search.timeout) as connected:
                commands = (*sentinel.handshake(CLIENT_NAME), search.query)
                replies = exchange_all(connected, new_reader(), commands, deadline)
        except OSError as error:
            search.failed(sentinel, error)
            continue
        refused = next((reply for reply in replies if isinstance(reply, ServerReplyError)), replies[-1])
        if (primary := search.answered(sentinel, refused)) is not None:
            return primary
    raise search.error()


async def _ask(connection: Connection, search: Search) -> Any:
    try:
        async with asyncio.timeout(search.timeout):
            await connection.open(timeout=search.timeout)
            (reply,) = await connection.submit(pack_command(*search.query), 1)
    except TimeoutError as error:
        raise ConnectionLost(f"{connection.address} did not answer within {search.timeout:g} s.") from error
    return reply
