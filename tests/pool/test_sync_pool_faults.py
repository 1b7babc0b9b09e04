"""The pool for threads through faults of the server and the way to it: it recovers by itself, and makes no storm."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import pytest
import redis

from headrace.errors import ConnectionLost
from headrace.pool.sync import ConnectionPool
from headrace.pool.sync_opening import HANGING_ATTEMPTS
from headrace.server import start_private_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.proxy import FaultProxy
    from tests.support.stalls import Stalls

DEADLINE = 10.0


@contextlib.contextmanager
def opened(url: str, **options: Any) -> Iterator[ConnectionPool]:
    pool = ConnectionPool.from_url(url, **options)
    yield pool
    pool.close()
    assert pool.stats().total == 0


def recovers(pool: ConnectionPool, stalls: Stalls) -> float:
    """Return how many seconds it takes until a command works again."""
    began = time.monotonic()
    client = redis.Redis(connection_pool=pool)
    while True:
        try:
            assert client.ping() is True
            return stalls.lasted(began)
        except redis.ConnectionError:
            assert time.monotonic() - began < DEADLINE


def count_attempts(proxy: FaultProxy) -> list[float]:
    """Note when each connection to a proxy that refuses is attempted."""
    attempts: list[float] = []
    accept = proxy._accept

    def noting(*place: Any) -> None:
        attempts.append(time.monotonic())
        accept(*place)

    proxy._accept = noting  # type: ignore[method-assign, assignment]  # what is counted is counted from inside
    return attempts


def test_a_server_that_refuses_meets_one_series_of_attempts_from_all_threads(proxy: FaultProxy, stalls: Stalls) -> None:
    with opened(proxy.url, max_connections=20, reconnect_patience=0.5) as pool:
        proxy.refusing = True
        attempts = count_attempts(proxy)

        def call(_: int) -> type[BaseException]:
            with pytest.raises(redis.ConnectionError) as caught:
                redis.Redis(connection_pool=pool).ping()
            return caught.type

        began = time.monotonic()
        with ThreadPoolExecutor(40) as threads:
            kinds = set(threads.map(call, range(40)))
        lasted = stalls.lasted(began)

        assert all(issubclass(kind, ConnectionLost) for kind in kinds)
        # At first as many at once as the pool opens together, then one after another: not 40 in a circle.
        assert 1 < len(attempts) <= 40
        assert lasted < 5
        assert pool.stats().errors
        proxy.refusing = False
        assert recovers(pool, stalls) < 1.0


def test_a_caller_waits_for_a_server_that_comes_back_soon(proxy: FaultProxy) -> None:
    with opened(proxy.url, max_connections=4) as pool:
        proxy.refusing = True
        threading.Timer(0.3, lambda: setattr(proxy, "refusing", False)).start()

        assert redis.Redis(connection_pool=pool).ping() is True

        assert pool.stats().failed_total >= 1


def test_every_connection_is_replaced_after_a_restart(tmp_path: Path, stalls: Stalls) -> None:
    extra = ("--appendonly", "no", "--save", "")
    with start_private_server(tmp_path, extra=extra) as own, opened(own.url, max_connections=8) as pool:
        held = [pool.get_connection() for _ in range(8)]
        for each in held[1:]:
            pool.release(each)

        own.restart()

        assert recovers(pool, stalls) < 1.0
        pool.release(held[0])
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: redis.Redis(connection_pool=pool).ping(), range(40)))
        assert answers == [True] * 40
        assert pool.stats().total <= 8


def test_a_connection_that_fell_silent_while_idle_is_found_before_it_is_lent(tmp_path: Path) -> None:
    extra = ("--appendonly", "no", "--save", "")
    with start_private_server(tmp_path, extra=extra) as own:
        options: dict[str, Any] = {"check_after": 0.05, "check_timeout": 0.1, "open_timeout": 0.2}
        with opened(own.url, max_connections=1, reconnect_patience=5.0, **options) as pool:
            first = pool.get_connection()
            pool.release(first)
            time.sleep(0.06)
            # A stopped process neither answers nor closes anything, as one whose network is gone.
            os.kill(own.pid, signal.SIGSTOP)
            threading.Timer(0.5, lambda: os.kill(own.pid, signal.SIGCONT)).start()

            second = pool.get_connection()

            assert second is not first
            second.send_command("PING")
            assert second.read_response() == b"PONG"
            pool.release(second)
            assert pool.stats().errors


def test_a_server_without_room_for_another_client_is_waited_for(tmp_path: Path) -> None:
    extra = ("--appendonly", "no", "--save", "", "--maxclients", "4")
    with (
        start_private_server(tmp_path, extra=extra) as own,
        opened(own.url, max_connections=4) as other,
        opened(own.url, max_connections=2, reconnect_patience=5.0) as pool,
    ):
        held = []
        with contextlib.suppress(redis.ConnectionError):
            for _ in range(4):
                held.append(other.lane("user").get_connection())
                other.timeout = 0.2
        threading.Timer(0.3, lambda: [each.disconnect() for each in held]).start()

        answer = redis.Redis(connection_pool=pool).ping()

        assert answer is True
        assert pool.stats().failed_total >= 1
        for each in held:
            other.release(each)


def test_a_cut_while_a_connection_is_lent_frees_its_place(proxy: FaultProxy) -> None:
    with opened(proxy.url, max_connections=1) as pool:
        connection = pool.get_connection()
        cut = proxy.arm(lambda request: b"PING" in request)
        connection.send_command("PING")
        with pytest.raises(redis.ConnectionError):
            connection.read_response()
        assert cut.struck.wait(DEADLINE)

        pool.release(connection)

        assert redis.Redis(connection_pool=pool).ping() is True
        stats = pool.stats()
        assert (stats.opened_total, stats.closed_total, stats.total) == (2, 1, 1)


def test_closing_ends_waits_and_openings(proxy: FaultProxy) -> None:
    pool = ConnectionPool.from_url(proxy.url, max_connections=1, reconnect_patience=DEADLINE)
    held = pool.get_connection()
    with ThreadPoolExecutor(3) as threads:
        waits = [threads.submit(pool.get_connection) for _ in range(3)]
        while pool.stats().waiting < 3:
            time.sleep(0.005)

        pool.close()

        for wait in waits:
            with pytest.raises(redis.ConnectionError, match="is closed"):
                wait.result(DEADLINE)
    assert not held.is_connected
    pool.release(held)
    assert pool.stats().total == 0


def test_a_closed_pool_begins_anew_with_start(server: PrivateServer) -> None:
    with opened(server.url, min_connections=2) as pool:
        pool.close()

        pool.start()

        assert pool.stats().idle == 2
        assert redis.Redis(connection_pool=pool).ping() is True


def test_a_start_without_a_server_says_so(proxy: FaultProxy) -> None:
    with opened(proxy.url, min_connections=2) as pool:
        proxy.refusing = True

        with pytest.raises(ConnectionLost, match="could not open its minimum of 2 connections"):
            pool.start()


@pytest.mark.slow
def test_a_network_that_swallowed_packets_for_long_is_found_again_within_a_second(
    proxy: FaultProxy, stalls: Stalls
) -> None:
    with opened(proxy.url, max_connections=8, timeout=20.0, reconnect_patience=20.0) as pool:
        proxy.refusing = True
        with ThreadPoolExecutor(12) as threads:
            calls = [threads.submit(redis.Redis(connection_pool=pool).ping) for _ in range(12)]
            until(lambda: pool.stats().failed_total)
            proxy.silent, proxy.refusing = True, False
            most, enough = 0, time.monotonic() + 3.3
            while time.monotonic() < enough:
                most = max(most, pool.stats().opening)
                time.sleep(0.01)
            assert proxy.swallowed
            proxy.silent = False
            back = time.monotonic()

            # A thread whose own attempt hangs is answered when that ends; the others need not wait for it.
            first = next(as_completed(calls, DEADLINE))
            found = stalls.lasted(back)

        assert first.result() is True
        assert found < 1.0
        assert [call.result() for call in calls] == [True] * 12
        assert 1 < most <= HANGING_ATTEMPTS


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
