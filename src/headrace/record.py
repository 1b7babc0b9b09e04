"""One job as bytes: what a record holds, how it is written and read, and how large it may be.

Layout (all numbers big-endian)::

    version 1 | priority 1 | enqueued_ms 6 || flags 1 | name length 1 | task name | payload
    `- the server's script writes these -'    `- the body: written by the enqueuing process -'

The payload is msgpack: the positional arguments as an array; with the flag WITH_MORE an array [arguments, keyword
arguments, options]; with the flag COMPRESSED all of that through zstandard. Options hold only what differs from the
task's own. Nothing is ever pickled.

Measured: an array decodes faster than a map; benchmarks/record_codec.py prints both.
"""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from headrace.errors import EncodingError, RecordCorrupt, RecordTooLarge, RecordTooNew
from headrace.keys import HIGHEST_PRIORITY, LOWEST_PRIORITY

#: The only version so far. A process that meets a higher one leaves the job to others.
VERSION: Final = 1
#: Versions that there may be one day; what begins with a higher number is no record, and nobody will ever read it.
_LAST_VERSION: Final = 15
WITH_MORE: Final = 1
COMPRESSED: Final = 2
_KNOWN_FLAGS: Final = WITH_MORE | COMPRESSED

#: Longest name of a task in bytes of UTF-8.
MAX_NAME_BYTES: Final = 200

_STAMP_BYTES: Final = 8


class Options(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True):
    """What one job does differently from its task; None means as the task says. Durations are seconds."""

    unique_key: str | None = None
    attempts: int | None = None
    timeout: float | None = None
    keep_result: float | None = None


NO_OPTIONS: Final = Options()


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """The payload of a record with keyword arguments or options."""

    arguments: msgspec.Raw
    keywords: dict[str, msgspec.Raw] = {}
    options: Options = NO_OPTIONS


class Record(msgspec.Struct, frozen=True):
    """One record, read as far as it can be without knowing the task."""

    task: str
    priority: int
    enqueued_ms: int
    arguments: bytes
    keywords: dict[str, msgspec.Raw]
    options: Options


def _encode_other(value: object) -> object:
    dump = getattr(type(value), "model_dump", None)
    if dump is not None:
        # Why: pydantic is not imported here; a model is known by its method, and dumps itself to plain values.
        return dump(value, mode="python")
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    text = f"a value of type {kind} cannot be written as a record"
    raise EncodingError(
        f"{text}. Pass numbers, text, bytes, lists, dicts, date and time values, UUID, Decimal, enums, dataclasses, "
        "msgspec structs or pydantic models."
    )


def decode_other(kind: type, value: object) -> object:
    """Build a value of a type that msgspec does not know; a hook for typed decoders.

    Raises:
        EncodingError: Nobody knows how to build that type.
    """
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    text = f"a value of type {kind.__module__}.{kind.__qualname__} cannot be read from a record"
    raise EncodingError(f"{text}. Annotate the parameter with a type that msgspec or pydantic can read.")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_other)
_envelopes = msgspec.msgpack.Decoder(Envelope)


def encode_value(value: object) -> bytes:
    """Write one value as msgpack.

    Raises:
        EncodingError: The value, or something inside it, has a type that cannot be written.
    """
    try:
        return _encoder.encode(value)
    except EncodingError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        text = f"a value of type {type(value).__qualname__} cannot be written as a record: {error}"
        raise EncodingError(text + ". Pass plain values, dataclasses, structs or models.") from error


