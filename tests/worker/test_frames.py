"""Messages between a worker and its children: whole however the stream is cut, and refused when they make no sense."""

from __future__ import annotations

import doctest

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import RecordCorrupt
from headrace.record import encode_value
from headrace.worker import frames
from headrace.worker.frames import (
    FRAME_LIMIT_BYTES,
    LENGTH_BYTES,
    Begin,
    Call,
    Done,
    Failed,
    FrameReader,
    Location,
    Message,
    Note,
    Noted,
    Ready,
    pack,
    unpack,
)

names = st.text(max_size=20)
locations = st.builds(Location, names, names, names)
numbers = st.integers(0, 2**53)
seconds = st.none() | st.floats(0, 1e10)
followers = st.tuples(names, numbers, st.binary(max_size=50), st.integers(1, 20))
values = st.binary(max_size=300).map(encode_value).map(msgspec.Raw)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin, st.lists(names, max_size=3), numbers, st.lists(st.tuples(names, locations), max_size=3)),
    st.just(Ready()),
    st.builds(
        Call, locations, names, st.binary(max_size=300), st.dictionaries(names, values, max_size=3), names, names,
        numbers, numbers, seconds,
    ),
    st.builds(Noted, names, names),
    st.builds(Note, st.floats(0, 100), names, st.none() | names),
    st.builds(Done, values, st.lists(followers, max_size=3)),
    st.builds(Failed, st.lists(st.tuples(names, names), max_size=4), names, names, names, seconds, names),
)  # fmt: skip


def test_examples() -> None:
    result = doctest.testmod(frames)

    assert result.attempted >= 3
    assert result.failed == 0


@given(st.lists(messages, max_size=6), st.data())
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(pack(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()

    received: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += reader.feed(stream[start:end])

    assert [pack(message) for message in received] == [pack(message) for message in sent]


def test_a_length_that_no_message_has_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(RecordCorrupt, match="none is longer"):
        FrameReader().feed((FRAME_LIMIT_BYTES + 1).to_bytes(LENGTH_BYTES, "big"))


@given(st.binary(max_size=60))
def test_bytes_that_make_no_sense_are_refused(noise: bytes) -> None:
    try:
        message = unpack(noise)
    except RecordCorrupt as error:
        assert "cannot be read" in str(error)  # noqa: PT017 - most noise is refused, some happens to be a message
    else:
        assert unpack(pack(message)[LENGTH_BYTES:]) == message
