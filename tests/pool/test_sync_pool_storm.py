"""Threads that do everything to one pool at once, at random, leave it whole."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from headrace.errors import OptionError, PoolTimeout
from headrace.ids import random_name
from headrace.pool.sync import ConnectionPool

if TYPE_CHECKING:
    from headrace.server import PrivateServer
    from tests.support.raw import Raw

DEADLINE = 10.0
THREADS = 12
MOST = 6
STEPS = 80


class Storm:
    """Threads that take, use, break, keep and give back connections of two lanes, while others change the pool."""

    def __init__(self, pool: ConnectionPool, seed: int) -> None:
        self.pool = pool
        self.lanes = [pool.lane("control"), pool.lane("user")]
        self.seed = seed
        self.wrong: list[str] = []
        self.timeouts = 0

    def use(self, number: int) -> None:
        chance = random.Random(self.seed * 1_000 + number)
        for step in range(STEPS):
            lane = chance.choice(self.lanes)
            try:
                connection = lane.get_connection()
            except PoolTimeout:
                self.timeouts += 1
                continue
            except redis.ConnectionError:
                continue
            try:
                self.say(connection, f"{number}-{step}", chance)
            finally:
                lane.release(connection)

    def say(self, connection: Any, word: str, chance: random.Random) -> None:
        """Use a connection in one of the ways of a careful or careless caller."""
        way = chance.random()
        # redis-py's connections raise these when another thread disconnects them in the middle.
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, AttributeError, ValueError, TypeError):
            if way < 0.6:
                connection.send_command("ECHO", word)
                heard = connection.read_response()
                if heard != word.encode():
                    self.wrong.append(f"{word}: heard {heard!r}")
            elif way < 0.8:
                connection.disconnect()
            elif way < 0.85:
                connection.mark_for_reconnect()
            else:
                time.sleep(chance.random() * 0.003)

    def disturb(self, stop: threading.Event) -> None:
        chance = random.Random(self.seed)
        while not stop.wait(0.005):
            way = chance.random()
            if way < 0.3:
                self.pool.disconnect(inuse_connections=chance.random() < 0.3)
            elif way < 0.6:
                with contextlib.suppress(OptionError):
                    self.pool.resize(maximum=chance.randint(2, MOST), minimum=chance.randint(0, 2))
            stats = self.pool.stats()
            if stats.active + stats.idle + stats.opening > MOST:
                self.wrong.append(f"too many: {stats}")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_storm_of_threads_leaves_the_pool_whole(server: PrivateServer, raw: Raw, seed: int) -> None:
    name = f"storm-{random_name(8)}"
    shares = {"control": 2, "user": MOST - 2}
    pool = ConnectionPool.from_url(server.url, max_connections=MOST, lanes=shares, timeout=0.5, client_name=name)
    storm = Storm(pool, seed)
    stop = threading.Event()
    threads = [threading.Thread(target=storm.use, args=(number,), daemon=True) for number in range(THREADS)]
    disturber = threading.Thread(target=storm.disturb, args=(stop,), daemon=True)

    for thread in [*threads, disturber]:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    stop.set()
    disturber.join(DEADLINE)

    assert not any(thread.is_alive() for thread in [*threads, disturber])
    assert storm.wrong == []
    pool.resize(maximum=MOST, minimum=0, lanes=shares)
    stats = pool.stats()
    assert (stats.active, stats.waiting) == (0, 0)
    assert [lane.active for lane in stats.lanes.values()] == [0, 0]
    assert redis.Redis(connection_pool=pool).ping() is True
    deadline = time.monotonic() + DEADLINE
    while raw("CLIENT", "LIST").decode().count(f"name={name} ") != pool.stats().total:
        assert time.monotonic() < deadline, pool.stats()
        time.sleep(0.01)
    pool.close()
    assert pool.stats().total == 0
