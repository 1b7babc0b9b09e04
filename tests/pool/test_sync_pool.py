"""The pool for threads keeps its bound, serves in order, tells who holds what, and looks after its connections."""

from __future__ import annotations

import logging
import random
import re
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis

from headrace.census import Census
from headrace.errors import OptionError, PoolTimeout
from headrace.ids import random_name
from headrace.pool.sync import ConnectionPool
from headrace.pool.sync_upkeep import sync_upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.server import PrivateServer
    from tests.support.raw import Raw

DEADLINE = 10.0


class Pools:
    """Make pools with a name that the server sees, and find their census empty at the end."""

    def __init__(self, server: PrivateServer, raw: Raw) -> None:
        self.name = f"sync-{random_name(8)}"
        self.census = Census()
        self.made: list[ConnectionPool] = []
        self._server, self._raw = server, raw

    def __call__(self, **options: Any) -> ConnectionPool:
        options = {"client_name": self.name, "census": self.census, "name": "books"} | options
        self.made.append(ConnectionPool.from_url(self._server.url, **options))
        return self.made[-1]

    def seen(self) -> int:
        """How many connections of these pools the server sees."""
        lines = self._raw("CLIENT", "LIST").decode().splitlines()
        return sum(f"name={self.name} " in line for line in lines)


@pytest.fixture
def pools(server: PrivateServer, raw: Raw) -> Iterator[Pools]:
    pools = Pools(server, raw)
    yield pools
    for pool in pools.made:
        pool.close()
    until(pools.census.is_empty, "the census is empty")
    assert pools.census.entries() == []


def until(probe: Callable[[], object], what: str) -> None:
    """Look again and again until it holds: for what only another thread or the server knows."""
    deadline = time.monotonic() + DEADLINE
    while not probe():
        assert time.monotonic() < deadline, f"did not happen in time: {what}"
        time.sleep(0.005)


def in_thread(call: Callable[[], Any], name: str = "") -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True, name=name or None)
    thread.start()
    return thread


def test_never_more_connections_than_the_maximum_whatever_threads_do(pools: Pools) -> None:
    pool = pools(max_connections=4, timeout=DEADLINE)
    highest = 0
    watching = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not watching.is_set():
            highest = max(highest, pools.seen())

    def use(seed: int) -> int:
        chance = random.Random(seed)
        for _ in range(60):
            connection = pool.get_connection()
            connection.send_command("PING")
            assert connection.read_response() == b"PONG"
            if chance.random() < 0.2:
                connection.disconnect()
            pool.release(connection)
        return 60

    watcher = in_thread(watch)
    with ThreadPoolExecutor(16) as threads:
        done = sum(threads.map(use, range(16)))
    watching.set()
    watcher.join(DEADLINE)

    assert done == 16 * 60
    assert 0 < highest <= 4
    stats = pool.stats()
    assert (stats.active, stats.waiting, stats.opening) == (0, 0, 0)
    assert stats.total == stats.idle <= 4
    assert stats.opened_total > 4
    until(lambda: pools.seen() == pool.stats().total, "the server sees what the figures say")


def test_the_error_of_a_wait_that_ran_out_names_the_holder(pools: Pools) -> None:
    pool = pools(max_connections=1, timeout=0.1)
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        connection = pool.get_connection()
        taken.set()
        done.wait(DEADLINE)
        pool.release(connection)

    holder = in_thread(hold, "the-holder")
    assert taken.wait(DEADLINE)

    with pytest.raises(PoolTimeout) as caught:
        pool.get_connection()

    text = str(caught.value)
    assert re.search(
        r"pool 'books', lane 'user' gave no connection within 0\.\d+ s: 1 of 1 in use, 0 waiting ahead", text
    )
    assert "s by 'the-holder' at pool/test_sync_pool.py:" in text
    assert "Raise REDIS_MAX_CONNECTIONS" in text
    holders: Any = caught.value.holders
    assert [each.owner for each in holders] == ["the-holder"]
    assert (pool.stats().timeouts_total, pool.stats().lanes["user"].timeouts_total) == (1, 1)
    done.set()
    holder.join(DEADLINE)