class BodyWriter:
    """Write the bodies of one task's records.

    Args:
        task: Name of the task.
        limit_bytes: Largest body, 1024..67108864.
        compress_over_bytes: Payloads above this size are compressed; 0 never compresses.

    Raises:
        EncodingError: The name is empty or longer than `MAX_NAME_BYTES`.
    """

    __slots__ = ("_limit_bytes", "_name", "_over", "_plain")

    def __init__(self, task: str, *, limit_bytes: int, compress_over_bytes: int) -> None:
        name = task.encode()
        if not 0 < len(name) <= MAX_NAME_BYTES:
            text = f"task name of {len(name)} bytes: expected 1 to {MAX_NAME_BYTES}. Give the task a shorter name."
            raise EncodingError(text)
        self._name = bytes([len(name)]) + name
        self._plain = b"\0" + self._name
        self._limit_bytes = limit_bytes
        self._over = compress_over_bytes or sys.maxsize

    def write(self, arguments: bytes, keywords: dict[str, msgspec.Raw] | None, options: Options) -> bytes:
        """Return the body of one record.

        Args:
            arguments: The positional arguments as a msgpack array.
            keywords: Each keyword argument as msgpack; None or empty for none.
            options: What the job does differently from its task.

        Raises:
            RecordTooLarge: The body passes the limit, even compressed.
        """
        flags = 0
        payload = arguments
        if keywords or options is not NO_OPTIONS:
            flags = WITH_MORE
            payload = _encoder.encode(Envelope(msgspec.Raw(arguments), keywords or {}, options))
        if len(payload) > self._over:
            packed = _compress(payload)
            if len(packed) < len(payload):
                flags |= COMPRESSED
                payload = packed
        if len(payload) > self._limit_bytes:
            text = f"a job of task '{self._name[1:].decode()}' takes {len(payload)} bytes"
            raise RecordTooLarge(
                f"{text}: the limit is {self._limit_bytes}. Store the data elsewhere and pass its key, or raise "
                "HEADRACE_RECORD_LIMIT_BYTES."
            )
        if flags:
            return bytes([flags]) + self._name + payload
        return self._plain + payload


def read_record(data: bytes, *, limit_bytes: int = 67_108_864) -> Record:
    """Read a record as the server holds it.

    Args:
        data: Stamp and body.
        limit_bytes: Largest payload after decompression; more is refused, so that a small record cannot fill memory.

    Raises:
        RecordTooNew: The record has a higher version or flags that this version does not know.
        RecordCorrupt: The bytes make no sense.
    """
    size = len(data)
    if size < _STAMP_BYTES + 3:
        raise RecordCorrupt(f"a record of {size} bytes is too short. Something else wrote to this key.")
    sound = LOWEST_PRIORITY <= data[1] <= HIGHEST_PRIORITY
    if sound and (VERSION < data[0] <= _LAST_VERSION or (data[0] == VERSION and data[8] & ~_KNOWN_FLAGS)):
        text = f"a record has version {data[0]} and flags {data[8]:#x}; this process knows version {VERSION}"
        raise RecordTooNew(f"{text} and flags {_KNOWN_FLAGS:#x}. Upgrade Headrace in this process.")
    end = 10 + data[9]
    if data[0] != VERSION or not sound or size <= end or not data[9]:
        raise RecordCorrupt(f"a record of {size} bytes has a malformed head. Something else wrote to this key.")
    flags = data[8]
    try:
        task = data[10:end].decode()
        payload = data[end:]
        if flags & COMPRESSED:
            payload = _decompress(payload, limit_bytes)
        if flags & WITH_MORE:
            envelope = _envelopes.decode(payload)
            return Record(
                task, data[1], int.from_bytes(data[2:8], "big"),
                bytes(envelope.arguments), envelope.keywords, envelope.options,
            )  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"a record of {size} bytes cannot be read: {error}. Something else wrote to this key."
        raise RecordCorrupt(text) from error
    return Record(task, data[1], int.from_bytes(data[2:8], "big"), payload, {}, NO_OPTIONS)


def _compress(payload: bytes) -> bytes:
    import zstandard  # noqa: PLC0415 - most apps never write a record above the threshold

    return zstandard.ZstdCompressor(level=3).compress(payload)


