"""The errors of the drop-in pools, each of which is also redis-py's, so that code written for redis-py catches them.

`headrace.errors` draws the tree; a class here adds a base of redis-py to one of them. They stand apart since importing
redis-py costs more than importing Headrace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis.exceptions

from headrace.errors import CommandRefused, ConnectionLost, OptionError, PoolClosed, PoolTimeout, UsageError
from headrace.pool.holders import tell_holders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.pool.holders import Holder


class RedisTraits:
    """What redis-py's errors carry beside their text; it reads the kind of an error for `repr` and its metrics."""

    error_type = redis.exceptions.ExceptionType.NETWORK
    status_code: str | None = None


class ClientPoolTimeout(RedisTraits, PoolTimeout, redis.exceptions.MaxConnectionsError):
    """Report that no connection came free in time, in a class that cluster clients do not take for a lost node."""


class ClientPoolClosed(RedisTraits, PoolClosed, redis.exceptions.ConnectionError):
    """Report that the pool closed before or during the call."""


class ClientConnectionLost(RedisTraits, ConnectionLost, redis.exceptions.ConnectionError):
    """Report that no connection could be opened."""


class ClientOpenTimeout(RedisTraits, ConnectionLost, redis.exceptions.TimeoutError):
    """Report that the server did not answer while a connection was being opened."""


class ClientServerLoading(RedisTraits, ConnectionLost, redis.exceptions.BusyLoadingError):
    """Report that the server still loads its data."""


class ClientLoginRefused(RedisTraits, CommandRefused, redis.exceptions.AuthenticationError):
    """Report that the server refused user or password."""

    error_type = redis.exceptions.ExceptionType.AUTH


class ClientCommandRefused(RedisTraits, CommandRefused, redis.exceptions.ResponseError):
    """Report that the server refused a command of the login."""

    error_type = redis.exceptions.ExceptionType.SERVER


class ClientUsageError(RedisTraits, UsageError, redis.exceptions.RedisError):
    """Report a pool used in the wrong place."""

    error_type = redis.exceptions.ExceptionType.SERVER


class ClientOptionError(RedisTraits, OptionError, redis.exceptions.RedisError):
    """Report an option outside its bounds."""

    error_type = redis.exceptions.ExceptionType.SERVER


def pool_timeout(
    name: str,
    lane: str,
    *,
    waited: float,
    share: int,
    used: int,
    ahead: int,
    holders: Sequence[Holder],
    told: str = "",
    opening_error: BaseException | None = None,
) -> ClientPoolTimeout:
    """Build the error of a wait that ran out.

    Args:
        name: Name of the pool.
        lane: The lane that gave nothing.
        waited: Seconds waited.
        share: Connections that the lane may have.
        used: Connections of it in use.
        ahead: Waiters before this one.
        holders: Who has them.
        told: The text about them, when it is made already.
        opening_error: Why no connection could be opened, when that is the cause.
    """
    text = f"pool '{name}', lane '{lane}' gave no connection within {waited:.3g} s: {used} of {share} in use, {ahead} "
    text += f"waiting ahead, {told or tell_holders(holders)}. "
    if opening_error is not None:
        text += f"The last attempt to open one failed: {str(opening_error).rstrip('.')}. Check that the server runs."
    else:
        text += (
            "Raise REDIS_MAX_CONNECTIONS (max_connections) or the share of the lane, or hold connections for less time."
        )
    error = ClientPoolTimeout(text, holders=holders)
    error.__cause__ = opening_error
    return error


def pool_closed(name: str, *, start: str = "await pool.start()") -> ClientPoolClosed:
    """Build the error of a closed pool, which `start` opens again."""
    return ClientPoolClosed(f"The pool '{name}' is closed. Open it again with `{start}`, or use another.")


def minimum_lacking(name: str, minimum: int, error: BaseException) -> ClientConnectionLost:
    """Build the error of a start that could not open its minimum, since `error`."""
    text = f"pool '{name}' could not open its minimum of {minimum} connections: "
    text += f"{str(error).rstrip('.') or type(error).__name__}. The pool goes on trying; see that the server runs."
    return ClientConnectionLost(text)


def no_share(name: str, lane: str) -> ClientUsageError:
    """Build the error of a lane that was left out."""
    text = f"pool '{name}', lane '{lane}' has no share any more: a resize left it out. Give it one with "
    return ClientUsageError(text + "`resize(lanes=...)`, or use another lane.")


def open_error(name: str, error: Exception, away: float) -> Exception:
    """Build the error of those for whom no connection could be opened; its class is also the class of redis-py's.

    Args:
        name: Name of the pool.
        error: What the last attempt raised.
        away: Seconds since the first attempt failed.
    """
    reason = str(error) or type(error).__name__
    text = f"pool '{name}' could not open a connection: {reason.rstrip('.')}. "
    since = f"The server has been away for {away:.1f} s; the pool goes on trying. " if away > 0 else ""
    built: Exception
    match error:
        case redis.exceptions.AuthenticationError() | redis.exceptions.AuthorizationError():
            built = ClientLoginRefused(text + "Check user and password.")
        case redis.exceptions.BusyLoadingError():
            built = ClientServerLoading(text + since + "Wait until it has loaded.")
        case redis.exceptions.ResponseError():
            built = ClientCommandRefused(text + "Check what the connection is set up with (database, protocol, name).")
        case redis.exceptions.TimeoutError() | TimeoutError():
            built = ClientOpenTimeout(text + since + "Check the server and the network to it.")
        case redis.exceptions.ConnectionError() | OSError():
            built = ClientConnectionLost(text + since + "Check that the server runs and that the address is right.")
        case _:
            # What the user's own login function or credential provider raised, or a wrong argument, is the user's.
            return error
    built.__cause__ = error
    return built
