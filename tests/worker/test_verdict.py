"""What becomes of a job whose attempt raised, and what is kept of the error, whatever the error is."""

from __future__ import annotations

import asyncio
import doctest
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import Exponential, Fixed, Linear, Retry
from headrace.errors import EncodingError, JobFailed, JobTimeout, RecordTooLarge
from headrace.options import TaskOptions
from headrace.record import MAX_FAILURES, Failure, add_failure, read_failures
from headrace.worker import verdict
from headrace.worker.verdict import (
    MAX_CLASS,
    MAX_DEFER,
    MAX_MESSAGE,
    MAX_TRACEBACK,
    Verdict,
    defer_delay,
    describe_failure,
    judge,
)
from tests.live import DEADLINE, opened, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace

ERRORS = (ValueError("v"), OSError("o"), KeyError("k"), JobTimeout("t"), Retry(), Retry(after=7.0), Retry(reason="r"))
seconds = st.floats(0.0, 31_536_000.0)
backoffs = st.one_of(
    st.builds(Fixed, seconds),
    st.builds(Linear, base=seconds, maximum=seconds),
    st.builds(Exponential, base=seconds, maximum=seconds, jitter=st.booleans()),
)
options = st.builds(
    TaskOptions,
    name=st.just("t"),
    backoff=backoffs,
    retry_on=st.sampled_from([(Exception,), (ValueError,), (ValueError, OSError)]),
    max_age=st.none() | seconds,
)


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(verdict)

    assert result.attempted > 0
    assert result.failed == 0


# Judge


@given(options, st.integers(1, 1_000), st.integers(1, 1_000), seconds, st.sampled_from(ERRORS))
def test_a_verdict_keeps_to_the_options_of_the_task(
    task: TaskOptions, attempts: int, attempt: int, age: float, error: Exception
) -> None:
    verdict = judge(task, attempts, attempt, age, error)

    wanted = isinstance(error, (Retry, JobTimeout, *task.retry_on))
    if attempt >= attempts or not wanted:
        assert verdict.verb == "dead"
    elif task.max_age is None:
        assert verdict.verb == "retry"
    if verdict.verb == "retry":
        assert attempt < attempts
        assert 0 <= verdict.delay <= 31_536_000.0
        assert task.max_age is None or age + verdict.delay <= task.max_age
        if isinstance(error, Retry) and error.after is not None:
            assert verdict.delay == error.after
    else:
        assert verdict.delay == 0


@given(st.integers(1, 1_000), st.sampled_from(ERRORS))
def test_a_job_is_tried_exactly_as_often_as_it_says(attempts: int, error: Exception) -> None:
    task = TaskOptions(name="t", backoff=Fixed(0.0))
    attempt = 1
    while judge(task, attempts, attempt, 0.0, error).verb == "retry":
        attempt += 1

    assert attempt == attempts


def test_an_error_that_is_not_listed_is_final() -> None:
    task = TaskOptions(name="t", retry_on=(OSError,))

    assert judge(task, 5, 1, 0.0, ValueError()) == Verdict("dead", reason="not listed in retry_on")
    assert judge(task, 5, 1, 0.0, ConnectionResetError()).verb == "retry"


def test_a_timeout_and_a_retry_are_worth_another_attempt_whatever_is_listed() -> None:
    task = TaskOptions(name="t", retry_on=(OSError,), backoff=Fixed(3.0))

    assert judge(task, 5, 1, 0.0, JobTimeout()) == Verdict("retry", 3.0)
    assert judge(task, 5, 1, 0.0, Retry()) == Verdict("retry", 3.0)
    assert judge(task, 5, 1, 0.0, Retry(after=9.0)) == Verdict("retry", 9.0)


def test_a_retry_asked_for_in_the_last_attempt_is_dead() -> None:
    assert judge(TaskOptions(name="t"), 3, 3, 0.0, Retry(after=1.0)).verb == "dead"


def test_a_job_that_would_be_too_old_at_its_next_attempt_is_dead_now() -> None:
    task = TaskOptions(name="t", backoff=Fixed(10.0), max_age=60.0)

    assert judge(task, 99, 1, 50.0, ValueError()).verb == "retry"
    assert judge(task, 99, 1, 50.1, ValueError()) == Verdict("dead", reason="older than max_age")


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_exception_of_a_task_is_final(error: BaseException) -> None:
    assert judge(TaskOptions(name="t"), 3, 1, 0.0, error).verb == "dead"


@pytest.mark.parametrize("error", [EncodingError("e"), RecordTooLarge("r")])
def test_a_result_that_cannot_be_recorded_is_an_error_like_any_other(error: Exception) -> None:
    assert judge(TaskOptions(name="t"), 3, 1, 0.0, error).verb == "retry"


