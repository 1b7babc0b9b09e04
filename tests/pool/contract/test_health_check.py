"""`health_check_interval`: a connection that was idle for longer is asked with a PING before its next command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from headrace.server import PrivateServer
    from tests.pool.contract.subjects import Subject

INTERVAL = 60


class Sent:
    """Watch the commands that a connection sends."""

    def __init__(self, connection: Any) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self._send = connection.send_command
        connection.send_command = self._watch

    def _watch(self, *words: Any, **options: Any) -> Any:
        self.commands.append(words)
        return self._send(*words, **options)


@pytest.fixture
async def watched(subject: Subject, place: PrivateServer) -> tuple[Any, Any, Sent]:
    """A pool, its only connection, which is due for a check, and what that one sends."""
    pool = subject.pool_from(place.url, max_connections=1, health_check_interval=INTERVAL)
    connection = await subject.do(pool.get_connection)
    await subject.do(pool.release, connection)
    connection.next_health_check = 0
    return pool, connection, Sent(connection)


async def test_a_check_that_is_due_goes_before_the_command(
    subject: Subject, watched: tuple[Any, Any, Sent], key: str
) -> None:
    pool, connection, sent = watched

    await subject.do(subject.client(pool).get, key)

    assert sent.commands == [("GET", key), ("PING",)]
    assert connection.next_health_check > 0


async def test_a_check_that_is_not_due_is_left_out(subject: Subject, watched: tuple[Any, Any, Sent], key: str) -> None:
    pool, connection, sent = watched
    client = subject.client(pool)
    await subject.do(client.get, key)
    due = connection.next_health_check
    sent.commands.clear()

    await subject.do(client.get, key)

    assert sent.commands == [("GET", key)]
    assert connection.next_health_check >= due


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_check_goes_before_a_pipeline(
    subject: Subject, watched: tuple[Any, Any, Sent], key: str, *, transaction: bool
) -> None:
    pool, _, sent = watched
    pipe = subject.client(pool).pipeline(transaction=transaction)
    pipe.set(key, "value").get(key)

    answers = await subject.do(pipe.execute)

    assert answers == [True, b"value"]
    assert ("PING",) in sent.commands


async def test_a_check_goes_before_a_watch(subject: Subject, watched: tuple[Any, Any, Sent], key: str) -> None:
    pool, _, sent = watched
    pipe = subject.client(pool).pipeline()

    await subject.do(pipe.watch, key)

    assert ("PING",) in sent.commands
    await subject.do(pipe.reset)


async def test_a_check_goes_before_a_subscription(subject: Subject, watched: tuple[Any, Any, Sent], key: str) -> None:
    pool, _, sent = watched
    pubsub = subject.client(pool).pubsub()

    await subject.do(pubsub.subscribe, key)

    assert ("PING",) in sent.commands
    await subject.do(pubsub.close if subject.threaded else pubsub.aclose)
