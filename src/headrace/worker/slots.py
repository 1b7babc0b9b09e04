"""Slots: the units of concurrency of a worker. A slot is one task that runs jobs from the buffer, one after another.

Measured: benchmarks/drain.py prints jobs/s of no-op jobs; a task for each job would cost more than all the rest.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import JobCancelled, JobTimeout, RecordCorrupt, RecordTooNew, UnknownTask
from headrace.record import VERSION, read_record
from headrace.worker.drive import Rest, first_step
from headrace.worker.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census
    from headrace.worker.attempt import Attempt
    from headrace.worker.runners import Runner
    from headrace.worker.served import Served
    from headrace.worker.settling import Settling

logger = logging.getLogger(__name__)

#: After this long without a wait a slot lets the loop look at its sockets, seconds.
TURN: Final = 0.002
#: Seconds that a cancelled job gets before it is ended.
CANCEL_MARGIN: Final = 5.0
#: Seconds that all slots together get to end when the worker stops.
CLOSE_MARGIN: Final = 5.0


class Slots:
    """Run the jobs of the buffer in at most `concurrency` slots.

    Args:
        census: Where the slots' tasks are counted.
        concurrency: Slots, 1..10000.
        runners: Runner by task name, as bytes in the record.
        settling: Takes what became of each job.
        deadline_set: Called with the loop-independent time (time.monotonic) at which a job must be looked at.
        slow_step: Seconds that a coroutine may keep the loop without a warning.
        ended: Called with the task of a slot that has ended.
        max_stalled: Stalls that a job may have without being dead.
    """

    def __init__(
        self,
        census: Census,
        *,
        concurrency: int,
        runners: dict[bytes, Runner],
        settling: Settling,
        deadline_set: Callable[[float], None],
        slow_step: float,
        ended: Callable[[asyncio.Task[None]], None] = lambda _: None,
        max_stalled: int = 3,
    ) -> None:
        self.concurrency = concurrency
        self.buffer: deque[Attempt] = deque()
        self.quarantine = Quarantine(max_stalled=max_stalled)
        self.running: set[Attempt] = set()
        self.started_total = 0
        self.stalls_seen = 0
        self._census = census
        self._runners = runners
        self._settling = settling
        self._deadline_set = deadline_set
        self.slow_step = slow_step
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._base = contextvars.copy_context()
        self._closing = False
        #: Slots stop looking at the buffer: the worker closes, or there are more of them than there are to be.
        self._halted = False
        self._next_end: asyncio.Future[Any] | None = None

    @property
    def free(self) -> int:
        """Slots without a job."""
        return self.concurrency - len(self.running)

    def resize(self, concurrency: int) -> None:
        """Take another number of slots; what runs goes on, and a slot that is one too many ends with its job.

        Args:
            concurrency: Slots from now on, 1..10000.
        """
        self.concurrency = concurrency
        surplus = len(self._tasks) - concurrency
        self._halted = self._closing or surplus > 0
        while self._idle and surplus > 0:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                surplus -= 1
        self.wake()

    def put(self, attempts: list[Attempt]) -> None:
        """Add jobs to the buffer and wake a slot."""
        self.buffer.extend(attempts)
        self.wake()

    def wake(self) -> None:
        """Let one more slot look at the buffer, if there is a job for it; it wakes the next when its job waits."""
        if not self.buffer:
            return
        while self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                return
        if len(self._tasks) < self.concurrency and not self._closing:
            task = self._census.create_task(self._slot(), name=f"slot {len(self._tasks)}", owner="worker")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(self._ended)

    def take_back(self, served: Served | None = None) -> list[Attempt]:
        """Return the jobs that were never started, of one queue or of all, and forget them."""
        waiting = self.quarantine.take_back(served)
        taken = [attempt for attempt in self.buffer if served is None or attempt.served is served]
        for attempt in taken:
            self.drop(attempt)
        return taken + waiting

    def drop(self, attempt: Attempt) -> bool:
        """Forget a job that was not started; False when it was, or is elsewhere."""
        if attempt not in self.buffer:
            return self.quarantine.remove(attempt)
        self.buffer.remove(attempt)
        self._leave(attempt)
        return True

    async def close(self) -> None:
        """End all slots; a job that runs still, although it was told to stop, is ended whatever it does."""
        self._closing = self._halted = True
        for attempt in self.running:
            attempt.ended = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=CLOSE_MARGIN)
            if left:
                logger.error("slots do not end", extra={"slots": ",".join(task.get_name() for task in left)})

    def next_end(self) -> asyncio.Future[Any]:
        """Return a future that ends with the next job that ends after having waited."""
        self._next_end = asyncio.get_running_loop().create_future()
        return self._next_end

    def check_deadlines(self, now: float) -> float:
        """Stop jobs past their soft or hard timeout; returns the next time to look (time.monotonic), 0 for none."""
        following = 0.0
        for attempt in list(self.running):
            due = attempt.hard_at if attempt.stop is not None else attempt.soft_at
            if not due:
                continue
            if attempt.waits and attempt.stop is None:
                # Why: the timeouts begin with the call; if it begins right now, this is when it is due.
                due = now + attempt.soft_at - attempt.started
            if due > now:
                following = min(following or due, due)
            elif attempt.stop is None:
                self.stop(attempt, "timeout", JobTimeout)
                following = min(following or attempt.hard_at, attempt.hard_at)
            else:
                self._end(attempt)
        return following

    def stop(self, attempt: Attempt, reason: str, error: type[BaseException] = JobCancelled) -> None:
        """Tell a running job to stop: 'timeout', 'cancelled', 'lease lost' or 'shutdown'. It has a margin to do so."""
        if attempt.stop is not None or attempt.slot is None:
            return
        attempt.stop = reason
        now = time.monotonic()
        if reason != "timeout" or not attempt.hard_at:
            attempt.hard_at = now + CANCEL_MARGIN
            self._deadline_set(attempt.hard_at)
        if attempt.interrupt is not None:
            attempt.interrupt(error)
        else:
            attempt.slot.cancel()

    def _end(self, attempt: Attempt) -> None:
        if attempt.slot is not None and not attempt.ended:
            attempt.ended = True
            attempt.slot.cancel()

    async def _slot(self) -> None:
        task = _current_task()
        while not self._closing:
            try:
                if self._halted and self._retire(task):
                    return
                if self.buffer:
                    await self._run_buffer(task)
                    self._settling.note()
                    continue
                future = asyncio.get_running_loop().create_future()
                self._idle.append(future)
                await future
            except asyncio.CancelledError:
                if self._closing:
                    raise
                # Why: a task may hand its asyncio task to something that cancels it when the job has long ended.
                await self._take_turn(task)

    def _retire(self, task: asyncio.Task[None]) -> bool:
        """Tell a slot whether it is one too many, and let the others go on when none is any more."""
        surplus = len(self._tasks) - self.concurrency
        if surplus > 0:
            self._tasks.discard(task)
        self._halted = self._closing or surplus > 1
        if surplus > 0:
            # Why: it may have been woken for a job, which another one has to see to now.
            self.wake()
        return surplus > 0

    async def _run_buffer(self, task: asyncio.Task[None]) -> None:
        """Run jobs until the buffer is empty. This is the hot path."""
        buffer, settling, runners = self.buffer, self._settling, self._runners
        now, copy, cancels = time.monotonic, self._base.copy, task.cancelling
        turn_ends = now() + TURN
        while buffer and not self._halted:
            attempt = buffer.popleft()
            served = attempt.served
            if served.limit is not None and served.running >= served.limit:
                served.parked.append(attempt)
                continue
            if attempt.state.stalls and not await self._admit(attempt):
                continue
            began = attempt.started = now()
            runner = runners.get(attempt.task_bytes)
            coroutine = self._begin(attempt, runner)
            if runner is None or coroutine is None:
                continue
            context = copy()
            attempt.slot = task
            try:
                yielded = context.run(first_step, attempt, coroutine)
            except StopIteration as stop:
                ended = now()
                settling.completed(attempt, runner, stop.value, ended - began)
            except BaseException as error:  # noqa: BLE001 - the edge of a job: whatever it raises is recorded
                ended = now()
                self._failed(attempt, runner, error)
            else:
                await self._rest(attempt, runner, coroutine, context, yielded)
                began = ended = now()
                turn_ends = max(turn_ends, ended + TURN / 2)
            if ended - began > self.slow_step or attempt.state.stalls:
                self._look_back(attempt, ended - began)
            if ended > turn_ends or cancels():
                await self._take_turn(task)
                turn_ends = now() + TURN

    async def _rest(
        self, attempt: Attempt, runner: Runner, coroutine: Any, context: contextvars.Context, yielded: Any
    ) -> None:
        """Run a job that waits: only now it gets what a waiting job needs."""
        served = attempt.served
        self.running.add(attempt)
        served.running += 1
        if time.monotonic() - attempt.started > self.slow_step:
            self.stalled(attempt, time.monotonic() - attempt.started)
        self._set_deadlines(attempt, runner)
        if b"-" in attempt.hold:
            served.starting.append(attempt)
        self.wake()
        try:
            result = await Rest(attempt, coroutine, context, yielded, self, self.slow_step)
        except GeneratorExit:
            # The slot's own task is being closed, since its loop ended; what the job raises never arrives as this.
            raise
        except BaseException as error:
            if self._closing and attempt.stop is None:
                raise
            self._failed(attempt, runner, error)
        else:
            self._settling.completed(attempt, runner, result, time.monotonic() - attempt.started)
        finally:
            self.running.discard(attempt)
            served.running -= 1
            if served.parked:
                self.buffer.appendleft(served.parked.popleft())
            attempt.slot = None
            if self._next_end is not None and not self._next_end.done():
                self._next_end.set_result(None)
        self._settling.note()

    def _failed(self, attempt: Attempt, runner: Runner, error: BaseException) -> None:
        self._settling.failed(attempt, runner, error, time.monotonic() - attempt.started)
        if isinstance(error, KeyboardInterrupt):
            # Why: Ctrl-C may strike inside any job, and means the whole program.
            raise error

    async def _take_turn(self, task: asyncio.Task[None]) -> None:
        """Let the loop look at its sockets; swallow cancellations that were meant for the job that has just ended."""
        self._settling.note()
        while task.cancelling() and not self._closing:
            task.uncancel()
        try:
            # Why: a cancellation that has not struck yet does so at the task's next wait: here, not in the next job.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._closing:
                raise

    async def _admit(self, attempt: Attempt) -> bool:
        """Let a job start that a lost worker had held: not beside another such one, and recorded before it does."""
        if not self.quarantine.enter(attempt):
            return False
        if b"-" not in attempt.hold or await self._announce(attempt):
            return True
        self._leave(attempt)
        return False

    def _look_back(self, attempt: Attempt, seconds: float) -> None:
        if seconds > self.slow_step:
            self.stalled(attempt, seconds)
        self._leave(attempt)

    def _leave(self, attempt: Attempt) -> None:
        following = self.quarantine.leave(attempt)
        if following is not None:
            self.buffer.appendleft(following)
            self.wake()

    async def _announce(self, attempt: Attempt) -> bool:
        """Record that a held job starts; False when it was cancelled, or its lease was lost, meanwhile."""
        try:
            await self._settling.announce(attempt)
        except asyncio.CancelledError:
            self.buffer.appendleft(attempt)
            raise
        if attempt.stop is not None:
            self._settling.drop_cancelled(attempt)
        return attempt.id_bytes in attempt.served.attempts

    def _begin(self, attempt: Attempt, runner: Runner | None) -> Any:
        """Return the coroutine of a job, or None when this worker cannot run it."""
        try:
            if runner is None or attempt.record[0] != VERSION:
                record = read_record(attempt.record)
                text = f"task '{record.task}' is not registered here"
                raise UnknownTask(text + ". Import the module that defines it in this worker.")  # noqa: TRY301 - told below
            return runner.start(attempt)
        except (RecordCorrupt, RecordTooNew, UnknownTask, IndexError) as error:
            self._settling.unreadable(attempt, error)
            self._leave(attempt)
            return None
        except Exception as error:  # noqa: BLE001 - the edge of a job: a model of a user may refuse with anything
            if runner is not None:
                self._failed(attempt, runner, error)
            self._leave(attempt)
            return None

    def _set_deadlines(self, attempt: Attempt, runner: Runner) -> None:
        began = attempt.started
        soft, hard = runner.timeouts(attempt)
        if soft:
            attempt.soft_at = began + soft
            attempt.hard_at = began + hard
            self._deadline_set(attempt.soft_at)
        elif hard:
            attempt.soft_at = attempt.hard_at = began + hard
            self._deadline_set(attempt.hard_at)

    def stalled(self, attempt: Attempt, seconds: float) -> None:
        """Name a coroutine that kept the loop from everything else."""
        self.stalls_seen += 1
        logger.warning(
            "loop stalled by a task",
            extra={
                "task": attempt.task,
                "job": attempt.id,
                "stalled_ms": round(seconds * 1000),
                "queue": attempt.queue,
                "remedy": "await what waits, or make the task a plain def, or process=True for arithmetic",
            },
        )


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a slot always runs in a task
    return task
