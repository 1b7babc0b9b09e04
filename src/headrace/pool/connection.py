"""One connection to the server: commands go out in order, replies come back in order.

The connection is multiplexed: any number of callers may have commands under way at once, and each gets its own
replies, since the server answers in order. Only blocking commands and subscriptions need a connection of their own.
It knows nothing of jobs. Bytes are packed and parsed by hiredis; the loop's transport carries them.

Measured: benchmarks/floor.py prints what this connection and redis-py's carry on the same server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import hiredis

from headrace.errors import CommandRefused, ConnectionLost, HeadraceError, PoolClosed
from headrace.pool.sockets import tune
from headrace.resp import NO_RIGHT, pack_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.pool.address import Address

#: Upper bound of replies that may be outstanding on one connection; more is a fault of the caller, not a load.
MAX_OUTSTANDING: Final = 100_000
#: States in which a server refuses PING, and takes SUBSCRIBE.
SUBSCRIBES: Final = frozenset({"LOADING", "MASTERDOWN"})
#: Error codes of a server that will be ready later.
NOT_READY: Final = frozenset({"LOADING", "MASTERDOWN", "BUSY", "CLUSTERDOWN", "TRYAGAIN", "MISCONF"})
#: Error codes of a server that takes no writes, or none any more: it is a replica, or a primary that lost its replicas
#: and so may have been replaced. UNBLOCKED ends a blocking call when a primary becomes a replica.
NO_PRIMARY: Final = ("READONLY", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED")


class ServerReplyError(Exception):
    """Carry an error reply inside a list of replies; `code` is its first word, such as NOSCRIPT."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.code = text.split(" ", 1)[0]


class ReplyErrors:
    """Make the errors of one connection's replies, and remember when one says that the server is no primary.

    Attributes:
        no_primary: Text of the first such reply; empty while there was none.
    """

    __slots__ = ("no_primary",)

    def __init__(self) -> None:
        self.no_primary = ""

    def __call__(self, text: str) -> ServerReplyError:
        """Make an error of one reply."""
        error = ServerReplyError(text)
        # Why: what a script's own call raised stands first (Valkey, Redis 7), or behind a dash in the text (Redis 6.2).
        if not self.no_primary and (error.code in NO_PRIMARY or any(f"-{code} " in text for code in NO_PRIMARY)):
            self.no_primary = text
        return error


def new_reader(errors: Callable[[str], Exception] = ServerReplyError) -> hiredis.Reader:
    """Return a parser of replies that makes errors of error replies, and raises ConnectionLost at what is no reply."""
    return hiredis.Reader(protocolError=ConnectionLost, replyError=errors)


def is_refused_subscribe(reply: Any) -> bool:
    """Tell whether the first reply behind a SUBSCRIBE is its own error, and not one of the PING behind it."""
    return isinstance(reply, ServerReplyError) and reply.code not in SUBSCRIBES


def _settle(future: asyncio.Future[list[Any]], replies: list[Any] | Exception) -> None:
    if future.done():
        return
    if isinstance(replies, Exception):
        future.set_exception(replies)
    else:
        future.set_result(replies)


def login_error(address: Address, replies: Sequence[Any]) -> HeadraceError | None:
    """Return why a connection cannot be used, from the replies to the handshake of its address, or None.

    It is ConnectionLost when a later attempt may do better, else CommandRefused.
    """
    refused = next((reply for reply in replies if isinstance(reply, ServerReplyError)), None)
    if refused is not None:
        text = f"{address} refused the connection: {refused.text.rstrip('.')}. "
        if refused.code in NOT_READY or "max number of clients" in refused.text:
            return ConnectionLost(text + "It is tried again.")
        if refused.code == "NOPERM" and not address.is_sentinel:
            return CommandRefused(text + NO_RIGHT)
        user = "sentinel_username and sentinel_password" if address.is_sentinel else "the user and password"
        return CommandRefused(text + f"Check {user} in REDIS_URL.")
    if address.is_primary:
        hello = replies[0]
        role = hello.get(b"role") if isinstance(hello, dict) else None
        if role != b"master":
            said = "tells no role" if role is None else f"has the role '{role.decode()}'"
            return ConnectionLost(f"{address} {said}, so it is not the primary. The sentinels are asked again.")
    return None


def no_primary_error(address: Address, said: str) -> ConnectionLost:
    """Return the error that ends the calls on a connection to what is no primary."""
    text = f"{address} takes no writes: {said.rstrip('.')}. "
    return ConnectionLost(text + "The connection is made anew. Check that REDIS_URL leads to the primary.")


class _Flight:
    """One batch of commands under way: how many replies are missing, and who wants them."""

    __slots__ = ("count", "handler", "replies")

    def __init__(self, count: int, handler: Callable[[list[Any] | Exception], None]) -> None:
        self.count = count
        self.handler = handler
        self.replies: list[Any] = []


