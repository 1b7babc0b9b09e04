"""Start, load, close, fifty times: nothing is left each time; memory, files, threads and children stay as they were."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from headrace.census import all_censuses
from headrace.memory.actions import trim
from headrace.memory.growth import fit_slope
from headrace.memory.probes import read_usage
from tests.support.crew import DEADLINE

if TYPE_CHECKING:
    from tests.support.crew import Crew

LOOPS = 50
#: The first loops fill what is filled once: imports, arenas, caches of the interpreter.
WARM = 10
JOBS = 200
#: A child process takes longer to start than all the rest; one loop of so many has one.
CHILD_EACH = 5
#: Growth over all loops that is none: one page a loop, or less than it takes to see.
FLAT_BYTES = 1_048_576


def square(number: int) -> int:
    """Run in a child process."""
    return number * number


async def start_load_close(crew: Crew, *, with_child: bool) -> None:
    """Use one app for jobs of each kind and each end, and close it."""
    app = crew.app(processes=1)
    started = asyncio.Event()

    @app.task(name="quick", queue="work")
    async def quick(number: int) -> int:
        return number

    @app.task(name="in_thread", queue="work")
    def in_thread(number: int) -> int:
        return number

    @app.task(name="bad", queue="work", attempts=1)
    async def bad(number: int) -> None:
        raise ValueError(number)

    @app.task(name="asleep", queue="work")
    async def asleep() -> None:
        started.set()
        await asyncio.sleep(60.0)

    in_child = app.task(name="square", queue="work", process=True, keep_result=60.0)(square)
    heard: list[str] = []
    async with app:
        app.subscribe("job.*", lambda event: heard.append(event.name))
        worker = app.worker(["work"], concurrency=20, grace=0.0)
        running = asyncio.create_task(worker.run())
        numbers = [((number,),) for number in range(JOBS)]
        await quick.enqueue_many(numbers)
        await in_thread.enqueue_many(numbers[: JOBS // 4])
        await bad.enqueue_many(numbers[: JOBS // 10])
        await asyncio.to_thread(quick.enqueue_sync, 1)
        sleeper, waiter = await asleep.enqueue(), await asleep.using(delay=60.0).enqueue()
        if with_child:
            assert await (await in_child.enqueue(3)).result(timeout=DEADLINE) == 9
        await asyncio.wait_for(started.wait(), DEADLINE)
        await waiter.cancel()
        await sleeper.cancel()
        await app.queue("work").drain(timeout=DEADLINE)
        worker.stop()
        await asyncio.wait_for(running, DEADLINE)
        await app.queue("work").clear("failed")
        await app.queue("work").clear("cancelled")
    assert app.census() == []
    assert "job.completed" in heard
    crew.apps.remove(app)


def figures() -> tuple[int, int, int, int]:
    """Resident bytes, open files, threads and children of this process."""
    gc.collect()
    trim()
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    files = len(list(Path("/proc/self/fd").iterdir()))
    return read_usage().resident, files, len(threads), len(psutil.Process().children(recursive=True))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_fifty_times_started_loaded_and_closed_nothing_is_left(crew: Crew) -> None:
    await asyncio.to_thread(int)
    seen: list[tuple[int, int, int, int]] = []

    for number in range(LOOPS):
        await start_load_close(crew, with_child=number % CHILD_EACH == 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        seen.append(figures())
        assert [row for census in all_censuses() for row in census.entries()] == []

    sizes = [(float(number), float(one[0])) for number, one in enumerate(seen)][WARM:]
    slope = fit_slope(sizes)
    shown = f"{slope.value:,.0f} bytes a loop ({slope.low:,.0f} to {slope.high:,.0f}); {[one[0] >> 10 for one in seen]}"
    assert slope.low * LOOPS < FLAT_BYTES, shown
    assert slope.value * LOOPS < 2 * FLAT_BYTES, shown
    assert len({one[1:] for one in seen}) == 1, [one[1:] for one in seen]

    # Red when: processes.py does not close its job processes, or a list keeps the apps that have closed.
