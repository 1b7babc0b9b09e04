"""What lies beside a record: read whole, or refused as corrupt; never an error of the decoder, and never in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import RecordCorrupt
from headrace.record import Failure, add_failure, read_failures, read_outcome

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT_THAT_IS_NO_UTF8 = b"\x91\x95\x01\x02\xa1\x80\xa0\xa0"


@pytest.mark.parametrize("read", [read_failures, read_outcome])
@given(noise=st.binary(min_size=1, max_size=60) | st.just(TEXT_THAT_IS_NO_UTF8) | st.just(b"\x92\xa1\x80\xc0"))
def test_garbage_is_refused_as_corrupt(read: Callable[[bytes], object], noise: bytes) -> None:
    try:
        read(noise)
    except RecordCorrupt as error:
        assert "cannot be read" in str(error)  # noqa: PT017 - most noise is refused, some happens to make sense


@pytest.mark.parametrize("garbage", [b"\xff", TEXT_THAT_IS_NO_UTF8, b"\x93\x01\x02\x03"])
def test_a_failure_is_kept_although_garbage_stands_where_the_earlier_ones_should(garbage: bytes) -> None:
    failure = Failure(1, 2, "ValueError", "no")

    assert read_failures(add_failure(garbage, failure)) == [failure]
