"""Exceptions of a child process, described there and rebuilt in the worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import pytest

from headrace import Retry
from headrace.errors import HeadraceError, JobTimeout, RemoteError
from headrace.worker.frames import LENGTH_BYTES, Failed, pack, unpack
from headrace.worker.remote import describe, rebuild
from headrace.worker.verdict import describe_failure

if TYPE_CHECKING:
    from headrace.record import Failure


class Demanding(OSError):
    """Can be neither made nor changed nor printed without what another process lacks."""

    def __init__(self, number: int, *, host: str) -> None:
        super().__init__(number, "down")
        self.host = host

    def __setattr__(self, name: str, value: object) -> None:
        if name != "host":
            raise TypeError("read only")
        super().__setattr__(name, value)

    def __str__(self) -> str:
        return f"{self.host} is down"


class Unmakeable(Exception):
    def __new__(cls, *arguments: object) -> Self:
        if not arguments:
            raise TypeError("it needs a key")
        return super().__new__(cls, *arguments)


class Left(Exception):
    pass


class Right(ValueError):
    pass


class Nasty(BaseException):
    pass


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301 - it needs a traceback
    except BaseException as caught:  # noqa: BLE001 - any may be given
        return caught


def travel(error: BaseException) -> tuple[BaseException, Failure]:
    """Send an exception as a child does; return what is rebuilt and what is recorded of it."""
    message = unpack(pack(describe(raised(error)))[LENGTH_BYTES:])
    assert isinstance(message, Failed)
    back = rebuild(message)
    return back, describe_failure(back, 1, 0)


@pytest.mark.parametrize(
    ("error", "kind", "name", "message"),
    [
        (ValueError("no"), ValueError, "ValueError", "no"),
        (KeyError("key"), KeyError, "KeyError", "'key'"),
        (FileNotFoundError(2, "gone", "a.txt"), FileNotFoundError, "FileNotFoundError", "[Errno 2] gone: 'a.txt'"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ValueError, "UnicodeDecodeError", "'utf-8' codec"),
        (JobTimeout("late"), JobTimeout, "JobTimeout", "late"),
        (Demanding(1, host="db"), Demanding, f"{__name__}.Demanding", "db is down"),
        (SystemExit("enough"), SystemExit, "SystemExit", "enough"),
        (StopIteration(), StopIteration, "StopIteration", ""),
        (Unmakeable("k"), RemoteError, f"{__name__}.Unmakeable", "k"),
        (ExceptionGroup("some", [ValueError()]), RemoteError, "ExceptionGroup", "some (1 sub-exception)"),
        (KeyboardInterrupt(), RemoteError, "KeyboardInterrupt", ""),
        (asyncio.CancelledError(), RemoteError, "asyncio.exceptions.CancelledError", ""),
        (Nasty("past"), RemoteError, f"{__name__}.Nasty", "past"),
        (Exception("plain"), Exception, "Exception", "plain"),
    ],
)
def test_class_name_message_and_traceback_arrive(
    error: BaseException, kind: type[BaseException], name: str, message: str
) -> None:
    back, failure = travel(error)

    assert isinstance(back, kind)
    assert failure.error == name
    assert failure.message.startswith(message)
    assert "in raised" in failure.traceback


def test_a_class_that_is_not_known_here_is_rebuilt_from_all_its_known_bases() -> None:
    class Both(Left, Right):
        pass

    back, failure = travel(Both("two"))

    assert isinstance(back, Left)
    assert isinstance(back, Right)
    assert failure.error.endswith("Both")


def test_a_class_with_no_known_base_is_a_remote_error() -> None:
    class Local(Exception):
        pass

    back, failure = travel(Local("only there"))

    assert type(back) is RemoteError
    assert isinstance(back, HeadraceError)
    assert (failure.error.rpartition(".")[2], failure.message) == ("Local", "only there")


@pytest.mark.parametrize("after", [None, 0.0, 30.0])
def test_retry_keeps_what_it_asks_for(after: float | None) -> None:
    back, failure = travel(Retry(after=after, reason="busy"))

    assert isinstance(back, Retry)
    assert (back.after, back.reason) == (after, "busy")
    assert failure.message.endswith("busy")


def test_a_name_that_is_no_exception_here_is_never_called() -> None:
    called: list[Any] = []
    globals()["Trap"] = lambda *arguments: called.append(arguments)

    kinds = [(__name__, "Trap"), ("os", "system"), ("builtins", "eval")]
    back = rebuild(Failed(kinds=kinds, name="x", message="m", traceback=""))

    assert type(back) is RemoteError
    assert called == []
