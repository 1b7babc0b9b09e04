"""Run jobs later, and urgent ones first; first in, first out within a priority.

Prints::

    security alert
    password reset
    receipt 1
    receipt 2
    newsletter
    reminder
"""

import asyncio
import tempfile

from headrace import Headrace, Priority

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


@app.task(priority=Priority.NORMAL)
async def send(what: str) -> None:
    print(what)


async def main() -> None:
    async with app:
        reminder = await send.using(delay=1.0).enqueue("reminder")
        await send.using(priority=Priority.LOW).enqueue("newsletter")
        await send.enqueue("receipt 1")
        await send.enqueue("receipt 2")
        await send.using(priority=Priority.CRITICAL).enqueue("security alert")
        # Any whole number from 1 to 20 is a priority.
        await send.using(priority=12).enqueue("password reset")

        # One slot, so that the order shows. The delayed job is due to the millisecond, and nobody polls for it.
        worker = app.worker(concurrency=1)
        running = asyncio.create_task(worker.run())
        await reminder.result(timeout=10)
        worker.stop()
        await running


if __name__ == "__main__":
    asyncio.run(main())
