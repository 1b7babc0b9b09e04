"""What a worker process tells its supervisor, over a pair of sockets: it started, what it did, why it cannot run.

It also tells when its memory runs short, and asks for another process in its place before it does.

The child writes lines of JSON. The other way there are a few words, to stop hard and to ask how the child is, and the
end of the stream, which says that the supervisor is gone. Neither waits for the other: what a child did not say before
its end stays unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from headrace.telemetry.samples import Counted, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

#: Names the socket in the environment of a child. It starts with no HEADRACE_, as it is no setting.
REPORT_VARIABLE: Final = "_HEADRACE_REPORT_FD"
#: Tells a child how the process ended that it replaces, if that ran out of memory.
PREDECESSOR_VARIABLE: Final = "_HEADRACE_PREDECESSOR"
#: Tells a process how many before it, one after another, used up their memory soon after their start.
QUICK_VARIABLE: Final = "_HEADRACE_QUICK"
#: What a supervisor writes for a hard stop.
HARD: Final = b"hard\n"
#: What it writes to hear whether the child lives, and how it is.
ASK_LIFE: Final = b"live\n"
ASK_HEALTH: Final = b"ask\n"
#: What it writes to hear the figures of the child, and those of the queues.
ASK_FIGURES: Final = b"figures\n"
ASK_QUEUES: Final = b"queues\n"
#: Longest line: the figures of MAX_QUEUES queues with the longest names take about half of it.
_LINE_LIMIT_BYTES: Final = 262_144
_TEXT_LIMIT: Final = 4_000


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The worker reserves jobs.

    Attributes:
        worker: Id of the worker.
        grace: Time that it gives running jobs when it stops, seconds.
    """

    worker: str
    grace: float


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """The worker has let go of everything.

    Attributes:
        completed: Jobs that completed.
        failed: Jobs that are dead.
        retried: Attempts that failed and are followed by another.
        seconds: Time from its start to its end.
    """

    completed: int
    failed: int
    retried: int
    seconds: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker cannot run.

    Attributes:
        reason: One sentence for people.
        code: The exit code that follows.
    """

    reason: str
    code: int


class Pressed(msgspec.Struct, frozen=True, tag="pressed"):
    """The worker's memory runs short.

    Attributes:
        step: `high` or `critical`.
        used_mb: What it uses.
        budget_mb: What it may use.
        jobs: Task and id of some of the jobs that it runs.
        replace: It takes no more jobs, and asks for another process in its place.
        needs_mb: What that one needs from its start.
    """

    step: str
    used_mb: int
    budget_mb: int
    jobs: list[str]
    replace: bool = False
    needs_mb: int = 0


class Lives(msgspec.Struct, frozen=True, tag="lives"):
    """The loop of the process turns."""


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """How the process is.

    Attributes:
        ready: Whether its worker is consuming.
        reasons: Why it is not.
        health: The verdict on its app; empty while there is none.
    """

    ready: bool
    reasons: list[str]
    health: dict[str, Any]


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """The figures of the process; none while its app is not open."""

    samples: list[Sample]


class Queues(msgspec.Struct, frozen=True, tag="queues"):
    """What the server told the process of the queues; None while its app is not open."""

    counted: Counted | None


Message: TypeAlias = Started | Stopped | Failed | Pressed | Lives | Answered | Measured | Queues
#: What a child says when it is asked.
Reply: TypeAlias = Lives | Answered | Measured | Queues
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class Reporter:
    """The child's end.

    Args:
        connection: Socket that the supervisor handed over.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # A task's own child processes shall not keep the socket open.
        connection.set_inheritable(False)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Reporter | None:
        """Take the socket that the environment names, and its name out of there; None without a supervisor."""
        text = environ.pop(REPORT_VARIABLE, "")
        return cls(socket.socket(fileno=int(text))) if text.isdecimal() else None

    def send(self, message: Message) -> None:
        """Tell the supervisor, if it is still there."""
        if isinstance(message, Failed):
            message = Failed(message.reason[:_TEXT_LIMIT], message.code)
        with contextlib.suppress(OSError):
            self._connection.sendall(_encoder.encode(message) + b"\n")

    def watch(
        self, gone: Callable[[], None], hard: Callable[[], None], asked: Callable[[bytes], None] = lambda _: None
    ) -> None:
        """Call back when the supervisor is gone, however it ended, wants a hard stop, or asks, with its word."""
        loop = asyncio.get_running_loop()
        rest = b""

        def readable() -> None:
            nonlocal rest
            try:
                data = self._connection.recv(64)
            except OSError:
                data = b""
            if not data:
                loop.remove_reader(self._connection)
                gone()
                return
            *words, rest = (rest + data).split(b"\n")
            for word in words:
                if word + b"\n" == HARD:
                    hard()
                else:
                    asked(word + b"\n")

        loop.add_reader(self._connection, readable)

    def unwatch(self) -> None:
        """Stop watching; the socket stays open to the end of the process, for a last word."""
        asyncio.get_running_loop().remove_reader(self._connection)


class MessageReader:
    r"""Cut what arrives from a child into messages; what is none of ours is dropped.

    Example:
        >>> reader = MessageReader()
        >>> reader.feed(b'{"type":"started","worker":"w1",')
        []
        >>> reader.feed(b'"grace":25.0}\nnonsense\n')
        [Started(worker='w1', grace=25.0)]
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes and return the messages that they complete."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LINE_LIMIT_BYTES:]
        messages: list[Message] = []
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):
                messages.append(_decoder.decode(line))
        return messages
