"""Hear of what the workers of this process do, without slowing them down.

Prints::

    job.retried work attempt 1
    job.completed work attempt 2
"""

import asyncio
import tempfile

from headrace import Fixed, Headrace, current_job
from headrace.events import Event

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


@app.task(name="work", backoff=Fixed(0.0))
async def work() -> None:
    if current_job().attempt == 1:
        raise ConnectionError


def tell(event: Event) -> None:
    print(f"{event.name} {event.fields['task']} attempt {event.fields['attempt']}")


async def main() -> None:
    async with app:
        # A pattern; a subscriber that is too slow loses the oldest events, and nothing waits for it.
        app.subscribe("job.*", tell)
        await work.enqueue()
        await app.worker(burst=True).run()


if __name__ == "__main__":
    asyncio.run(main())
