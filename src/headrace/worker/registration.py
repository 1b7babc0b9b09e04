"""What a worker says of itself in the registry, once a minute: who it is, which queues it serves, and that it is there.

The registry is bounded: whoever registers takes out a few entries of workers that have been gone for an hour, if it
meets any. It is for people and tools; that a job is taken back from a lost worker depends on leases alone.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from headrace.errors import ConnectionLost
from headrace.keys import queues_key, workers_key
from headrace.record import encode_value
from headrace.resp import pack_command
from headrace.store.replies import WorkerFacts, parse_workers, raise_lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.clock import Duty
    from headrace.worker.host import Host

logger = logging.getLogger(__name__)

#: Interval in which a worker says in the registry that it is there, seconds.
REGISTER_INTERVAL: Final = 60.0
#: Entries that are looked at each time, and the age at which they are taken out, seconds.
LOOK_AT: Final = 5
GONE_AFTER: Final = 3_600.0


class Registration:
    """Keep one worker in the registry.

    Args:
        host: The app.
        worker: Id of the worker.
        queues: The queues that it serves.
        concurrency: Its slots.
        server_ms: Returns the server's time, as well as it is known.
    """

    def __init__(
        self, host: Host, worker: str, queues: list[str], concurrency: int, server_ms: Callable[[], int]
    ) -> None:
        self._host = host
        self._worker = worker
        self._queues = queues
        self.concurrency = concurrency
        self._server_ms = server_ms
        self._started = time.time()
        self._key = workers_key(host.settings.prefix)
        self._duty: Duty | None = None

    async def start(self) -> None:
        """Register, and do so again each minute."""
        await self.register()
        self._duty = self._host.clock.every("register worker", REGISTER_INTERVAL, self.register, owner="worker")

    async def register(self) -> None:
        """Say that the worker is there, name its queues in the index of queues, and forget a few of those gone."""
        taken = self._host.taken
        facts = WorkerFacts(
            host=socket.gethostname(), pid=os.getpid(), queues=self._queues, concurrency=self.concurrency,
            started=self._started, seen=self._server_ms() / 1000, settings=taken.version,
            restart=list(taken.restart), refused=taken.refused, reason=taken.reason,
        )  # fmt: skip
        # Why: nobody enqueues into a dead-letter queue, so that only who fills it can name it.
        letters = {letter for name in self._queues for letter in self._host.tasks.letters(name)}
        commands = (
            pack_command("HSET", self._key, self._worker, encode_value(facts)),
            pack_command("SADD", queues_key(self._host.settings.prefix), *self._queues, *sorted(letters)),
            *self._pack_sources(),
            pack_command("HRANDFIELD", self._key, LOOK_AT, "WITHVALUES"),
        )
        try:
            replies = await self._host.control.roundtrip(b"".join(commands), len(commands))
            raise_lost(replies)
            if isinstance(some := replies[-1], list):
                await self._forget(parse_workers(dict(some)), facts.seen)
        except ConnectionLost as error:
            logger.warning("worker could not be registered; it is tried again", extra={"reason": str(error)[:300]})

    def _pack_sources(self) -> list[bytes]:
        store, letters = self._host.store, self._host.tasks.letters
        return [packed for name in self._queues for packed in store.pack_sources(name, letters(name))]

    async def unregister(self) -> None:
        """Take the worker out; raises ConnectionLost."""
        await self._host.control.roundtrip(pack_command("HDEL", self._key, self._worker), 1, timeout=5.0)

    def close(self) -> None:
        """Register no more."""
        if self._duty is not None:
            self._duty.close()

    async def _forget(self, some: dict[str, WorkerFacts], now: float) -> None:
        gone = [name for name, facts in some.items() if now - facts.seen > GONE_AFTER]
        if gone:
            await self._host.control.roundtrip(pack_command("HDEL", self._key, *gone), 1)
