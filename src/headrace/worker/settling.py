"""What became of jobs, gathered so that the completions of one pass of the loop travel together."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from headrace.errors import JobTimeout, RecordTooLarge, RecordTooNew, UnknownTask
from headrace.record import Failure, Outcome, State, add_failure, encode_outcome, encode_value
from headrace.worker.verdict import defer_delay, describe_failure, judge

if TYPE_CHECKING:
    from headrace.events import EventBus
    from headrace.worker.attempt import Attempt
    from headrace.worker.runners import Runner

logger = logging.getLogger(__name__)


#: Reasons for leaving jobs to others that are remembered, so that each is said once.
MAX_REASONS: Final = 1_000


class Sender(Protocol):
    """Takes what was gathered to the server."""

    def note(self) -> None:
        """Look whether something should travel now."""
        ...

    def server_ms(self) -> int:
        """Return the server's time, as of the last reply and this process's clock."""
        ...

    async def announce(self, attempt: Attempt) -> None:
        """Record that a held job is being run, and wait until that is recorded."""
        ...


class Settling:
    """Gather the ends of attempts as entries of the next settle of their queue.

    Args:
        events: Where `job.completed`, `job.failed`, `job.retried` and `job.cancelled` are published.
        limit_bytes: Largest result.
    """

    def __init__(self, events: EventBus, *, limit_bytes: int) -> None:
        self._events = events
        self._limit_bytes = limit_bytes
        self.sender: Sender
        self.completed_total = 0
        self.failed_total = 0
        self.retried_total = 0
        self.refused_total = 0
        self._left: set[tuple[str, str]] = set()

    def note(self) -> None:
        """Tell the sender that there may be something to send."""
        self.sender.note()

    async def announce(self, attempt: Attempt) -> None:
        """Record that a held job is being run before it is: it has taken a worker down before, or was beside one."""
        await self.sender.announce(attempt)

    def completed(self, attempt: Attempt, runner: Runner, result: Any, seconds: float) -> None:
        """Take a job that returned."""
        served = attempt.served
        if served.attempts.pop(attempt.id_bytes, None) is None:
            self.refused_total += 1
            return
        served.spent += seconds
        keep = runner.keep_result(attempt)
        if result is None and not keep and not attempt.noted and attempt.follows is None:
            served.plain += (attempt.id_bytes, attempt.hold)
        else:
            try:
                outcome = self._outcome(attempt, result, seconds)
            except Exception as error:  # noqa: BLE001 - the edge of a job: a model of a user may raise anything
                served.attempts[attempt.id_bytes] = attempt
                self.failed(attempt, runner, error, 0.0)
                return
            served.add_entry("complete", attempt.id_bytes, attempt.hold, round(keep * 1000), outcome, "")
            self._beside(attempt)
        self.completed_total += 1
        if self._events.wants("job.completed"):
            self._publish("job.completed", attempt, seconds=seconds)

    def failed(self, attempt: Attempt, runner: Runner, error: BaseException, seconds: float) -> None:
        """Take a job that raised, or was told to stop."""
        served = attempt.served
        if served.attempts.pop(attempt.id_bytes, None) is None:
            self.refused_total += 1
            return
        if attempt.stop == "cancelled":
            served.add_entry("cancel", attempt.id_bytes, attempt.hold, 0, "", "")
            self._publish("job.cancelled", attempt)
            return
        if attempt.stop == "shutdown":
            served.add_entry("back", attempt.id_bytes, attempt.hold, 0, "", "")
            return
        if attempt.stop == "timeout" and not isinstance(error, JobTimeout):
            error = _as_timeout(attempt, error)
        served.spent += seconds
        now_ms = self.sender.server_ms()
        age = max(0.0, (now_ms - int.from_bytes(attempt.record[2:8], "big")) / 1000)
        verdict = judge(runner.task.options, runner.attempts(attempt), attempt.number, age, error)
        errors = add_failure(attempt.errors, describe_failure(error, attempt.number, now_ms))
        state = State(attempt.number, attempt.state.stalls, attempt.state.deferrals)
        if verdict.verb == "retry":
            delay_ms = round(verdict.delay * 1000)
            served.add_entry("retry", attempt.id_bytes, attempt.hold, delay_ms, errors, state.encode())
            self.retried_total += 1
            self._publish("job.retried", attempt, delay=verdict.delay, error=type(error).__qualname__)
        else:
            self._bury(attempt, errors, state, runner.task.options.dead_letter)
            self._publish("job.failed", attempt, error=type(error).__qualname__)

    def unreadable(self, attempt: Attempt, error: Exception) -> None:
        """Take a job that this worker cannot run: it is left to others when they might, dead when nobody can."""
        served = attempt.served
        if served.attempts.pop(attempt.id_bytes, None) is None:
            return
        if isinstance(error, (RecordTooNew, UnknownTask)):
            deferrals = attempt.state.deferrals
            delay = defer_delay(deferrals)
            state = State(attempt.state.attempts, attempt.state.stalls, deferrals + 1)
            served.add_entry("defer", attempt.id_bytes, attempt.hold, round(delay * 1000), "", state.encode())
            served.give_way(asyncio.get_running_loop().time() + delay)
            self._say_left(served.name, str(error))
            return
        failure = describe_failure(error, attempt.number, self.sender.server_ms())
        failure = Failure(failure.attempt, failure.at_ms, failure.error, failure.message)
        state = State(attempt.number, attempt.state.stalls, attempt.state.deferrals)
        self._bury(attempt, add_failure(attempt.errors, failure), state, None)
        logger.error("job cannot be read", extra={"queue": served.name, "job": attempt.id, "reason": str(error)})
        self._publish("job.failed", attempt, error=type(error).__qualname__)

    def hand_back(self, attempt: Attempt) -> None:
        """Take a job that was never started: it goes to the front of its list and keeps its attempts."""
        if attempt.served.attempts.pop(attempt.id_bytes, None) is not None:
            attempt.served.add_entry("back", attempt.id_bytes, attempt.hold, 0, "", "")

    def drop_cancelled(self, attempt: Attempt) -> None:
        """Take a job that was cancelled before it was started."""
        if attempt.served.attempts.pop(attempt.id_bytes, None) is not None:
            attempt.served.add_entry("cancel", attempt.id_bytes, attempt.hold, 0, "", "")
            self._publish("job.cancelled", attempt)

    def _say_left(self, queue: str, reason: str) -> None:
        """Say once for each reason that jobs are left to others; the rest is seen in the jobs' deferrals."""
        known = (queue, reason) in self._left
        if not known and len(self._left) < MAX_REASONS:
            self._left.add((queue, reason))
        logger.log(
            logging.DEBUG if known else logging.WARNING,
            "jobs are left to other workers",
            extra={"queue": queue, "reason": reason},
        )

    def _outcome(self, attempt: Attempt, result: Any, seconds: float) -> bytes:
        payload = encode_value(result)
        if len(payload) > self._limit_bytes:
            text = f"the result of task '{attempt.task}' takes {len(payload)} bytes: the limit is {self._limit_bytes}"
            raise RecordTooLarge(
                text + ". Store it elsewhere and return its key, or raise HEADRACE_RECORD_LIMIT_BYTES."
            )
        ended = self.sender.server_ms()
        return encode_outcome(
            Outcome(attempt.task, msgspec.Raw(payload), attempt.number, ended - round(seconds * 1000), ended)
        )

    def _bury(self, attempt: Attempt, errors: bytes, state: State, letter: str | None) -> None:
        served = attempt.served
        if letter == served.name:
            letter = None
        if letter is not None:
            state = State(state.attempts, state.stalls, state.deferrals, f"from {served.name}")
        served.add_entry("dead", attempt.id_bytes, attempt.hold, 0, errors, state.encode(), letter)
        self.failed_total += 1

    def _beside(self, attempt: Attempt) -> None:
        """Add what is enqueued only together with the entry before it."""
        served = attempt.served
        for job_id, delay_ms, body, priority in attempt.follows or ():
            served.add_entry("follow", job_id.encode(), b"", delay_ms, body, str(priority))

    def _publish(self, event: str, attempt: Attempt, **fields: object) -> None:
        if self._events.wants(event):
            self._events.publish(
                event, job=attempt.id, task=attempt.task, queue=attempt.served.name, attempt=attempt.number, **fields
            )


def _as_timeout(attempt: Attempt, error: BaseException) -> JobTimeout:
    ran = time.monotonic() - attempt.started
    timeout = JobTimeout(
        f"the attempt of '{attempt.task}' ran {ran:.1f} s, past its timeout. Raise timeout= of the task."
    )
    timeout.__cause__ = None if isinstance(error, asyncio.CancelledError) else error
    return timeout
