"""Whether an idle connection works: looked at before each use, asked only when idle for long or under suspicion."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import redis.exceptions

from headrace.pool.transport import begins_with_push, next_word

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from headrace.pool.ledger import Member
    from headrace.pool.options import PoolOptions

#: A connection that nobody has used is not checked for so long after it was opened, seconds.
JUST_OPENED: Final = 1.0


async def find_fault(
    member: Member[AbstractConnection], options: PoolOptions, *, suspect_before: float, ignores_data: bool
) -> Exception | None:
    """Return why a connection must not be given out, or None when it works.

    Args:
        member: The connection, leased to the caller.
        options: When to ask the server, and how long to wait for its answer.
        suspect_before: What was verified before this time is asked in any case.
        ignores_data: Whether unread bytes are no fault but messages of the server, such as news of maintenance.

    Returns:
        TimeoutError when the server did not answer at all, so that others most likely are dead as well.
    """
    connection = member.connection
    if not connection.is_connected:
        return ConnectionResetError("closed while idle")
    try:
        has_data = await connection.can_read()
        if has_data and not (ignores_data and begins_with_push(connection)):
            return ConnectionResetError("closed, or holding unread data, while idle")
        # Why: what has just logged in and served nobody yet has answered; asking again could go on for ever.
        trusted = max(options.check_after, JUST_OPENED) if member.verified == member.opened else options.check_after
        fresh = member.verified > suspect_before and time.monotonic() - member.verified < trusted
        if not fresh or has_data:
            async with asyncio.timeout(options.check_timeout):
                await _ask(connection)
            member.verified = time.monotonic()
    except (TimeoutError, redis.exceptions.TimeoutError) as error:
        silent = TimeoutError(f"no answer within {options.check_timeout:g} s after being idle")
        silent.__cause__ = error
        return silent
    except (OSError, redis.exceptions.RedisError) as error:
        return error
    return None


async def _ask(connection: AbstractConnection) -> None:
    """Ask the server; a PING that the user may not send has been answered too."""
    await connection.re_auth()  # type: ignore[no-untyped-call]  # redis-py has no types here
    word = next_word()
    await connection.send_command("PING", word, check_health=False)
    try:
        reply = await connection.read_response()
    except redis.exceptions.ResponseError:
        return
    if reply not in {word, word.encode()}:
        raise ConnectionResetError("a reply to an older command was left on it")
