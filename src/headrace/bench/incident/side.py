"""One side of the comparison, inside its own process: the phases, the users, the health check, and what they saw.

A side is a service that answers requests, runs jobs and can be probed; see `Service`. What it measures is the same for
both: times by the clock of the process, timers by the loop's own book, memory and processor time by the system.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import psutil

from headrace.bench.incident.workload import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

_PROCESS: Final = psutil.Process()
#: Seconds between two looks at the pool and the memory.
LOOK: Final = 0.05
#: Seconds that requests get to end after their phase.
AFTER: Final = 1.0
#: Looks at the timers in the idle phase.
TIMER_LOOKS: Final = 20


class Service(Protocol):
    """What is compared."""

    #: Jobs completed, and requests that have a place and work.
    completed: int
    serving: int

    async def start(self) -> None:
        """Start everything, before any load."""

    async def age(self, seconds: float) -> None:
        """Do the monitoring of so many seconds."""

    async def request(self, number: int, seconds: float) -> None:
        """Answer a request: read a session, work for so long, enqueue job `number`.

        Raises:
            OSError: It was refused.
            TimeoutError: It waited in vain.
        """

    async def probe(self) -> None:
        """Ask the server whether it is there, as the health check of the service does."""

    def figures(self) -> dict[str, float]:
        """Return what the pool says now: in_use, waiting, maximum."""
        ...

    def closing_figures(self) -> dict[str, Any]:
        """Return what is known at the end only."""
        ...

    async def stop(self) -> None:
        """End everything."""


class Side:
    """Run a service through all phases and print one line of JSON for each.

    Args:
        service: The service.
        workload: What it has to carry.
    """

    def __init__(self, service: Service, workload: Workload) -> None:
        self._service = service
        self._workload = workload
        self._began = time.perf_counter()
        self._number = 0
        self._stopped = False
        #: What the service holds beside its queues; written to, so that it is resident.
        self._application = bytearray(b"x") * (workload.application_mb * 1024 * 1024)
        # The figures of the phase under way; bounded by its length.
        self._requests: list[float] = []
        self._refused = 0
        self._probes: list[float] = []
        self._series: list[dict[str, float]] = []

    async def run(self) -> None:
        """Run all phases."""
        service, workload = self._service, self._workload
        await service.start()
        tell("started", memory=read_memory())
        before = read_memory()
        began = time.perf_counter()
        await service.age(workload.uptime)
        tell("aged", grown=read_memory() - before, seconds=time.perf_counter() - began)
        # Why: what the start left to do is done.
        await asyncio.sleep(1.0)
        async with self._phase("idle") as found:
            found["timers"] = await self._count_timers(workload.idle)
        # Why first a part of it, which is not told: what a first call makes is no part of the load.
        async with self._phase("warm-up", self._probe()):
            await self._steady(workload.busy_rate, workload.steady / 4)
        # Why no looks: the processor time of these phases counts.
        for name, rate in (("steady", workload.steady_rate), ("busy", workload.busy_rate)):
            async with self._phase(name, self._probe()):
                await self._steady(rate, workload.steady)
        async with self._phase("surge", self._look()):
            await self._surge()
        async with self._phase("rush", self._look(), self._probe()):
            await self._rush()
        tell("end", **service.closing_figures(), memory=read_memory())
        await service.stop()

    @asynccontextmanager
    async def _phase(self, name: str, *beside: Coroutine[Any, Any, None]) -> AsyncIterator[dict[str, Any]]:
        self._stopped = False
        self._requests, self._probes, self._series, self._refused = [], [], [], 0
        tell("begin", phase=name)
        tasks = [asyncio.ensure_future(each) for each in beside]
        done, began, used = self._service.completed, time.perf_counter(), time.process_time()
        found: dict[str, Any] = {}
        yield found
        found |= {
            "phase": name,
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - used,
            "completed": self._service.completed - done,
        }
        self._stopped = True
        await end(tasks)
        found |= {
            "requests": self._requests,
            "refused": self._refused,
            "probes": self._probes,
            "series": self._series,
        }
        tell("phase", **found)

    # The phases

    async def _count_timers(self, seconds: float) -> list[int]:
        """Look into the loop's book now and then: what is due in it, less what was cancelled."""
        counts = []
        for _ in range(TIMER_LOOKS):
            await asyncio.sleep(seconds / TIMER_LOOKS)
            scheduled = getattr(asyncio.get_running_loop(), "_scheduled", [])
            counts.append(sum(not handle.cancelled() for handle in scheduled))
        return counts

    async def _steady(self, rate: float, seconds: float) -> None:
        began = time.perf_counter()
        tasks = []
        for at in self._workload.arrivals(rate, seconds):
            await asyncio.sleep(began + at - time.perf_counter())
            tasks.append(asyncio.ensure_future(self._request(self._workload.request_seconds)))
        await asyncio.sleep(began + seconds - time.perf_counter())
        await end(tasks, AFTER)

    async def _surge(self) -> None:
        users = self._workload.surge_users

        async def one(index: int) -> None:
            await asyncio.sleep(self._workload.surge_within * index / users)
            await self._request(self._workload.surge_seconds)

        await asyncio.gather(*(one(index) for index in range(users)))

    async def _rush(self) -> None:
        async def user(index: int) -> None:
            # They come within the first second and a half.
            await asyncio.sleep(1.5 * index / self._workload.rush_users)
            while not self._stopped:
                number = await self._request(self._workload.request_seconds)
                await asyncio.sleep(self._workload.think_seconds(number))

        tasks = [asyncio.ensure_future(user(index)) for index in range(self._workload.rush_users)]
        await asyncio.sleep(self._workload.rush)
        self._stopped = True
        await end(tasks)

    # What goes on in them

    async def _request(self, seconds: Any) -> int:
        self._number += 1
        number = self._number
        began = time.perf_counter()
        try:
            await self._service.request(number, seconds(number))
        except (OSError, TimeoutError):
            self._refused += 1
        else:
            self._requests.append(time.perf_counter() - began)
        return number

    async def _probe(self) -> None:
        """Check the health each interval; one that has not ended with the phase counts with the time it has taken."""
        under_way: set[asyncio.Task[None]] = set()
        while not self._stopped:
            task = asyncio.ensure_future(self._probe_once())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(self._workload.probe_interval)
        await end(list(under_way))

    async def _probe_once(self) -> None:
        began = time.perf_counter()
        try:
            await self._service.probe()
        except (OSError, TimeoutError):
            self._refused += 1
        finally:
            self._probes.append(time.perf_counter() - began)

    async def _look(self) -> None:
        while not self._stopped:
            look = {"at": time.perf_counter() - self._began, "serving": float(self._service.serving)}
            self._series.append({**look, **self._service.figures(), "memory": read_memory()})
            await asyncio.sleep(LOOK)


async def end(tasks: Sequence[asyncio.Future[Any]], within: float = 0.0) -> None:
    """Let tasks end within some seconds, then cancel them until they have ended."""
    if tasks and within:
        await asyncio.wait(tasks, timeout=within)
    # Why: `wait_for` of Python 3.11, which redis-py uses, may swallow a cancellation.
    pending: set[asyncio.Future[Any]] = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)


def read_memory() -> float:
    """Return the resident memory of this process in MiB."""
    return float(_PROCESS.memory_info().rss) / 1024 / 1024


def tell(event: str, **facts: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps({"event": event, **facts}), flush=True)  # noqa: T201 - whoever runs this process reads it


def read_workload() -> tuple[str, Workload]:
    """Return the server and the load that the command line names."""
    url, workload = sys.argv[1:3]
    return url, Workload(**json.loads(workload))
