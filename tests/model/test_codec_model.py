"""Whatever can be annotated comes back from a record as it went in; bytes that are no record are refused as such."""

from __future__ import annotations

import contextlib
import enum
import math
import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.arguments import Signature
from headrace.errors import EncodingError, RecordCorrupt, RecordTooLarge, RecordTooNew
from headrace.record import NO_OPTIONS, BodyWriter, Options, encode_value, read_record

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1_048_576


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10


@dataclass
class Point:
    x: float
    label: str = ""
    tags: list[str] = field(default_factory=list)


class Order(msgspec.Struct):
    number: int
    lines: list[tuple[str, Decimal]]
    placed: datetime | None = None
    point: Point | None = None


class Person(pydantic.BaseModel):
    name: str
    born: date
    salary: Decimal | None = None
    home: UUID | None = None
    friends: list[Person] = []


texts = st.text(max_size=40)
whole = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=False)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11)), None])
moments = st.datetimes(timezones=zones)
points = st.builds(Point, floats, texts, st.lists(texts, max_size=3))
orders = st.builds(
    Order, whole, st.lists(st.tuples(texts, decimals), max_size=3), st.none() | moments, st.none() | points
)
people = st.builds(Person, name=texts, born=st.dates(), salary=st.none() | decimals, home=st.none() | st.uuids())
plain = st.recursive(
    st.none() | st.booleans() | whole | floats | texts | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, plain), (bool, st.booleans()), (int, whole), (float, floats), (str, texts), (bytes, st.binary(max_size=100)),
    (datetime, moments), (date, st.dates()), (time, st.times(timezones=zones)),
    (timedelta, st.timedeltas(timedelta(days=-99_999), timedelta(days=99_999))), (UUID, st.uuids()),
    (Decimal, decimals),
    (Colour, st.sampled_from(Colour)), (Level, st.sampled_from(Level)), (Point, points), (Order, orders),
    (Person, people), (list[Order], st.lists(orders, max_size=3)), (dict[str, Point], st.dictionaries(texts, points)),
    (dict[int, Colour], st.dictionaries(st.integers(0, 99), st.sampled_from(Colour))),
    (tuple[int, str], st.tuples(whole, texts)), (set[UUID], st.sets(st.uuids(), max_size=4)),
    (frozenset[int], st.frozensets(whole, max_size=4)), (int | None, st.none() | whole),
    (list[datetime | None], st.lists(st.none() | moments, max_size=4)), (list[Person], st.lists(people, max_size=3)),
]  # fmt: skip


def signature_for(annotation: Any) -> Signature:
    def function(value: Any, *, key: Any = None) -> Any:
        return value or key

    function.__annotations__ = {"value": annotation, "key": annotation, "return": annotation}
    return Signature(function, "task")


def record_of(body: bytes) -> bytes:
    """Put the stamp before a body, as the script on the server does."""
    return b"\x01\x05" + (1_790_000_000_000).to_bytes(6, "big") + body


@pytest.mark.parametrize("compress_over", [0, 16])
@pytest.mark.parametrize(("annotation", "values"), [pytest.param(kind, values, id=str(kind)) for kind, values in TYPES])
def test_values_come_back_as_they_went_in(annotation: Any, values: st.SearchStrategy[Any], compress_over: int) -> None:
    signature = signature_for(annotation)
    writer = BodyWriter("task", limit_bytes=LIMIT, compress_over_bytes=compress_over)

    @settings(max_examples=40)
    @given(values, st.booleans())
    def check(value: Any, by_name: bool) -> None:  # noqa: FBT001 - hypothesis passes by place
        encoded = msgspec.Raw(encode_value(value))
        arguments = encode_value(()) if by_name else encode_value((value,))
        body = writer.write(arguments, {"key": encoded} if by_name else None, NO_OPTIONS)

        read = read_record(record_of(body))

        assert (read.task, read.priority, read.enqueued_ms) == ("task", 5, 1_790_000_000_000)
        if by_name:
            assert signature.decode_keywords(read.keywords) == {"key": value}
        else:
            assert signature.decode_arguments(read.arguments) == (value,)
        assert signature.decode_result(encoded) == value

    check()


@given(st.builds(Options, st.none() | texts, st.none() | st.integers(1, 1000), st.none() | floats, st.none() | floats))
def test_options_come_back_as_they_went_in(options: Options) -> None:
    writer = BodyWriter("task", limit_bytes=LIMIT, compress_over_bytes=0)

    read = read_record(record_of(writer.write(encode_value((1, 2)), {"a": msgspec.Raw(b"\x07")}, options)))

    assert read.options == options
    assert read.arguments == b"\x92\x01\x02"
    assert {name: bytes(raw) for name, raw in read.keywords.items()} == {"a": b"\x07"}


