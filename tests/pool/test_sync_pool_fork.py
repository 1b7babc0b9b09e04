"""A forked child never uses the sockets of its parent, and neither keeps them open nor closes them."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import redis

from headrace.ids import random_name
from headrace.pool.sync import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.server import PrivateServer
    from tests.support.raw import Raw

DEADLINE = 10.0


@pytest.fixture
def pool(server: PrivateServer) -> Iterator[ConnectionPool]:
    pool = ConnectionPool.from_url(server.url, client_name=f"fork-{random_name(8)}", max_connections=4)
    yield pool
    pool.close()


def in_child(work: Callable[[], Any]) -> Any:
    """Fork, do something in the child, and return what it returned as JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(DEADLINE, exit=True)
        # Whatever happens, the child must not go on with the tests.
        with contextlib.suppress(BaseException):
            try:
                answer = json.dumps(work())
            except BaseException:  # noqa: BLE001 - told to the parent
                answer = json.dumps(traceback.format_exc())
            os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def seen(raw: Raw, pool: ConnectionPool) -> list[int]:
    """The ids of the pool's connections, as the server knows them."""
    name = pool.connection_kwargs["client_name"]
    lines = [line for line in raw("CLIENT", "LIST").decode().splitlines() if f"name={name} " in line]
    return sorted(int(line.split()[0].removeprefix("id=")) for line in lines)


def test_a_child_opens_connections_of_its_own(pool: ConnectionPool, raw: Raw) -> None:
    client = redis.Redis(connection_pool=pool)
    mine = client.client_id()

    theirs = in_child(client.client_id)

    assert isinstance(theirs, int)
    assert theirs != mine
    assert client.client_id() == mine
    assert seen(raw, pool) == [mine]


def test_a_connection_in_use_at_the_fork_is_of_no_use_to_the_child(pool: ConnectionPool) -> None:
    client = redis.Redis(connection_pool=pool)
    connection = pool.get_connection()

    def misuse() -> list[Any]:
        try:
            connection.send_command("ECHO", "from the child")
            found = "sent"
        except redis.ConnectionError as error:
            found = type(error).__name__
        pool.release(connection)
        return [found, client.ping(), pool.stats().total]

    answer = in_child(misuse)

    assert answer == ["ConnectionError", True, 1]
    connection.send_command("ECHO", "from the parent")
    assert connection.read_response() == b"from the parent"
    pool.release(connection)


def test_a_child_that_closes_its_pool_leaves_the_parents_open(pool: ConnectionPool) -> None:
    client = redis.Redis(connection_pool=pool)
    mine = client.client_id()

    def close() -> bool:
        answered = client.ping()
        pool.close()
        return bool(answered)

    answer = in_child(close)

    assert answer is True
    assert client.client_id() == mine


def test_a_parent_that_closes_its_pool_leaves_the_childs_open(pool: ConnectionPool, raw: Raw) -> None:
    client = redis.Redis(connection_pool=pool)
    mine = client.client_id()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(DEADLINE, exit=True)
        ours.close()
        with contextlib.suppress(BaseException):
            theirs.send(str(client.client_id()).encode())
            theirs.recv(1)
            theirs.send(str(client.client_id()).encode())
        os._exit(0)
    theirs.close()
    its = int(ours.recv(100))
    assert seen(raw, pool) == sorted([mine, its])

    pool.close()

    # The child has let go of the parent's socket, so that the server sees it end while the child lives.
    deadline = time.monotonic() + DEADLINE
    while seen(raw, pool) != [its]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    ours.send(b"x")
    assert int(ours.recv(100)) == its
    os.waitpid(child, 0)
    ours.close()


def test_a_fork_while_other_threads_use_the_pool_finds_it_usable(pool: ConnectionPool) -> None:
    client = redis.Redis(connection_pool=pool)
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            client.ping()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()

    answers = [in_child(client.ping) for _ in range(5)]

    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert answers == [True] * 5
    assert pool.stats().active == 0
