"""What the adapters share: their arguments, the meter inside the worker, the line they print.

An adapter is a script that runs alone, inside the environment of the job queue that it drives:
`python saq_adapter.py MEASURE --url URL --count N` prints one line of JSON and ends. This module needs the standard
library only.

Measures:
    bulk: N jobs are enqueued with the subject's best means for many; they stay waiting.
    single: N jobs are enqueued one after another, each call returning before the next begins.
    drain: A worker starts where jobs wait, and runs N of them. The clock is inside the worker. With `--task noop` it
        runs from the first executed job to job N, so N - 1 jobs lie in between; with `--task sleep` from the start of
        the first sleep to the end of sleep N, so N jobs do. The start of the worker comes before; nothing is
        subtracted.

No measure contains the import of the subject, its first connection or the loading of its Lua scripts: `bulk` and
`single` enqueue one job beforehand. Each job carries a number and a text of 200 bytes; `sleep` waits 10 ms.
"""

from __future__ import annotations

import abc
import argparse
import asyncio
import itertools
import json
import os
import string
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

TEXT: Final = (string.ascii_letters * 4)[:200]
SLEEP_SECONDS: Final = 0.010
# How many sleeps run at a time; with this, 10,000 jobs/s is the ideal.
SLEEP_CONCURRENCY: Final = 100
TASKS: Final = ("noop", "sleep")


class Meter:
    """Counts executed jobs inside the worker, and keeps the time of the first and of the last that was expected.

    A process has one, `METER`, because most job queues bind tasks to functions of a module.
    """

    def __init__(self) -> None:
        self.executed = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self._numbers = itertools.count(1)
        self._expected = 0
        self._began: tuple[float, float] | None = None
        self._done = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def expect(self, count: int) -> None:
        """Prepare for `count` jobs, on the loop that will await `finished`."""
        self._expected = count
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        """Start the clock unless it runs; a job that takes time calls this at its start."""
        if self._began is None:
            self._began = time.perf_counter(), time.process_time()

    def mark(self, number: int, text: str) -> None:  # noqa: ARG002 the payload arrives here, so that none skips it
        """Count one executed job; callable from any thread."""
        # Why: next() on a count is one step under the interpreter's lock, so that threads need no lock of their own.
        self.executed = executed = next(self._numbers)
        if executed == 1:
            self.begin()
        if executed == self._expected:
            self._end()

    def _end(self) -> None:
        if self._began is not None and self._loop is not None:
            self.seconds = time.perf_counter() - self._began[0]
            self.cpu_seconds = time.process_time() - self._began[1]
            self._loop.call_soon_threadsafe(self._done.set)

    async def finished(self) -> None:
        """Wait until the expected jobs have been executed."""
        await self._done.wait()


METER: Final = Meter()


def noop(number: int, text: str) -> None:
    """Do nothing: the job of subjects that run plain functions, on threads."""
    METER.mark(number, text)


def sleep(number: int, text: str) -> None:
    """Wait 10 ms, as above."""
    METER.begin()
    time.sleep(SLEEP_SECONDS)
    METER.mark(number, text)


class Adapter(abc.ABC):
    """One job queue, driven through its public interface.

    Args:
        url: The server; connections open in `open` and `work`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect as a process that enqueues."""

    @abc.abstractmethod
    async def enqueue_one(self, task: str, number: int) -> None:
        """Enqueue one job and return when the server has it."""

    @abc.abstractmethod
    async def enqueue_bulk(self, task: str, count: int) -> None:
        """Enqueue `count` jobs in the fastest way that the subject has."""

    @abc.abstractmethod
    async def work(self, task: str) -> None:
        """Run one worker, configured for `task`, until cancelled."""


async def gather_in_groups(calls: Iterable[Coroutine[Any, Any, object]], size: int) -> None:
    """Await calls concurrently, `size` at a time: the means for many of a subject that has no batch call."""
    remaining = iter(calls)
    while group := tuple(itertools.islice(remaining, size)):
        await asyncio.gather(*group)


async def _bulk(adapter: Adapter, task: str, count: int) -> dict[str, float]:
    await adapter.open()
    await adapter.enqueue_one(task, 0)
    began = time.perf_counter()
    await adapter.enqueue_bulk(task, count)
    return {"jobs": count, "seconds": time.perf_counter() - began}


async def _single(adapter: Adapter, task: str, count: int) -> dict[str, float]:
    await adapter.open()
    await adapter.enqueue_one(task, 0)
    began = time.perf_counter()
    for number in range(count):
        await adapter.enqueue_one(task, number)
    return {"jobs": count, "seconds": time.perf_counter() - began}


async def _drain(adapter: Adapter, task: str, count: int) -> dict[str, float]:
    METER.expect(count)
    worker = asyncio.ensure_future(adapter.work(task))
    finished = asyncio.ensure_future(METER.finished())
    await asyncio.wait({worker, finished}, return_when=asyncio.FIRST_COMPLETED)
    if not finished.done():
        worker.result()
        raise RuntimeError(f"the worker stopped by itself after {METER.executed} of {count} jobs")
    jobs = count if task == "sleep" else count - 1
    return {"jobs": jobs, "seconds": METER.seconds, "cpu_seconds": METER.cpu_seconds}


_MEASURES: Final[dict[str, Callable[[Adapter, str, int], Coroutine[Any, Any, dict[str, float]]]]] = {
    "bulk": _bulk,
    "single": _single,
    "drain": _drain,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure one job queue; prints one line of JSON.")
    parser.add_argument("measure", choices=tuple(_MEASURES))
    parser.add_argument("--url", required=True, help="the server; what it holds is left alone")
    parser.add_argument("--count", type=int, default=5_000, help="jobs")
    parser.add_argument("--task", choices=TASKS, default="noop", help="sleep: each job waits 10 ms")
    parser.add_argument("--deadline", type=float, default=60.0, help="longest run in seconds")
    return parser.parse_args()


async def _measure(arguments: argparse.Namespace, adapter_class: Callable[[str], Adapter]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(arguments.deadline):
            measure = _MEASURES[arguments.measure]
            return await measure(adapter_class(arguments.url), arguments.task, arguments.count)
    except TimeoutError as error:
        if not str(error):
            return {"error": f"not done within {arguments.deadline} s, {METER.executed} jobs executed"}
        return {"error": f"TimeoutError: {error}"}
    except Exception as error:  # noqa: BLE001 whatever a subject raises is its result, shown in the table
        return {"error": f"{type(error).__name__}: {error}"}


def run(adapter_class: Callable[[str], Adapter], *, uvloop: bool = False) -> None:
    """Measure as the command line says, print the figures, and end the process.

    Args:
        adapter_class: Builds the adapter from the server's URL.
        uvloop: Run on uvloop, where the subject is faster on it.
    """
    arguments = _arguments()
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if uvloop:
        from uvloop import new_event_loop

        loop_factory = new_event_loop

    async def measure_and_end() -> None:
        figures = await _measure(arguments, adapter_class)
        print(json.dumps(figures), flush=True)
        # Why: closing a worker is not measured, and some subjects take seconds over it or wait for a signal.
        os._exit(1 if "error" in figures else 0)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(measure_and_end())
