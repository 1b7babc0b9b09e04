"""What a worker process tells its supervisor: whole messages out of any pieces, and the end of either side."""

from __future__ import annotations

import asyncio
import doctest
import itertools
import os
import socket
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.worker import child, report
from headrace.worker.report import HARD, REPORT_VARIABLE, Failed, Message, MessageReader, Reporter, Started, Stopped

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = [report, child]
MESSAGES: list[Message] = [Started("w1", 25.0), Failed("no\nway", 2), Stopped(1, 2, 3, 4.5)]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_are_true(module: ModuleType) -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


@given(st.lists(st.integers(0, 200)))
def test_messages_arrive_whole_however_they_are_cut(cuts: list[int]) -> None:
    data = b"".join(msgspec.json.encode(message) + b"\n" for message in MESSAGES)
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    reader = MessageReader()

    found = [message for at, to in itertools.pairwise(places) for message in reader.feed(data[at:to])]

    assert found == MESSAGES


@given(st.binary(max_size=300))
def test_what_is_no_message_is_dropped(noise: bytes) -> None:
    reader = MessageReader()
    reader.feed(noise)

    assert reader.feed(b'\n{"type":"started","worker":"w1","grace":25.0}\n')[-1:] == MESSAGES[:1]


def test_a_line_without_an_end_takes_bounded_memory() -> None:
    reader = MessageReader()

    for _ in range(100):
        reader.feed(b"x" * 65_536)

    assert len(reader._rest) <= 262_144


def test_the_socket_is_taken_out_of_the_environment_and_kept_from_child_processes() -> None:
    ours, theirs = socket.socketpair()
    environ = {REPORT_VARIABLE: str(theirs.detach()), "OTHER": "1"}
    os.set_inheritable(int(environ[REPORT_VARIABLE]), True)  # noqa: FBT003 - it takes no keyword

    reporter = Reporter.from_environment(environ)

    assert environ == {"OTHER": "1"}
    assert reporter is not None
    assert not reporter._connection.get_inheritable()
    reporter._connection.close()
    ours.close()


def test_without_a_supervisor_there_is_nobody_to_tell() -> None:
    assert Reporter.from_environment({}) is None
    assert Reporter.from_environment({REPORT_VARIABLE: "no number"}) is None


def test_telling_a_supervisor_that_is_gone_does_nothing() -> None:
    ours, theirs = socket.socketpair()
    ours.close()

    with theirs:
        Reporter(theirs).send(Stopped(1, 2, 3, 4.5))


def test_a_long_reason_is_cut() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Reporter(theirs).send(Failed("x" * 100_000, 1))

        assert len(ours.recv(100_000)) < 5_000


async def test_a_hard_stop_and_the_end_of_the_supervisor_are_heard_once_each() -> None:
    ours, theirs = socket.socketpair()
    heard: asyncio.Queue[str] = asyncio.Queue()
    with theirs:
        Reporter(theirs).watch(lambda: heard.put_nowait("gone"), lambda: heard.put_nowait("hard"))

        ours.send(HARD)
        first = await asyncio.wait_for(heard.get(), 5)
        ours.close()
        second = await asyncio.wait_for(heard.get(), 5)
        await asyncio.sleep(0)

    assert (first, second) == ("hard", "gone")
    assert heard.empty()
