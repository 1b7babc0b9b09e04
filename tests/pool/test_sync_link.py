"""The blocking link gives each call its own replies, whatever struck the call before."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from headrace.errors import ConnectionLost
from headrace.pool.address import parse_address
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from headrace.server import PrivateServer


class StruckError(Exception):
    """What a signal handler of the program raises, such as a worker's own time limit."""


@pytest.fixture
def link(server: PrivateServer) -> Iterator[SyncLink]:
    link = SyncLink(parse_address(server.url), name="sync")
    yield link
    link.close()


@pytest.fixture
def struck_soon() -> Iterator[None]:
    """Raise in the main thread in a moment."""

    def strike(_number: int, _frame: FrameType | None) -> None:
        raise StruckError

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.timeout(60, method="thread")
@pytest.mark.usefixtures("struck_soon")
def test_the_reply_of_a_call_that_a_signal_ended_is_not_given_to_the_next(link: SyncLink) -> None:
    with pytest.raises(StruckError):
        link.roundtrip(pack_command("BLPOP", "sync-link-nothing", "1"), 1)

    assert link.roundtrip(pack_command("ECHO", "mine"), 1) == [b"mine"]


def test_the_reply_of_a_call_that_ran_out_of_time_is_not_given_to_the_next(link: SyncLink) -> None:
    with pytest.raises(ConnectionLost, match="did not answer"):
        link.roundtrip(pack_command("BLPOP", "sync-link-nothing", "1"), 1, timeout=0.05)

    assert link.roundtrip(pack_command("ECHO", "mine"), 1) == [b"mine"]
