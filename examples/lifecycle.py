"""See what is live, how often the process wakes up, and that nothing is left.

Prints::

    live: connection subscription timer
    a panel heard 1
    subscriptions after the panel is gone: 0
    timers: 1
    left after the close: []
"""

import asyncio
import tempfile

from headrace import Headrace
from headrace.events import Event

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


@app.task
async def work() -> None: ...


class Panel:
    """Somebody who listens as long as somebody holds it."""

    def __init__(self) -> None:
        self.heard = 0
        # The subscription ends with this object: it holds the method weakly.
        app.subscribe("job.completed", self.hear, owner=self)

    def hear(self, _: Event) -> None:
        """Count what is heard."""
        self.heard += 1


async def main() -> None:
    async with app:
        panel = Panel()
        await app.queues()
        print("live:", *sorted({str(row.kind) for row in app.census()}))

        await work.enqueue()
        await app.worker(burst=True).run()
        await app.events.flush()
        print("a panel heard", panel.heard)

        del panel
        print("subscriptions after the panel is gone:", len(app.events.subscriptions()))
        # Every duty that there is shares one timer.
        print("timers:", sum(row.kind == "timer" for row in app.census()))
    print("left after the close:", app.census())


if __name__ == "__main__":
    asyncio.run(main())
