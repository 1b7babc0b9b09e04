"""Run the jobs of an app on its server until nothing is left to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from headrace.errors import ResultTimeout
from headrace.options import check_seconds
from headrace.worker.running import WorkerStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.app import Headrace
    from headrace.queue import QueueStats

#: Seconds between two looks at jobs that another worker runs.
LOOK: Final = 0.02


async def run_until_idle(
    app: Headrace,
    queues: Sequence[str] | None = None,
    timeout: float = 30.0,
    *,
    delayed: bool = False,
    concurrency: int | None = None,
) -> WorkerStats:
    """Run a worker until no job is waiting, due or active, also of those that other jobs enqueue; for tests.

    Args:
        app: The app, open or not.
        queues: Names of the queues; None for all that were ever used and all that the tasks name.
        timeout: Longest time in seconds, 0.001..31536000.
        delayed: Bring delayed jobs forward, those that wait for another attempt as well, until none is left.
        concurrency: Slots of the worker; None for the setting QUEUE_CONCURRENCY.

    Returns:
        What was done, summed up.

    Raises:
        ResultTimeout: Jobs were left; the error counts them.

    A paused queue is left as it is. Cancelling the call hands running jobs back.

    Example:
        >>> import asyncio, pathlib, tempfile
        >>> from headrace import Headrace
        >>> from headrace.testing import connected, run_until_idle
        >>> app = Headrace()
        >>> @app.task
        ... async def greet(name: str) -> str:
        ...     return f"Hello, {name}"
        >>> async def test() -> None:
        ...     async with connected(app):
        ...         job = await greet.using(delay=3600).enqueue("Ann")
        ...         stats = await run_until_idle(app, delayed=True)
        ...         print(stats.completed, await job.result())
        >>> asyncio.run(test())
        1 Hello, Ann
    """
    check_seconds("timeout", timeout, low=0.001)
    total = WorkerStats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    left: dict[str, QueueStats] = {}
    async with app:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    names = await _names(app, queues)
                    if delayed:
                        for name in names:
                            await app.store.hasten(app.control, name)
                    total = _sum(total, await app.worker(names or None, concurrency, burst=True).run())
                    # Why: jobs may have enqueued others on queues that nobody had heard of before.
                    names = await _names(app, queues)
                    left = {name: stats for name in names if _is_busy(stats := await app.queue(name).stats(), delayed)}
                    if not left:
                        break
                    if not any(stats.waiting or stats.delayed for stats in left.values()):
                        await asyncio.sleep(LOOK)
        except TimeoutError as error:
            shown = "; ".join(
                f"queue '{name}': {stats.waiting} waiting, {stats.delayed} delayed, {stats.active} active"
                for name, stats in left.items()
            )
            text = f"the app was not idle within {timeout:g} s: {shown or 'a job still ran'}"
            raise ResultTimeout(text + ". Look for a job that hangs or enqueues itself, or wait longer.") from error
        await app.events.flush()
    return total


async def _names(app: Headrace, queues: Sequence[str] | None) -> list[str]:
    return sorted(queues or {*app.tasks.queues(), *(queue.name for queue in await app.queues())})


def _is_busy(stats: QueueStats, delayed: bool) -> bool:  # noqa: FBT001 - read together with the call above
    return bool(stats.active or (not stats.paused and (stats.waiting or (delayed and stats.delayed))))


def _sum(one: WorkerStats, other: WorkerStats) -> WorkerStats:
    return WorkerStats(*(getattr(one, name) + getattr(other, name) for name in WorkerStats.__slots__))
