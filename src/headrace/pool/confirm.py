"""Have replicas confirm what was written, before a call returns.

Replication is asynchronous: a primary that is lost takes with it what its replicas had not got yet. A call that is
confirmed comes back once so many replicas have it.

Source: "WAIT", redis.io/docs/latest/commands/wait.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from headrace.errors import CommandRefused, ConnectionLost, SettingError
from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.pool.address import Address

#: Longest wait of the server for its replicas, milliseconds; what else the connection carries waits as long.
CONFIRM_MS: Final = 1_000
#: With less time left, seconds, replicas that have not confirmed are not asked again: the error would name the link.
CONFIRM_AGAIN: Final = 0.1


class Trip(Protocol):
    """Carries packed commands, as a link does."""

    async def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands and return their replies in order; error replies stand in the list."""
        ...


class SyncTrip(Protocol):
    """Does what a `Trip` does, from synchronous code."""

    def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands and return their replies in order; error replies stand in the list."""
        ...


class Confirm:
    """Add to a round trip the wait for replicas.

    Args:
        replicas: How many have to confirm, 1..5.
        channel: A channel that nobody listens to.
        where: How the server is called in errors.
    """

    #: Commands that `extend` adds.
    COMMANDS: Final = 2

    def __init__(self, replicas: int, *, channel: str, where: str) -> None:
        self.replicas = replicas
        # Why: WAIT waits for the latest write of its own connection. What is sent again on a new connection may write
        # nothing, since it is known already, and WAIT would return at once; a message is always passed on.
        self._mark = pack_command("PUBLISH", channel, "")
        self._where = where

    def over(self, link: Trip) -> Trip:
        """Return a way over a link on which each round trip is confirmed."""
        return _Confirmed(self, link)

    def over_sync(self, link: SyncTrip) -> SyncTrip:
        """Do what `over` does, for synchronous code."""
        return _SyncConfirmed(self, link)

    def extend(self, payload: bytes, left: float) -> bytes:
        """Return packed commands with the wait behind them, for half of the seconds that are left at most."""
        wait_ms = max(1, min(CONFIRM_MS, int(left * 500)))
        return payload + self._mark + pack_command("WAIT", self.replicas, wait_ms)

    def check(self, replies: Sequence[Any]) -> list[Any]:
        """Return the replies without those of the wait.

        Raises:
            ConnectionLost: Too few replicas confirmed in time; it has happened, and may be lost with the primary.
            CommandRefused: The user may not ask for it.
        """
        mark, confirmed = replies[-2:]
        for reply in (mark, confirmed):
            if isinstance(reply, Exception):
                text = f"{self._where} refused to wait for replicas: {str(reply).rstrip('.')}. "
                raise CommandRefused(text + "Allow PUBLISH and WAIT, or set HEADRACE_WAIT_REPLICAS=0.") from reply
        if confirmed < self.replicas:
            text = f"{self._where} has it, but only {confirmed} of {self.replicas} replicas confirmed it in time. "
            raise ConnectionLost(text + "Look at the replicas, or lower HEADRACE_WAIT_REPLICAS.")
        return list(replies[: -self.COMMANDS])


def confirm_by(replicas: int, address: Address, prefix: str) -> Confirm | None:
    """Return what confirms the calls of an app, or None when no replica has to.

    Args:
        replicas: How many have to, 0..5.
        address: Where the server is.
        prefix: What the names of channels start with.

    Raises:
        SettingError: The address is that of a cluster.
    """
    if not replicas:
        return None
    if address.seeds:
        # Why: a wait has no key that would take it to the node of its queue.
        text = f"HEADRACE_WAIT_REPLICAS={replicas}: a cluster is not waited for. Set it to 0."
        raise SettingError(text, variable="HEADRACE_WAIT_REPLICAS", value=str(replicas), expected="0")
    return Confirm(replicas, channel=f"{prefix}:inbox:nobody", where=str(address))


class _Confirmed:
    """Round trips of one call, each confirmed."""

    def __init__(self, confirm: Confirm, link: Trip) -> None:
        self._confirm = confirm
        self._link = link
        self._unconfirmed: ConnectionLost | None = None

    async def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands and wait for the replicas; raises ConnectionLost as a break does."""
        unconfirmed, self._unconfirmed = self._unconfirmed, None
        if unconfirmed is not None and timeout < CONFIRM_AGAIN:
            await asyncio.sleep(timeout)
            raise unconfirmed
        payload = self._confirm.extend(payload, timeout)
        try:
            replies = await self._link.roundtrip(payload, count + self._confirm.COMMANDS, timeout=timeout)
        except ConnectionLost as error:
            # Why: the time may run out meanwhile; what is known of the replicas says more than a link that was slow.
            if unconfirmed is None:
                raise
            self._unconfirmed = unconfirmed
            raise unconfirmed from error
        try:
            return self._confirm.check(replies)
        except ConnectionLost as error:
            self._unconfirmed = error
            raise


class _SyncConfirmed:
    """Round trips of one call of synchronous code, each confirmed."""

    def __init__(self, confirm: Confirm, link: SyncTrip) -> None:
        self._confirm = confirm
        self._link = link
        self._unconfirmed: ConnectionLost | None = None

    def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands and wait for the replicas; raises ConnectionLost as a break does."""
        unconfirmed, self._unconfirmed = self._unconfirmed, None
        if unconfirmed is not None and timeout < CONFIRM_AGAIN:
            time.sleep(timeout)
            raise unconfirmed
        payload = self._confirm.extend(payload, timeout)
        try:
            replies = self._link.roundtrip(payload, count + self._confirm.COMMANDS, timeout=timeout)
        except ConnectionLost as error:
            # Why: as above.
            if unconfirmed is None:
                raise
            self._unconfirmed = unconfirmed
            raise unconfirmed from error
        try:
            return self._confirm.check(replies)
        except ConnectionLost as error:
            self._unconfirmed = error
            raise
