"""The delays between attempts: bounds, growth, jitter, and what is refused."""

from __future__ import annotations

import doctest
import math
import pickle
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace import retry
from headrace.errors import OptionError
from headrace.retry import LARGEST_FACTOR, LONGEST_DELAY, Backoff, Exponential, Fixed, Linear, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

seconds = st.floats(min_value=0.0, max_value=LONGEST_DELAY)
attempts = st.integers(min_value=1, max_value=10**400)
fractions = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)
backoffs: st.SearchStrategy[Backoff] = st.one_of(
    st.builds(Fixed, seconds, jitter=st.booleans()),
    st.builds(Linear, seconds, seconds, st.booleans()),
    st.builds(Exponential, seconds, seconds, st.floats(min_value=1.0, max_value=LARGEST_FACTOR), st.booleans()),
)
BAD_SECONDS = [math.nan, math.inf, -math.inf, -1, -0.001, LONGEST_DELAY + 1, 10**400, "5", None, True, b"5", [5]]


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(retry)

    assert result.attempted > 0
    assert result.failed == 0


@given(backoffs, attempts, fractions)
@example(Exponential(base=0.0, factor=1000.0, jitter=False), 10**400, 0.0)
@example(Linear(base=0.0), 10**400, 0.0)
@example(Exponential(base=1.0, factor=1.0), 10**400, 0.5)
def test_a_delay_is_a_finite_number_within_the_stated_bounds(backoff: Backoff, attempt: int, fraction: float) -> None:
    limit = backoff.seconds if isinstance(backoff, Fixed) else backoff.maximum

    delay = backoff.delay(attempt, lambda: fraction)

    assert 0.0 <= delay <= limit


@given(seconds, seconds, st.floats(min_value=1.0, max_value=LARGEST_FACTOR), attempts)
def test_delays_without_jitter_never_shrink(base: float, maximum: float, factor: float, attempt: int) -> None:
    for backoff in (
        Fixed(base),
        Linear(base, maximum),
        Exponential(base=base, maximum=maximum, factor=factor, jitter=False),
    ):
        assert backoff.delay(attempt) <= backoff.delay(attempt + 1)


@given(backoffs, attempts, fractions)
def test_jitter_scales_the_full_delay_by_the_random_number(backoff: Backoff, attempt: int, fraction: float) -> None:
    full = _without_jitter(backoff).delay(attempt)

    delay = backoff.delay(attempt, lambda: fraction)

    assert delay == (full * fraction if backoff.jitter else full)


@given(st.integers(min_value=1, max_value=60))
def test_exponential_follows_its_formula(attempt: int) -> None:
    backoff = Exponential(base=0.5, maximum=1000.0, factor=3.0, jitter=False)

    assert backoff.delay(attempt) == min(1000.0, 0.5 * 3.0 ** (attempt - 1))


def test_full_jitter_spreads_evenly_from_zero_to_the_full_delay() -> None:
    backoff = Exponential(base=8.0)

    draws = [backoff.delay(1) for _ in range(10_000)]

    assert 0.0 <= min(draws) < 0.1
    assert 7.9 < max(draws) <= 8.0
    # The mean of 10,000 even draws from 0 to 8 has a standard error of 0.023; 0.2 is more than eight of them.
    assert math.isclose(sum(draws) / len(draws), 4.0, abs_tol=0.2)


@pytest.mark.parametrize("value", BAD_SECONDS)
def test_a_malformed_option_is_refused_by_name(value: object) -> None:
    makers: dict[str, Callable[[], Backoff]] = {
        "delay": lambda: Fixed(value),  # type: ignore[arg-type]  # The claim is about wrong types.
        "base": lambda: Linear(base=value),  # type: ignore[arg-type]  # As above.
        "maximum": lambda: Exponential(maximum=value),  # type: ignore[arg-type]  # As above.
        "factor": lambda: Exponential(factor=value),  # type: ignore[arg-type]  # As above.
    }

    for option, make in makers.items():
        with pytest.raises(OptionError, match=option) as caught:
            make()
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("factor", [0, 0.99, 1000.1])
def test_a_factor_that_shrinks_or_explodes_is_refused(factor: float) -> None:
    with pytest.raises(OptionError, match="from 1 to 1000"):
        Exponential(factor=factor)


@pytest.mark.parametrize("attempt", [0, -1, 1.0, "1", None, True])
def test_an_attempt_is_a_whole_number_from_one(attempt: object) -> None:
    for backoff in (Fixed(1), Linear(1), Exponential()):
        with pytest.raises(OptionError, match="counted from 1"):
            backoff.delay(attempt)  # type: ignore[arg-type]  # The claim is about wrong types.


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_jitter_is_true_or_false(value: object) -> None:
    kinds: list[Callable[..., Backoff]] = [Fixed, Linear, Exponential]

    for kind in kinds:
        with pytest.raises(OptionError, match="True or False"):
            kind(1, jitter=value)


@given(st.none() | seconds, st.text())
def test_retry_carries_its_wait_and_its_reason(after: float | None, reason: str) -> None:
    error = Retry(after, reason)

    assert error.after == after
    assert error.reason == reason
    assert reason in str(error)


@pytest.mark.parametrize("value", [bad for bad in BAD_SECONDS if bad is not None])
def test_retry_refuses_a_malformed_wait(value: object) -> None:
    with pytest.raises(OptionError, match="from 0 to 31536000"):
        Retry(after=value)  # type: ignore[arg-type]  # The claim is about wrong types.


def test_retry_can_be_rebuilt_from_its_arguments() -> None:
    error = Retry(after=3, reason="busy")

    # Other libraries copy exceptions this way.
    copy = pickle.loads(pickle.dumps(error))

    assert (copy.after, copy.reason) == (3.0, "busy")


def test_equal_options_make_equal_backoffs() -> None:
    assert Fixed(delay=5) == Fixed(5.0)
    assert hash(Linear(1, 2)) == hash(Linear(base=1.0, maximum=2.0))
    assert repr(Exponential(1)) == "Exponential(base=1.0, maximum=300.0, factor=2.0, jitter=True)"


def _without_jitter(backoff: Backoff) -> Backoff:
    match backoff:
        case Fixed():
            return Fixed(backoff.seconds)
        case Linear():
            return Linear(backoff.base, backoff.maximum)
        case Exponential():
            return Exponential(backoff.base, backoff.maximum, backoff.factor, jitter=False)
