"""Wait for the outcomes of jobs without polling: one channel an app, told by the script that settles the job."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from headrace.errors import ConnectionLost, HeadraceError, PoolClosed, ResultTimeout, UsageError

if TYPE_CHECKING:
    from headrace.census import Census
    from headrace.pool.carrier import Carrier
    from headrace.store.store import Store

#: Outcomes that one app may wait for at once.
MAX_WAITS: Final = 1_000_000


class Inbox:
    """Deliver outcomes to those who wait for them.

    Args:
        store: Where waits are entered.
        link: Connection with the subscription; it must hand messages to `deliver` and reopenings to `reopened`.
        user: Link for the commands that enter a wait.
        channel: The channel of this app.
        census: Where the look-again after a break is counted.
    """

    def __init__(self, store: Store, link: Carrier, user: Carrier, channel: str, census: Census) -> None:
        self._store = store
        self._link = link
        self._user = user
        self._census = census
        self.channel = channel
        self._waits: dict[str, tuple[str, list[asyncio.Future[tuple[str, bytes]]]]] = {}
        self._looking: asyncio.Task[None] | None = None
        #: Messages may have been lost since the jobs were looked at.
        self._stale = False
        self._closed = False

    def __len__(self) -> int:
        """Return how many jobs are waited for."""
        return len(self._waits)

    def deliver(self, message: bytes) -> None:
        """Take a message of the channel: id, status and outcome, separated by spaces."""
        job_id, status, outcome = message.split(b" ", 2)
        self._end(job_id.decode(), (status.decode(), outcome))

    def reopened(self) -> None:
        """Look again at every job that is waited for: what was told during the break is lost."""
        self._stale = True
        if self._waits and self._looking is None:
            self._looking = self._census.create_task(
                self._look_again(), name="look again at awaited jobs", owner="inbox", expected=(HeadraceError,)
            )

    async def wait(self, queue: str, job_id: str, timeout: float | None) -> tuple[str, bytes]:
        """Return the status and outcome of a job once it has ended.

        Raises:
            ResultTimeout: It did not end in time.
            PoolClosed: The app closed during the wait.
        """
        if self._closed:
            raise PoolClosed("The app is closed, so that no result can arrive. Open it with `async with app`.")
        if len(self._waits) >= MAX_WAITS:
            raise UsageError(f"{MAX_WAITS} results are awaited already. Await results in smaller groups.")
        future: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        _, futures = self._waits.setdefault(job_id, (queue, []))
        futures.append(future)
        try:
            async with asyncio.timeout(timeout):
                await self._link.subscribe((self.channel,))
                status, outcome = await self._store.watch(self._user, queue, job_id, self.channel, enter=True)
                if status != "pending":
                    self._end(job_id, (status, outcome))
                return await future
        except PoolClosed:
            # Why: the inbox closes before the links do, and its error says what becomes of the job.
            if future.done() and not future.cancelled():
                return future.result()
            raise
        except TimeoutError as error:
            # Why: the inbox stays entered at the server; it is told once, to nobody, and forgotten with the job.
            text = f"job {job_id} on queue '{queue}' did not end within {timeout or 0:g} s; it goes on. "
            raise ResultTimeout(text + "Wait longer, or ask `headrace jobs why` what it waits for.") from error
        finally:
            if future in futures:
                futures.remove(future)
            if not futures and self._waits.get(job_id, (None, None))[1] is futures:
                del self._waits[job_id]

    async def close(self) -> None:
        """End all waits with PoolClosed."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for _, futures in self._waits.values():
            for future in futures:
                if not future.done():
                    future.set_exception(PoolClosed("The app closed before the job had ended; the job goes on."))
        self._waits.clear()

    def _end(self, job_id: str, end: tuple[str, bytes]) -> None:
        _, futures = self._waits.pop(job_id, ("", []))
        for future in futures:
            if not future.done():
                future.set_result(end)

    async def _look_again(self) -> None:
        try:
            # Bound: once for each break; the link's own back-off and this wait keep it from spinning.
            while self._stale:
                self._stale = False
                try:
                    await self._look_once()
                except ConnectionLost:
                    self._stale = True
                    await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter, no secret
        finally:
            self._looking = None

    async def _look_once(self) -> None:
        for job_id, (queue, _) in list(self._waits.items()):
            if job_id not in self._waits:
                continue
            status, outcome = await self._store.watch(self._user, queue, job_id, self.channel, enter=True)
            if status != "pending":
                self._end(job_id, (status, outcome))
