"""What a worker and the child processes that run its `process=True` tasks say to each other, as bytes.

A frame is its length, 4 bytes, big-endian, and one message as msgpack; nothing is ever pickled. The worker sends
`Begin` once, which the child answers with `Ready`, and then one `Call` at a time; the child answers each with `Done` or
`Failed`, and before that with any number of `Note`, each of which the worker answers with `Noted`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from headrace.errors import RecordCorrupt, RecordTooLarge

#: Largest frame: a record or a result of the largest size, with room for many followers.
FRAME_LIMIT_BYTES: Final = 268_435_456
LENGTH_BYTES: Final = 4

#: Id, delay in milliseconds, body and priority of a job that follows.
Follower: TypeAlias = tuple[str, int, bytes, int]


class Location(msgspec.Struct, array_like=True, frozen=True):
    """Where a function is found: see location.py.

    Attributes:
        module: Name of its module, `__main__` for the script that runs.
        qualname: Its name inside the module, with dots.
        script: Path of the script, if the module is `__main__`; else empty.
    """

    module: str
    qualname: str
    script: str = ""


class Begin(msgspec.Struct, tag="begin", array_like=True, frozen=True):
    """The first message to a child: the command line of its worker, the largest result, and where its tasks are."""

    argv: list[str]
    limit_bytes: int
    locations: list[tuple[str, Location]]


class Ready(msgspec.Struct, tag="ready", array_like=True, frozen=True):
    """The child has imported what it could, and waits for its first job."""


class Call(msgspec.Struct, tag="call", array_like=True, frozen=True):
    """One attempt of a job: the function, its arguments as they stand in the record, and what `current_job` says."""

    location: Location
    task: str
    arguments: bytes
    keywords: dict[str, msgspec.Raw]
    id: str
    queue: str
    attempt: int
    fence: int
    #: Seconds since the epoch, None without a timeout.
    deadline: float | None
    #: Most memory that the job may add to that of the process, MB; 0 for no limit.
    memory_limit_mb: int = 0


class Noted(msgspec.Struct, tag="noted", array_like=True, frozen=True):
    """The answer to a note: empty, or class and message of what went wrong."""

    error: str = ""
    message: str = ""


class Note(msgspec.Struct, tag="note", array_like=True, frozen=True):
    """Progress of the job, or a line for its log."""

    percent: float = 0.0
    text: str = ""
    line: str | None = None


class Done(msgspec.Struct, tag="done", array_like=True, frozen=True):
    """The function returned; the result is written as it goes into the outcome."""

    result: msgspec.Raw
    follows: list[Follower]


class Failed(msgspec.Struct, tag="failed", array_like=True, frozen=True):
    """The function raised: see remote.py.

    Attributes:
        kinds: Module and name of the exception's class and of its bases, the class first.
        name: What the class is called in a list of failures.
        message: What the exception says.
        traceback: Its traceback as text, bounded.
        after: What a `Retry` asks for.
        reason: What a `Retry` says.
    """

    kinds: list[tuple[str, str]]
    name: str
    message: str
    traceback: str
    after: float | None = None
    reason: str = ""


Message: TypeAlias = Begin | Ready | Call | Noted | Note | Done | Failed

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def pack(message: Message) -> bytes:
    """Return a message as a frame.

    Raises:
        RecordTooLarge: It passes `FRAME_LIMIT_BYTES`.

    Example:
        >>> unpack(pack(Noted())[LENGTH_BYTES:])
        Noted(error='', message='')
    """
    payload = _encoder.encode(message)
    if len(payload) > FRAME_LIMIT_BYTES:
        text = f"a message of {len(payload)} bytes between a worker and its child process: the limit is"
        raise RecordTooLarge(f"{text} {FRAME_LIMIT_BYTES}. Store the data elsewhere and pass its key.")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def unpack(payload: bytes) -> Message:
    """Return the message of a frame without its length.

    Raises:
        RecordCorrupt: The bytes make no sense.
    """
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = f"a message of {len(payload)} bytes between a worker and its child process cannot be read: {error}"
        raise RecordCorrupt(text + ". Something in the task wrote to a descriptor that is not its own.") from error


def length_of(head: bytes | bytearray) -> int:
    """Return the length that a frame begins with.

    Raises:
        RecordCorrupt: No message is that long.
    """
    length = int.from_bytes(head[:LENGTH_BYTES], "big")
    if length > FRAME_LIMIT_BYTES:
        text = f"a message of {length} bytes between a worker and its child process: none is longer than"
        raise RecordCorrupt(
            f"{text} {FRAME_LIMIT_BYTES}. Something in the task wrote to a descriptor that is not its own."
        )
    return length


class FrameReader:
    """Cut a stream of bytes into messages.

    Example:
        >>> reader, frame = FrameReader(), pack(Noted("E", "m"))
        >>> reader.feed(frame[:5]), reader.feed(frame[5:] + frame)
        ([], [Noted(error='E', message='m'), Noted(error='E', message='m')])
    """

    def __init__(self) -> None:
        # Bound: one frame, FRAME_LIMIT_BYTES, and what arrived with its end.
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes and return the messages that they complete; raises RecordCorrupt."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        at = 0
        while len(buffer) - at >= LENGTH_BYTES:
            start = at + LENGTH_BYTES
            end = start + length_of(buffer[at:start])
            if len(buffer) < end:
                break
            messages.append(unpack(bytes(buffer[start:end])))
            at = end
        del buffer[:at]
        return messages
