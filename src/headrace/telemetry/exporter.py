"""What an open app tells of itself and of its queues to monitoring; made when it is asked for the first time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from headrace.errors import UsageError
from headrace.telemetry.prometheus import compose
from headrace.telemetry.queues import WAIT, QueueFigures
from headrace.telemetry.reading import ProcessFigures, Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.pool.carrier import Carrier
    from headrace.store.store import Store
    from headrace.task import Registry
    from headrace.telemetry.samples import Sample
    from headrace.worker.worker import Worker


class Exported(Shown, Protocol):
    """What an exporter needs of an open app."""

    tasks: Registry

    @property
    def store(self) -> Store: ...  # noqa: D102 - as the parts of the app are called

    @property
    def control(self) -> Carrier: ...  # noqa: D102 - as above


class Exporter:
    """Tell monitoring of one app.

    Args:
        app: The open app.
        workers: Returns its workers.
    """

    def __init__(self, app: Exported, workers: Callable[[], Sequence[Worker]]) -> None:
        self._app = app
        self._workers = workers
        self._process = ProcessFigures(app, workers)
        # Bounded by the scrapes under way.
        self._writing: set[asyncio.Task[str]] = set()
        self.queues = QueueFigures(app.store, app.control, app.census_book, self._own_queues)

    def process(self) -> list[Sample]:
        """Return the figures of this process."""
        return self._process.read()

    async def text(self, *, process: bool = True, within: float = WAIT) -> str:
        """Return everything in the text format of Prometheus.

        Args:
            process: Tell of this process beside the queues.
            within: Longest wait for the server, seconds.

        Raises:
            UsageError: prometheus-client is not installed.
        """
        counted = await self.queues.read(within)
        census = self._app.census_book
        writing = census.create_task(
            compose({"1": self.process()} if process else {}, counted, census),
            name="write metrics", owner="telemetry", expected=(UsageError,),
        )  # fmt: skip
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        # Why shielded: its thread goes on when the scraper has left, and whoever closes the app waits for it.
        return await asyncio.shield(writing)

    async def close(self) -> None:
        """Give up the question under way, and wait for what is being written."""
        await self.queues.close()
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _own_queues(self) -> list[str]:
        """Name the queues that this process serves or has tasks for, and the dead-letter queues of these."""
        tasks = self._app.tasks
        served = [queue for worker in self._workers() for queue in worker.queues]
        # Why of no queue: a job of any task may be in any queue, so these are all that a dead one may go to.
        return [*served, *tasks.queues(), *tasks.letters("")]
