"""An app for tests of the guarantees: its tasks tell what they do through a pipe, and a SIGKILL takes nothing back."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

from headrace import Fixed, Headrace, current_job

if TYPE_CHECKING:
    from headrace.task import TaskDecorator

#: Environment variable with the number of the pipe's end that tasks write to.
VARIABLE = "TEST_JOURNAL_FD"


def tell(what: str, **fields: Any) -> None:
    """Write one line about the job that runs; a line this short is written whole or not at all."""
    job = current_job()
    entry = {"what": what, "job": job.id, "attempt": job.attempt, "fence": job.fence, "pid": os.getpid()}
    line = json.dumps({**entry, "at": time.monotonic(), **fields}) + "\n"
    os.write(int(os.environ[VARIABLE]), line.encode())


class JournalApp(Headrace):
    """The app with its tasks as attributes; all of them are on the queue `work`."""

    def __init__(self, url: str | None = None, **settings: Any) -> None:
        super().__init__(url, settings=settings)

        def task(name: str, keep_result: float = 0.0) -> TaskDecorator:
            return self.task(name=name, queue="work", attempts=5, backoff=Fixed(0.0), keep_result=keep_result)

        self.step = task("step")(step)
        self.report = task("report", 60.0)(report)
        self.block = task("block")(block)
        self.fall = task("fall")(fall)
        self.waver = task("waver")(waver)
        self.chain = task("chain", 60.0)(self._chain)

    async def _chain(self, number: int) -> int:
        tell("start", number=number)
        current_job().follow(self.step, number + 1)
        return number


async def step(number: int, seconds: float = 0.0) -> None:
    """Begin, wait, end."""
    tell("start", number=number)
    if seconds:
        await asyncio.sleep(seconds)
    tell("end", number=number)


async def report(number: int, seconds: float) -> list[int]:
    """Do what `step` does and say which process and attempt it was."""
    await step(number, seconds)
    job = current_job()
    return [os.getpid(), job.attempt, job.fence]


async def block(number: int, seconds: float) -> None:
    """Keep the whole process from doing anything else, the first time it is run."""
    tell("start", number=number)
    if current_job().attempt == 1 and os.environ.get("TEST_BLOCKS"):
        time.sleep(seconds)  # noqa: ASYNC251 - that it blocks is what it is for
    tell("end", number=number)


async def fall(number: int, seconds: float) -> None:
    """End the process that runs it."""
    tell("start", number=number)
    if seconds:
        await asyncio.sleep(seconds)
    os._exit(3)


async def waver(number: int) -> None:
    """Fail the first time."""
    tell("start", number=number)
    if current_job().attempt == 1:
        raise OSError("not yet")
    tell("end", number=number)


def build() -> JournalApp:
    """Return the app as a worker process has it: settings from the environment."""
    return JournalApp()


def build_ignorant() -> Headrace:
    """Return an app of the same settings that knows `step` alone."""
    app = Headrace()
    app.task(name="step", queue="work")(step)
    return app
