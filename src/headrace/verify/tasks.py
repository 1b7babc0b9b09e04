"""The jobs of `headrace verify`, registered on the app under test, whose hooks run around them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.context import current_job
from headrace.histogram import Histogram
from headrace.retry import Fixed

if TYPE_CHECKING:
    from headrace.app import Headrace
    from headrace.task import Task

#: Holds the plan of a worker in its environment. It starts with no HEADRACE_: it is no setting.
PLAN_VARIABLE: Final = "_HEADRACE_VERIFY_PLAN"
QUEUE: Final = "verify"
#: How often a calling job takes a connection, and for how long it keeps it, seconds: a transaction with work in it.
CALLS: Final = 3
HOLD: Final = 0.05


class VerifyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker process of `headrace verify` is to do.

    Attributes:
        url: Server.
        prefix: Start of its keys.
        app: The user's app as module:attribute; empty for one of its own.
        overrides: Settings by field name that stand above those of the app.
        journal: End of the pipe that jobs of the drill write to; -1 for none.
    """

    url: str
    prefix: str
    app: str = ""
    overrides: dict[str, Any] = {}
    journal: int = -1


class Tasks:
    """Register the jobs.

    Args:
        app: The app that is verified.
        journal: As in `VerifyPlan`.
    """

    def __init__(self, app: Headrace, journal: int = -1) -> None:
        self._app = app
        self._journal = journal
        #: Seconds from asking the pool for a connection to the reply of the first command on it.
        self.responses = Histogram()
        self._client: Any = None
        options: dict[str, Any] = {"queue": QUEUE, "attempts": 3, "backoff": Fixed(0.0), "keep_result": 0.0}
        self.nothing: Task[Any, Any, Any] = app.task(name="headrace.verify.nothing", **options)(_nothing)
        self.call: Task[Any, Any, Any] = app.task(name="headrace.verify.call", **options)(self._call)
        self.mark: Task[Any, Any, Any] = app.task(name="headrace.verify.mark", **options)(self._mark)

    async def _call(self, number: int, pause: float) -> None:
        """Use a connection of the pool as a job of the user's does that needs it for several steps, and pause."""
        if self._client is None:
            import redis.asyncio  # noqa: PLC0415 - only the worker under load needs it

            self._client = redis.asyncio.Redis(connection_pool=self._app.pool)
        key = f"{self._app.settings.prefix}:verify:{number % 16}"
        for step in range(CALLS):
            # Why: without the difference all jobs of a batch would call in step.
            await asyncio.sleep(pause * (0.5 + (number * CALLS + step) % 101 / 100))
            began = time.perf_counter()
            async with self._client.client() as connection:
                # Why: the pool lends connections to one node of a cluster, which may not serve the key.
                await (connection.ping() if self._app.store.clustered else connection.set(key, number, ex=60))
                self.responses.record(time.perf_counter() - began)
                await asyncio.sleep(HOLD)
                await (connection.ping() if self._app.store.clustered else connection.get(key))

    async def _mark(self, number: int, seconds: float) -> None:
        """Say that it begins, wait, and say that it ends."""
        self._tell("start", number)
        await asyncio.sleep(seconds)
        self._tell("end", number)

    def _tell(self, what: str, number: int) -> None:
        """Write one line; one so short is written whole or not at all, and a SIGKILL takes it not back."""
        job = current_job()
        entry = {"what": what, "job": job.id, "n": number, "attempt": job.attempt, "pid": os.getpid()}
        os.write(self._journal, json.dumps({**entry, "at": time.time()}).encode() + b"\n")


async def _nothing(number: int) -> int:
    """Do nothing: what it takes is the queue's own part."""
    return number