def read_as(record: bytes, signature: Signature) -> object:
    read = read_record(record)
    return signature.decode_arguments(read.arguments), signature.decode_keywords(read.keywords)


ORDER = Order(7, [("a", Decimal("1.5"))], datetime(2026, 1, 1, tzinfo=UTC), Point(1.0, "p", ["t"]))


def whole_records() -> list[bytes]:
    arguments, more = encode_value((ORDER,)), {"key": msgspec.Raw(encode_value(ORDER))}
    return [
        record_of(BodyWriter("task", limit_bytes=LIMIT, compress_over_bytes=over).write(arguments, keywords, options))
        for over in (0, 16)
        for keywords, options in ((None, NO_OPTIONS), (more, Options(unique_key="k", attempts=3)))
    ]


@pytest.mark.parametrize("record", whole_records(), ids=["plain", "more", "packed", "packed more"])
def test_a_record_that_is_cut_anywhere_is_refused(record: bytes) -> None:
    signature = signature_for(Order)
    read_as(record, signature)

    for length in range(len(record)):
        with pytest.raises(RecordCorrupt):
            read_as(record[:length], signature)


@settings(max_examples=300)
@given(st.sampled_from(whole_records()), st.data())
def test_a_record_with_changed_bytes_is_read_or_refused_but_never_more(record: bytes, data: st.DataObject) -> None:
    changed = bytearray(record)
    for place in data.draw(st.lists(st.integers(0, len(record) - 1), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))

    with contextlib.suppress(RecordCorrupt, RecordTooNew):
        read_as(bytes(changed), signature_for(Order))


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x01\x05" + bytes(6), record_of(b"\x00\x04task")]))
def test_noise_is_refused_or_happens_to_make_sense(noise: bytes, head: bytes) -> None:
    signature = signature_for(Order)

    with contextlib.suppress(RecordCorrupt, RecordTooNew):
        read_as(head + noise, signature)


@pytest.mark.parametrize(("version", "flags"), [(2, 0), (15, 0), (1, 4), (1, 0x80), (2, 0xFF)])
def test_a_newer_record_is_told_from_a_malformed_one(version: int, flags: int) -> None:
    record = bytes([version, 5, *bytes(6), flags]) + b"\x04task\x90"

    with pytest.raises(RecordTooNew, match=f"version {version} and flags {flags:#x}; this process knows version 1"):
        read_record(record)


@pytest.mark.parametrize("head", [b"\x10\x05", b"\xff\x05", b"\x00\x05", b"\x02\x00", b"\x02\x15", b"\x01\x00"])
def test_what_cannot_be_a_record_of_any_version_is_malformed(head: bytes) -> None:
    with pytest.raises(RecordCorrupt, match="malformed head"):
        read_record(head + bytes(6) + b"\x00\x04task\x90")


def test_a_record_that_would_unfold_beyond_the_limit_is_refused_before_it_does() -> None:
    body = BodyWriter("task", limit_bytes=67_108_864, compress_over_bytes=256).write(
        encode_value((bytes(50_000_000),)), None, NO_OPTIONS
    )
    assert len(body) < 50_000

    with pytest.raises(RecordCorrupt, match="unfolds to 500000"):
        read_record(record_of(body), limit_bytes=1_000_000)


@pytest.mark.parametrize("compress_over", [0, 256])
def test_the_size_limit_holds_for_what_is_sent(compress_over: int) -> None:
    writer = BodyWriter("task", limit_bytes=1_024, compress_over_bytes=compress_over)
    noise = random.Random(7).randbytes(1_100)

    with pytest.raises(RecordTooLarge, match="limit is 1024"):
        writer.write(encode_value((noise,)), None, NO_OPTIONS)
    if compress_over:
        assert len(writer.write(encode_value((bytes(100_000),)), None, NO_OPTIONS)) < 1_024


def cycle() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    "make", [object, lambda: 2**64, lambda: -(2**63) - 1, lambda: "\ud800", cycle, lambda: {1: object()}, lambda: 1j]
)
def test_a_value_that_no_record_can_hold_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(EncodingError, match="cannot be written as a record"):
        encode_value((make(),))


def test_numbers_that_are_none_come_back_as_such() -> None:
    (value,) = signature_for(float).decode_arguments(encode_value((math.nan,)))

    assert math.isnan(value)