# Defer


@given(st.integers(0, 10_000))
def test_a_job_left_to_others_waits_longer_each_time_up_to_a_bound(deferrals: int) -> None:
    assert 0 < defer_delay(deferrals) <= defer_delay(deferrals + 1) <= MAX_DEFER


# Describe


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot even say")


class Odd(Exception):
    def __str__(self) -> str:
        return "\ud800 half a character"


def _throw(error: BaseException, cause: BaseException | None = None) -> None:
    raise error from cause


def _raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        _throw(error, cause)
    except BaseException as caught:  # noqa: BLE001 - the very subject of the test
        return caught
    return error


def _nested(depth: int) -> BaseException:
    return _raised(ValueError(f"level {depth}"), _nested(depth - 1) if depth else None)


@given(st.text(st.characters(), max_size=10_000), st.integers(1, 1_000), st.integers(0, 2**45))
def test_what_is_kept_of_an_error_is_bounded_and_can_be_written(text: str, attempt: int, at_ms: int) -> None:
    failure = describe_failure(_raised(ValueError(text)), attempt, at_ms)

    assert (failure.attempt, failure.at_ms, failure.error) == (attempt, at_ms, "ValueError")
    assert len(failure.message) <= MAX_MESSAGE
    if text.isascii():
        assert failure.message == text[:MAX_MESSAGE]
    assert len(failure.traceback) <= MAX_TRACEBACK
    assert read_failures(add_failure(b"", failure)) == [failure]


def test_a_long_traceback_keeps_its_end_where_the_cause_stands() -> None:
    failure = describe_failure(_nested(200), 1, 0)

    assert len(failure.traceback) == MAX_TRACEBACK
    assert failure.traceback.rstrip().endswith("ValueError: level 200")


def test_endless_recursion_is_described() -> None:
    def dig() -> None:
        dig()

    try:
        dig()
    except RecursionError as error:
        failure = describe_failure(error, 1, 0)
    else:
        pytest.fail("no recursion error")

    assert failure.error == "RecursionError"
    assert len(failure.traceback) <= MAX_TRACEBACK


def test_an_error_that_cannot_say_what_it_is_is_described() -> None:
    failure = describe_failure(_raised(Mute()), 1, 0)

    assert failure.error.endswith("Mute")
    assert failure.message == "<Mute whose message raised RuntimeError>"
    assert read_failures(add_failure(b"", failure)) == [failure]


def test_half_a_character_in_a_message_can_be_written() -> None:
    failure = describe_failure(_raised(Odd()), 1, 0)

    assert "half a character" in failure.message
    assert read_failures(add_failure(b"", failure)) == [failure]


def test_the_class_of_an_error_names_its_module_unless_everybody_knows_it() -> None:
    assert describe_failure(KeyError(1), 1, 0).error == "KeyError"
    assert describe_failure(JobTimeout("late"), 1, 0).error == "JobTimeout"
    assert describe_failure(Mute(), 1, 0).error == f"{__name__}.Mute"
    assert len(describe_failure(type("E" * 500, (Exception,), {})(), 1, 0).error) == MAX_CLASS


@given(st.integers(0, 50))
def test_of_many_failures_the_first_and_the_latest_are_kept(count: int) -> None:
    data = b""
    for attempt in range(1, count + 1):
        data = add_failure(data, Failure(attempt, 0, "E", "m"))

    kept = [failure.attempt for failure in read_failures(data)]
    if count <= MAX_FAILURES:
        assert kept == list(range(1, count + 1))
    else:
        assert kept == [1, *range(count - MAX_FAILURES + 2, count + 1)]


async def test_a_job_that_raises_the_unspeakable_is_dead_and_its_worker_goes_on(
    make_app: Callable[..., Headrace],
) -> None:
    app = make_app()

    @app.task(name="open", attempts=1)
    async def open_file(name: str) -> str:
        if name == "bad":
            raise Odd
        return name

    async with opened(app), working(app):
        bad = await open_file.enqueue("bad")
        good = await open_file.enqueue("good")

        assert await good.result(DEADLINE) == "good"
        with pytest.raises(JobFailed, match=r"\\ud800 half a character"):
            await bad.result(DEADLINE)


def test_a_traceback_begins_with_the_first_frame_that_is_not_the_workers() -> None:
    scope: dict[str, Any] = {"__name__": "headrace.worker.slots", "call": _raise_here}
    exec("def run():\n    try:\n        call()\n    except ValueError as error:\n        return error\n", scope)
    error = scope["run"]()

    text = describe_failure(error, 1, 0).traceback

    assert "in run" not in text
    assert "in _raise_here" in text


def _raise_here() -> None:
    raise ValueError("here")
