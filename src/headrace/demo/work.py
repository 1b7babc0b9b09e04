"""One worker of the demonstration, as a process: `python -m headrace.demo.work`.

It prints its id once it reserves jobs, and ends with its standard input, so that it never outlives who started it.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from headrace.demo.app import QUEUES, app


async def work() -> None:
    """Run jobs until SIGTERM, or until the process that started this one has gone."""
    worker = app.worker(queues=QUEUES)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, worker.stop)

    def parent_gone() -> None:
        # Why: nobody ever writes to this pipe, so that it becomes readable only when its other end is closed.
        loop.remove_reader(sys.stdin.fileno())
        worker.stop(hard=True)

    loop.add_reader(sys.stdin.fileno(), parent_gone)
    running = asyncio.ensure_future(worker.run())
    started = asyncio.ensure_future(worker.signals.started.wait())
    await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
    if started.done():
        sys.stdout.write(f"{worker.id}\n")
        sys.stdout.flush()
    started.cancel()
    await running


if __name__ == "__main__":
    asyncio.run(work())