class Connection(asyncio.Protocol):
    """Carry batches of commands to one server and hand each batch its replies.

    Args:
        address: Where the server is and how to log in.
        name: Name shown by the server's CLIENT LIST.
        on_push: Called with each push message (RESP3 subscriptions).
        on_lost: Called once when an open connection breaks; not called after `close` or `abort`.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        on_push: Callable[[list[Any]], None] | None = None,
        on_lost: Callable[[Exception], None] | None = None,
    ) -> None:
        self.address = address
        self.name = name
        self._on_push = on_push
        self._on_lost = on_lost
        self._errors = ReplyErrors()
        self._reader = new_reader(self._errors)
        self._flights: deque[_Flight] = deque()
        self._outstanding = 0
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None

    @property
    def outstanding(self) -> int:
        """How many replies are still to come."""
        return self._outstanding

    async def open(self, *, timeout: float) -> None:
        """Connect, log in and name the connection.

        Args:
            timeout: Longest time for all of it in seconds, 0 < timeout <= 600.

        Raises:
            ConnectionLost: The server could not be reached in time, is not ready yet, or is a replica although the
                address wants a primary.
            CommandRefused: The server refused the login.
        """
        address = self.address
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                if address.path is not None:
                    await loop.create_unix_connection(lambda: self, address.path)
                else:
                    await loop.create_connection(lambda: self, address.host, address.port, ssl=address.ssl_context())
                replies = await self.execute_all(address.handshake(self.name))
        except (OSError, TimeoutError) as error:
            self.abort()
            # Why: a time-out has no text of its own, and whoever was refused at once has waited for nothing.
            what = f"could not be reached: {error}" if str(error) else f"did not answer within {timeout:g} s"
            raise ConnectionLost(
                f"{address} {what}. Check that the server runs and that REDIS_URL names it."
            ) from error
        except BaseException:
            self.abort()
            raise
        refused = login_error(address, replies)
        if refused is not None:
            self.abort()
            raise refused

    def send(self, payload: bytes, count: int, handler: Callable[[list[Any] | Exception], None]) -> None:
        """Send packed commands; call `handler` with the list of replies, or with the error that ended them.

        Args:
            payload: Commands as packed by `hiredis.pack_command`, one after another.
            count: How many commands the payload holds, at least 1.
            handler: Called exactly once, from the loop. Error replies stand in the list as `ServerReplyError`.

        Raises:
            ConnectionLost: The connection is not open; the handler is not called.
        """
        transport = self._transport
        if transport is None:
            text = f"The connection '{self.name}' to {self.address} is not open. Wait for it to be opened again."
            raise ConnectionLost(text)
        if self._outstanding + count > MAX_OUTSTANDING:
            text = f"The connection '{self.name}' has {self._outstanding} replies outstanding, of {MAX_OUTSTANDING}."
            raise CommandRefused(text + " Send fewer commands at once.")
        self._outstanding += count
        self._flights.append(_Flight(count, handler))
        transport.write(payload)

    def submit(self, payload: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send packed commands and return a future of their replies; error replies stand in the list.

        The future ends with ConnectionLost when the connection breaks. Cancelling it drops the replies when they come;
        the commands may still take effect.

        Raises:
            ConnectionLost: The connection is not open.
        """
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        self.send(payload, count, lambda replies: _settle(future, replies))
        return future

    def submit_subscribe(self, payload: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send a packed SUBSCRIBE and `count` commands behind it; do what `submit` does with their replies.

        A SUBSCRIBE that is accepted has no reply; the error of one that is refused is the first in the list.
        """
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def settle(replies: list[Any] | Exception) -> None:
            if isinstance(replies, list) and is_refused_subscribe(replies[0]):
                # Why: its error took the place of a reply that is still to come; nobody else may get that one.
                self._outstanding += 1
                self._flights.appendleft(_Flight(1, lambda _: None))
            _settle(future, replies)

        self.send(payload, count, settle)
        return future

    async def execute_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands in one batch and return their replies; raises as the future of `submit`."""
        return await self.submit(b"".join([pack_command(*command) for command in commands]), len(commands))

    def abort(self) -> None:
        """Drop the connection at once, for good; commands under way end with `ConnectionLost`."""
        self._on_lost = None
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Close the connection and wait until the loop has let go of it; commands under way end with `PoolClosed`."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()
        if self._closed is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._closed), timeout=5.0)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from the loop."""
        self._transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            tune(connected)
        self._closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Parse what came in and hand complete batches to their handlers."""
        reader = self._reader
        flights = self._flights
        try:
            reader.feed(data)
            reply = reader.gets()
            while reply is not False:
                if type(reply) is hiredis.PushNotification:
                    if self._on_push is not None:
                        self._on_push(reply)
                elif flights:
                    flight = flights[0]
                    flight.replies.append(reply)
                    self._outstanding -= 1
                    if len(flight.replies) == flight.count:
                        if self._errors.no_primary:
                            self._leave()
                            return
                        flights.popleft()
                        flight.handler(flight.replies)
                reply = reader.gets()
        except ConnectionLost as error:
            self._drop(ConnectionLost(f"{self.address} sent what is no reply on '{self.name}': {error}."))

    def connection_lost(self, exc: Exception | None) -> None:
        """End all batches under way and tell the owner."""
        self._transport = None
        if self._closing:
            self._fail(PoolClosed(f"The connection '{self.name}' to {self.address} was closed during the call."))
        else:
            # Why: a server that is at maxclients says so in place of the first reply, and closes.
            replies = [reply for flight in self._flights for reply in flight.replies]
            said = next((reply for reply in replies if isinstance(reply, ServerReplyError)), None)
            reason = str(exc or said or "it was closed")
            text = f"The connection '{self.name}' to {self.address} broke: {reason}"
            self._break(ConnectionLost(text + ". It is opened again."))
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _leave(self) -> None:
        """Drop a connection to what is no primary; the calls under way end as at a cut, the refused one among them."""
        self._drop(no_primary_error(self.address, self._errors.no_primary))

    def _drop(self, error: ConnectionLost) -> None:
        transport, self._transport = self._transport, None
        self._break(error)
        if transport is not None:
            transport.abort()

    def _break(self, error: ConnectionLost) -> None:
        self._fail(error)
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost(error)

    def _fail(self, error: Exception) -> None:
        flights, self._flights, self._outstanding = self._flights, deque(), 0
        for flight in flights:
            flight.handler(error)
