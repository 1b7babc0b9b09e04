"""Enqueue the next job when, and only when, this one completes: both are one atomic transition.

Prints::

    charged 1
    charge of 2 failed, so that nothing follows
    shipped 1
"""

import asyncio
import tempfile

from headrace import Headrace, current_job

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


@app.task(attempts=1)
async def charge(order: int) -> None:
    # Whatever happens to the worker: what was charged is shipped, and nothing else is.
    current_job().follow(ship, order)
    if order == 2:
        print(f"charge of {order} failed, so that nothing follows")
        raise ValueError("card refused")
    print(f"charged {order}")


@app.task(priority=1)
async def ship(order: int) -> None:
    print(f"shipped {order}")


async def main() -> None:
    async with app:
        await charge.enqueue(1)
        await charge.enqueue(2)
        await app.worker(concurrency=1, burst=True).run()


if __name__ == "__main__":
    asyncio.run(main())
