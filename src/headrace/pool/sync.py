"""The connection pools for threads: drop-ins for what redis-py's synchronous clients take.

`ConnectionPool` is for `redis.Redis(connection_pool=...)`, `SentinelConnectionPool` for `redis.sentinel.Sentinel`, and
`RedisCluster` for `redis.RedisCluster`. `headrace.pool` has the same names for asyncio.
"""

from headrace.pool.cluster_pools import SyncRedisCluster as RedisCluster
from headrace.pool.sentinel_pools import SyncSentinelConnectionPool as SentinelConnectionPool
from headrace.pool.sync_pool import ConnectionPool

__all__ = ["ConnectionPool", "RedisCluster", "SentinelConnectionPool"]
