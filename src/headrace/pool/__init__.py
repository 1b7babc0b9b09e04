"""Connections to the server: links that reopen, pools that lend, lanes under one maximum. Nothing here knows jobs.

`ConnectionPool` is a drop-in for `redis.asyncio.Redis(connection_pool=...)`, `headrace.pool.sync.ConnectionPool` for
`redis.Redis`. The names are loaded on first use, since importing redis-py costs more than importing Headrace.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.pool.client_pool import ConnectionPool
    from headrace.pool.cluster_pools import RedisCluster
    from headrace.pool.figures import LaneStats, PoolStats
    from headrace.pool.holders import Holder
    from headrace.pool.lanes import Lane
    from headrace.pool.sentinel_pools import SentinelConnectionPool

__all__ = ["ConnectionPool", "Holder", "Lane", "LaneStats", "PoolStats", "RedisCluster", "SentinelConnectionPool"]

_HOMES = {
    "ConnectionPool": "client_pool",
    "Holder": "holders",
    "Lane": "lanes",
    "LaneStats": "figures",
    "PoolStats": "figures",
    "RedisCluster": "cluster_pools",
    "SentinelConnectionPool": "sentinel_pools",
}

if not TYPE_CHECKING:
    # Hidden from type checkers, which would take every misspelt name for one that this returns.
    def __getattr__(name: str) -> object:
        """Import a public name on its first use."""
        if name not in _HOMES:
            message = f"module 'headrace.pool' has no attribute '{name}'"
            raise AttributeError(message)
        value = getattr(import_module(f"headrace.pool.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
