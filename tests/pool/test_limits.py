"""Limits that no pool can have are refused by their own name, as an error of Headrace and of redis-py."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from headrace.errors import ConnectionLost, OptionError
from headrace.pool import ConnectionPool
from headrace.pool.sync import ConnectionPool as SyncConnectionPool

BOTH = pytest.mark.parametrize("pool_class", [ConnectionPool, SyncConnectionPool])


@BOTH
@pytest.mark.parametrize("maximum", [-1, 0, 10_001, "20", 1.5, True, [20]])
def test_a_maximum_outside_its_bounds_is_refused_by_name(pool_class: Any, maximum: object) -> None:
    with pytest.raises(OptionError, match=r"^max_connections=.*expected a whole number from 1 to 10000") as caught:
        pool_class(max_connections=maximum)

    assert isinstance(caught.value, redis.RedisError)


@BOTH
@pytest.mark.parametrize("lanes", [["user"], "user", {"user": 3}, {"nobody": 4}, {"user": "4"}])
def test_lanes_that_cannot_be_are_refused_by_name(pool_class: Any, lanes: object) -> None:
    with pytest.raises(OptionError, match=r"^lanes") as caught:
        pool_class(max_connections=4, lanes=lanes)

    assert isinstance(caught.value, redis.RedisError)


@BOTH
def test_lanes_in_a_url_are_refused_by_name(pool_class: Any) -> None:
    with pytest.raises(OptionError, match="A URL cannot hold it"):
        pool_class.from_url("redis://127.0.0.1/0?lanes=user")


@BOTH
@pytest.mark.parametrize("maximum", [0, "20"])
async def test_a_wrong_new_maximum_changes_nothing(pool_class: Any, maximum: object) -> None:
    pool = pool_class(max_connections=4, min_connections=1)

    with pytest.raises(OptionError, match=r"^max_connections="):
        pool.max_connections = maximum
    with pytest.raises(OptionError, match=r"^max_connections="):
        await (pool.resize(maximum=maximum) or _nothing())

    assert (pool.max_connections, pool.min_connections) == (4, 1)


async def _nothing() -> None:
    pass


@BOTH
async def test_the_reason_of_a_failed_start_is_one_sentence(pool_class: Any) -> None:
    pool = pool_class.from_url("redis://127.0.0.1:1", min_connections=1)

    with pytest.raises(ConnectionLost, match=r"minimum of 1 connections: .*[^.]\. The pool goes on trying"):
        await (pool.start() or _nothing())

    await ((pool.close if pool_class is SyncConnectionPool else pool.aclose)() or _nothing())
