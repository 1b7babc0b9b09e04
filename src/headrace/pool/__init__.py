"""Connections to the server: links that reopen, and pools that lend, in lanes under one maximum. Nothing here knows jobs.

`ConnectionPool` is a drop-in for `redis.asyncio.Redis(connection_pool=...)`, `headrace.pool.sync.ConnectionPool` for
`redis.Redis`. The names are loaded on first use, since importing redis-py costs more than importing Headrace.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.pool.client_pool import ConnectionPool
    from headrace.pool.figures import LaneStats, PoolStats
    from headrace.pool.holders import Holder
    from headrace.pool.lanes import Lane

__all__ = ["ConnectionPool", "Holder", "Lane", "LaneStats", "PoolStats"]

_HOME = {
    "ConnectionPool": "client_pool",
    "Holder": "holders",
    "Lane": "lanes",
    "LaneStats": "figures",
    "PoolStats": "figures",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