def _decompress(payload: bytes, limit_bytes: int) -> bytes:
    import zstandard  # noqa: PLC0415 - as in `_compress`

    try:
        frame = zstandard.get_frame_parameters(payload)
        if frame.content_size > limit_bytes:
            text = f"a compressed record unfolds to {frame.content_size} bytes: the limit is {limit_bytes}"
            raise RecordCorrupt(text + ". Something else wrote to this key.")
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=limit_bytes)
    except zstandard.ZstdError as error:
        text = f"a compressed payload of {len(payload)} bytes cannot be unfolded: {error}"
        raise RecordCorrupt(text + ". Something else wrote to this key.") from error


class Outcome(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True):
    """What is kept of a completed job, or sent to who waits for it. Times are Redis milliseconds."""

    task: str
    result: msgspec.Raw
    attempt: int = 1
    started_ms: int = 0
    finished_ms: int = 0


class Failure(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True):
    """What one attempt of a job raised: at most 200 + 2,000 + 8,000 characters."""

    attempt: int
    at_ms: int
    error: str
    message: str
    traceback: str = ""


#: Failures kept of one job: the first and the latest ones.
MAX_FAILURES: Final = 10

_outcomes = msgspec.msgpack.Decoder(Outcome)
_failures = msgspec.msgpack.Decoder(list[Failure])


def encode_outcome(outcome: Outcome) -> bytes:
    """Write an outcome."""
    return _encoder.encode(outcome)


def read_outcome(data: bytes) -> Outcome:
    """Read an outcome; raises RecordCorrupt when its bytes make no sense."""
    try:
        return _outcomes.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = f"an outcome of {len(data)} bytes cannot be read: {error}"
        raise RecordCorrupt(text + ". Something else wrote to this key.") from error


def read_failures(data: bytes) -> list[Failure]:
    """Read the failures of a job; empty bytes are no failures. Raises RecordCorrupt."""
    if not data:
        return []
    try:
        return _failures.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = f"a list of failures of {len(data)} bytes cannot be read: {error}"
        raise RecordCorrupt(text + ". Something else wrote to this key.") from error


def add_failure(data: bytes, failure: Failure) -> bytes:
    """Return the failures with one more; beyond `MAX_FAILURES` the second-oldest goes, so that the first stays."""
    try:
        failures = [*read_failures(data), failure]
    except RecordCorrupt:
        # Why: a job must be able to end whatever somebody else has written beside it; the new failure is worth more.
        failures = [failure]
    while len(failures) > MAX_FAILURES:
        del failures[1]
    return _encoder.encode(failures)


class State(msgspec.Struct, frozen=True):
    """The counts of a job: attempts used, stalls, deferrals; and a reason.

    The reason is 'stalled', or 'from QUEUE' in a dead-letter queue.
    """

    attempts: int = 0
    stalls: int = 0
    deferrals: int = 0
    reason: str = ""

    @property
    def origin(self) -> str | None:
        """The queue that a job in a dead-letter queue came from."""
        return self.reason.removeprefix("from ") if self.reason.startswith("from ") else None

    def encode(self) -> str:
        """Return the text that the server's scripts read."""
        return f"{self.attempts} {self.stalls} {self.deferrals} {self.reason}".rstrip()


FRESH: Final = State()
#: Attempts, stalls and deferrals.
COUNTS: Final = 3


def read_state(data: bytes | None) -> State:
    """Read the counts of a job; None is a job that has none. Raises RecordCorrupt."""
    if not data:
        return FRESH
    parts = data.decode("ascii", "replace").split(" ", COUNTS)
    counts, reason = parts[:COUNTS], parts[COUNTS:]
    if len(counts) < COUNTS or not all(part.isdigit() for part in counts):
        raise RecordCorrupt(f"the counts of a job read {data!r}: expected three whole numbers.")
    attempts, stalls, deferrals = map(int, counts)
    return State(attempts, stalls, deferrals, reason[0] if reason else "")
