"""The errors of the drop-in pools, each of which is also redis-py's, so that code written for redis-py catches them.

`headrace.errors` draws the tree; a class here adds a base of redis-py to one of them. They stand apart since importing
redis-py costs more than importing Headrace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis.exceptions

from headrace.errors import ConnectionLost, OptionError, PoolClosed, PoolTimeout, UsageError
from headrace.pool.holders import tell_holders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.pool.holders import Holder


class ClientPoolTimeout(PoolTimeout, redis.exceptions.ConnectionError):
    """Report that no connection came free in time; redis-py's pools raise a ConnectionError then."""


class ClientPoolClosed(PoolClosed, redis.exceptions.ConnectionError):
    """Report that the pool closed before or during the call."""


class ClientConnectionLost(ConnectionLost, redis.exceptions.ConnectionError):
    """Report that no connection could be opened."""


class ClientUsageError(UsageError, redis.exceptions.RedisError):
    """Report a pool used in the wrong place."""


class ClientOptionError(OptionError, redis.exceptions.RedisError):
    """Report an option outside its bounds."""


def pool_timeout(
    name: str,
    lane: str,
    *,
    waited: float,
    share: int,
    used: int,
    ahead: int,
    holders: Sequence[Holder],
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
        opening_error: Why no connection could be opened, when that is the cause.
    """
    text = f"pool '{name}', lane '{lane}' gave no connection within {waited:.3g} s: {used} of {share} in use, {ahead} "
    text += f"waiting ahead, {tell_holders(holders)}. "
    if opening_error is not None:
        text += f"The last attempt to open one failed: {opening_error}. Check that the server runs."
    else:
        text += (
            "Raise REDIS_MAX_CONNECTIONS (max_connections) or the share of the lane, or hold connections for less time."
        )
    error = ClientPoolTimeout(text, holders=holders)
    error.__cause__ = opening_error
    return error


def pool_closed(name: str) -> ClientPoolClosed:
    """Build the error of a closed pool."""
    return ClientPoolClosed(f"The pool '{name}' is closed. Open it again with `await pool.start()`, or use another.")
