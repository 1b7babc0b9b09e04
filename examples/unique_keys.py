"""Let a key name one unfinished job, so that a click too many does not do the work twice.

Prints::

    the same job: True
    reports made: 1
    a new job afterwards: True
"""

import asyncio
import tempfile

from headrace import Headrace

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})
made: list[int] = []


@app.task
async def make_report(customer: int) -> None:
    made.append(customer)


async def main() -> None:
    async with app:
        report = make_report.using(key="report:42")
        first = await report.enqueue(42)
        second = await report.enqueue(42)
        print(f"the same job: {first.id == second.id}")

        await app.worker(burst=True).run()
        print(f"reports made: {len(made)}")

        # Completed, dead or cancelled: the key is free again.
        third = await report.enqueue(42)
        print(f"a new job afterwards: {third.id != first.id}")
        await third.cancel()


if __name__ == "__main__":
    asyncio.run(main())