def test_a_full_lane_does_not_delay_another(pools: Pools) -> None:
    pool = pools(max_connections=3, lanes={"control": 1, "user": 2}, timeout=0.05)
    user, control = pool.lane("user", owner="web", purpose="cart"), pool.lane("control", owner="health")
    held = [user.get_connection(), user.get_connection()]

    with pytest.raises(PoolTimeout, match=r"lane 'user'.* by 'web' \(cart\)"):
        user.get_connection()
    connection = control.get_connection()

    assert pool.stats().lanes["control"].active == 1
    for each in held:
        user.release(each)
    control.release(connection)
    with pytest.raises(OptionError, match="expected one of the lanes of pool 'books': control, user"):
        pool.lane("jobs")


def test_closing_a_lane_leaves_the_pool_open(pools: Pools) -> None:
    pool = pools()
    client = redis.Redis.from_pool(pool.lane("user"))

    client.close()

    assert redis.Redis(connection_pool=pool).ping() is True


def test_the_minimum_is_opened_at_the_start_and_kept(pools: Pools, raw: Raw) -> None:
    pool = pools(min_connections=5, max_connections=8, idle_timeout=0.2)

    pool.start()

    assert pool.stats().idle == 5
    assert pools.seen() == 5
    # Half of them break while they are idle, and are found and replaced without a caller.
    lines = [line for line in raw("CLIENT", "LIST").decode().splitlines() if f"name={pools.name} " in line]
    for line in lines[:3]:
        raw("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))
    until(lambda: pool.stats().opened_total >= 8 and pool.stats().idle == 5, "the minimum is open again")
    assert pools.seen() == 5


def test_a_first_use_opens_the_minimum_too(pools: Pools) -> None:
    pool = pools(min_connections=3)

    redis.Redis(connection_pool=pool).ping()

    until(lambda: pool.stats().idle >= 3, "the minimum is open")


def test_what_is_idle_above_the_minimum_is_closed_after_a_time(pools: Pools) -> None:
    pool = pools(min_connections=1, max_connections=6, idle_timeout=0.2)
    held = [pool.get_connection() for _ in range(6)]

    for each in held:
        pool.release(each)

    until(lambda: pool.stats().total == 1, "five are closed")
    until(lambda: pools.seen() == 1, "the server sees one")


def test_a_connection_is_replaced_after_its_lifetime(pools: Pools) -> None:
    pool = pools(max_lifetime=0.2)
    first = pool.get_connection()
    pool.release(first)

    until(lambda: pool.stats().closed_total == 1, "it is closed")

    second = pool.get_connection()
    assert second is not first
    pool.release(second)


def test_a_connection_held_too_long_is_reported_once_and_left_alone(
    pools: Pools, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pools(held_warn=0.1)
    caplog.set_level(logging.WARNING, "headrace")

    connection = pool.get_connection()
    until(lambda: caplog.records, "it is reported")
    time.sleep(0.2)

    (record,) = caplog.records
    assert record.getMessage() == "connection held too long"
    facts: Any = record
    assert (facts.pool, facts.lane, facts.owner) == ("books", "user", threading.current_thread().name)
    assert facts.place.startswith("pool/test_sync_pool.py:")
    assert facts.held_s >= 0.1
    connection.send_command("PING")
    assert connection.read_response() == b"PONG"
    pool.release(connection)


def test_a_lane_that_makes_callers_wait_for_long_is_told_and_its_recovery_too(pools: Pools) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    pool = pools(max_connections=1, exhausted_after=0.05, on_event=lambda event, facts: told.append((event, facts)))
    held = pool.get_connection()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.get_connection)
        until(lambda: told, "it is told")

        pool.release(held)

        pool.release(waiting.result(DEADLINE))
    until(lambda: len(told) == 2, "the recovery is told")
    (first, facts), (second, after) = told
    assert (first, second) == ("exhausted", "recovered")
    assert (facts["pool"], facts["lane"], facts["active"], facts["waiting"]) == ("books", "user", 1, 1)
    assert after["duration"] >= 0.05  # type: ignore[operator]  # it is a number


def test_the_figures_are_logged_each_interval(pools: Pools, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headrace.pool")
    pool = pools(stats_interval=0.1)

    redis.Redis(connection_pool=pool).ping()

    until(lambda: sum(record.getMessage() == "pool stats" for record in caplog.records) >= 2, "two lines are written")
    line: Any = next(record for record in caplog.records if record.getMessage() == "pool stats")
    assert (line.pool, line.maximum, line.lanes.split("+")[0]) == ("books", 100, "user:0/100")


def test_an_interrupted_wait_passes_its_turn(pools: Pools) -> None:
    pool = pools(max_connections=1, timeout=DEADLINE)
    first = pool.get_connection()
    got: list[Any] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        later = threading.Timer(0.1, lambda: got.append(pool.get_connection()))
        later.start()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.get_connection()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert pool.stats().waiting == 1
    pool.release(first)

    later.join(DEADLINE)
    assert got == [first]
    pool.release(first)
    assert (pool.stats().active, pool.stats().waiting) == (0, 0)


def test_a_second_release_changes_nothing(pools: Pools, caplog: pytest.LogCaptureFixture) -> None:
    pool = pools(max_connections=2)
    connection = pool.get_connection()
    pool.release(connection)

    pool.release(connection)

    assert (pool.stats().idle, pool.stats().active) == (1, 0)
    assert "connection released twice" in caplog.text


def test_limits_change_while_the_pool_is_in_use(pools: Pools) -> None:
    pool = pools(max_connections=2, timeout=DEADLINE)
    held = [pool.get_connection(), pool.get_connection()]
    waiter = ThreadPoolExecutor(1)
    waiting = waiter.submit(pool.get_connection)
    until(lambda: pool.stats().waiting == 1, "one waits")

    pool.resize(maximum=3)

    held.append(waiting.result(DEADLINE))
    waiter.shutdown()
    pool.resize(maximum=1)
    for each in held:
        pool.release(each)
    assert pool.max_connections == 1
    assert pool.stats().total == 1
    with pytest.raises(OptionError):
        pool.resize(maximum=0)


def test_figures_count_what_happened(pools: Pools) -> None:
    pool = pools(max_connections=2)
    client = redis.Redis(connection_pool=pool)

    for _ in range(10):
        client.ping()

    stats = pool.stats()
    assert (stats.name, stats.minimum, stats.maximum, stats.total) == ("books", 0, 2, 1)
    assert (stats.opened_total, stats.closed_total, stats.failed_total, stats.calls_total) == (1, 0, 0, 10)
    assert stats.response.count == 10
    assert 0 < stats.response.p50 <= stats.response.maximum
    assert stats.wait.count == 10


def test_the_one_thread_of_the_pools_ends_with_the_last(pools: Pools) -> None:
    first, second = pools(), pools()
    redis.Redis(connection_pool=first).ping()
    redis.Redis(connection_pool=second).ping()
    assert [row.name for row in sync_upkeep.rows()] == ["headrace pool upkeep"]

    first.close()
    second.close()

    names = [thread.name for thread in threading.enumerate()]
    assert "headrace pool upkeep" not in names
    assert sync_upkeep.rows() == []


def test_a_forgotten_pool_leaves_neither_thread_nor_connection(server: PrivateServer, raw: Raw) -> None:
    name = f"sync-{random_name(8)}"
    pool = ConnectionPool.from_url(server.url, client_name=name)
    redis.Redis(connection_pool=pool).ping()
    ref = weakref.ref(pool)

    del pool

    assert ref() is None
    until(lambda: f"name={name} " not in raw("CLIENT", "LIST").decode(), "the server sees none")
    until(lambda: sync_upkeep.rows() == [], "the thread ends")
