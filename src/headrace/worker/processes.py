"""A bounded pool of child processes for `process=True` tasks, which can be killed at the timeout of a job.

A child is started when a job first needs it, and then runs one job at a time until the worker stops. Function and
arguments travel as names and msgpack, results and errors come back as msgpack and text; see frames.py and remote.py.

Measured: a job that does nothing takes 0.15 to 0.25 ms in one child, where a coroutine takes 0.01 ms; a child is ready
0.2 to 0.3 s after its start, which keeps the loop for 0.5 ms. `python benchmarks/executors.py` prints them (2 cores).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import ProcessDied
from headrace.record import encode_value, read_record
from headrace.worker.frames import Call, Failed
from headrace.worker.job_process import JobProcess
from headrace.worker.location import locate
from headrace.worker.remote import rebuild

if TYPE_CHECKING:
    from headrace.census import Census
    from headrace.task import Task
    from headrace.worker.attempt import Attempt
    from headrace.worker.frames import Done, Location
    from headrace.worker.host import Host

logger = logging.getLogger(__name__)

#: Seconds that children get to end by themselves when the worker stops, and then once more after SIGKILL.
CLOSE_GRACE: Final = 2.0

_NOTHING: Final = encode_value(None)


class _Turn:
    """One attempt on its way through the pool."""

    __slots__ = ("process", "stopped", "waiter")

    def __init__(self) -> None:
        self.stopped: type[BaseException] | None = None
        self.process: JobProcess | None = None
        self.waiter: asyncio.Future[JobProcess | None] | None = None

    def stop(self, error: type[BaseException]) -> None:
        """End the attempt with an exception of this class: its process is killed, or its wait for one ends."""
        if self.stopped is not None:
            return
        self.stopped = error
        if self.process is not None:
            self.process.kill()
        elif self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Processes:
    """Run functions in at most `maximum` child processes.

    Args:
        census: Where the children are entered.
        host: The app.
        maximum: Children, 1..256.
    """

    def __init__(self, census: Census, host: Host, *, maximum: int) -> None:
        self._census = census
        self._host = host
        self._maximum = maximum
        # Invariant: len(_processes) + _starting <= maximum; a process that ends counts until it is reaped.
        self._processes: set[JobProcess] = set()
        self._starting = 0
        self._starts: set[asyncio.Task[None]] = set()
        # Invariant: while a turn waits, no process is idle.
        self._idle: list[JobProcess] = []
        self._waiters: deque[asyncio.Future[JobProcess | None]] = deque()
        self._locations: dict[str, Location] = {}
        self._closing = False

    def prepare(self, task: Task[Any, Any, Any]) -> None:
        """Make sure that a child process will find the function of a task; raises OptionError."""
        self._locations[task.name] = locate(task)

    async def run(self, attempt: Attempt, task: Task[Any, Any, Any]) -> Any:
        """Run an attempt in a child process and return its result; waits for a free one in order of arrival.

        The attempt's timeouts begin when a process takes it. `attempt.interrupt` kills the process, and the exception
        class that it is given is raised here once the process has ended. Cancelling kills the process too.

        Returns:
            The result as `msgspec.Raw`; in its own type when there are middlewares to see it.

        Raises:
            ProcessDied: The process ended by itself, or could not be started.
            RemoteError: The function raised something that this process does not know.
            BaseException: What the function raised; see `headrace.worker.remote`.
        """
        turn = _Turn()
        attempt.waits = True
        attempt.interrupt = turn.stop
        try:
            turn.process = await self._acquire(turn, attempt)
            attempt.begin()
            try:
                answer = await turn.process.run(self._call(attempt, task), attempt)
            except BaseException:
                turn.process.kill()
                raise
            finally:
                self._release(turn.process)
        finally:
            attempt.interrupt = None
            attempt.waits = False
        if answer is None:
            raise self._why(turn, turn.process, attempt)
        if isinstance(answer, Failed):
            raise rebuild(answer)
        return self._result(attempt, task, answer)

    def pids(self) -> list[int]:
        """Return the process ids of the children."""
        return [process.pid for process in self._processes]

    async def close(self) -> None:
        """End all children: they are hung up on, and killed when that does not end them, or the wait is cancelled."""
        self._closing = True
        for start in list(self._starts):
            start.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)
        try:
            for process in self._processes:
                process.close()
            await self._await_ends()
        finally:
            for process in self._processes:
                process.kill()
        await self._await_ends()
        if self._processes:
            pids = ",".join(str(process.pid) for process in self._processes)
            logger.error("job processes do not end although they were killed", extra={"pids": pids})

    # An attempt

    def _call(self, attempt: Attempt, task: Task[Any, Any, Any]) -> Call:
        record = read_record(attempt.record)
        deadline = attempt.deadline
        return Call(
            location=self._locations[task.name],
            task=task.name,
            arguments=record.arguments,
            keywords=record.keywords,
            id=attempt.id,
            queue=attempt.queue,
            attempt=attempt.number,
            fence=attempt.fence,
            deadline=None if deadline is None else deadline.timestamp(),
            memory_limit_mb=task.options.memory_limit_mb or 0,
        )

    def _result(self, attempt: Attempt, task: Task[Any, Any, Any], answer: Done) -> Any:
        if answer.follows:
            attempt.follows = answer.follows
        if bytes(answer.result) == _NOTHING:
            return None
        return task.signature.decode_result(answer.result) if self._host.hooks else answer.result

    def _why(self, turn: _Turn, process: JobProcess, attempt: Attempt) -> BaseException:
        what = f"the attempt of '{attempt.task}'"
        if turn.stopped is not None:
            ran = f"after {time.monotonic() - attempt.started:.1f} s"
            cause = "it ran past its timeout. Raise timeout= of the task" if attempt.stop == "timeout" else attempt.stop
            return turn.stopped(f"{what}: its child process {process.pid} was killed {ran}: {cause}.")
        if process.corrupt is not None:
            return process.corrupt
        return ProcessDied(f"{what}: its {process.end_text()}", code=process.code)

    # The pool

    async def _acquire(self, turn: _Turn, attempt: Attempt) -> JobProcess:
        while True:
            process = self._take_idle() or await self._wait(turn)
            if turn.stopped is not None:
                if process is not None:
                    self._release(process)
                text = f"the attempt of '{attempt.task}' was told to stop while it waited for a child process."
                raise turn.stopped(text)
            if process is not None and process.usable:
                return process

    def _take_idle(self) -> JobProcess | None:
        while self._idle:
            process = self._idle.pop()
            if process.usable:
                return process
        return None

    async def _wait(self, turn: _Turn) -> JobProcess | None:
        waiter: asyncio.Future[JobProcess | None] = asyncio.get_running_loop().create_future()
        turn.waiter = waiter
        self._waiters.append(waiter)
        self._start_more()
        try:
            return await waiter
        except BaseException:
            # Why: a process that came together with the cancellation goes to the next in line.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                process = waiter.result()
                if process is not None:
                    self._release(process)
            raise
        finally:
            turn.waiter = None
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _release(self, process: JobProcess) -> None:
        if not process.usable:
            return
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(process)
        else:
            self._idle.append(process)

    def _next_waiter(self) -> asyncio.Future[JobProcess | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _start_more(self) -> None:
        while (
            self._starting < len(self._waiters)
            and len(self._processes) + self._starting < self._maximum
            and not self._closing
        ):
            self._starting += 1
            start = self._census.create_task(self._start(), name="start a job process", owner="worker")
            self._starts.add(start)
            start.add_done_callback(self._starts.discard)

    async def _start(self) -> None:
        try:
            process = JobProcess(self._census, self._ended)
            self._processes.add(process)
            await process.connect(list(self._locations.items()), self._host.settings.record_limit_bytes)
        except (OSError, ProcessDied) as error:
            logger.warning("job process cannot be started", extra={"reason": str(error)[:300]})
            if isinstance(error, OSError):
                text = f"no child process could be started for the attempt: {error}"
                error = ProcessDied(text + ". Check memory and process limits.")
            waiter = self._next_waiter()
            if waiter is not None:
                waiter.set_exception(error)
        else:
            self._release(process)
        finally:
            self._starting -= 1
            self._start_more()

    def _ended(self, process: JobProcess) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        self._start_more()

    async def _await_ends(self) -> None:
        if self._processes:
            await asyncio.wait({process.gone for process in self._processes}, timeout=CLOSE_GRACE)
