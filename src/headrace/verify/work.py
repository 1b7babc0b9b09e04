"""One worker process of `headrace verify`: `python -m headrace.verify.work`.

It runs a worker of the app under test, and answers questions that come as lines on its standard input with lines of
JSON on its standard output. It ends with its standard input, so that it never outlives who started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import importlib
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psutil

from headrace.app import Headrace
from headrace.census import Census, Kind
from headrace.errors import HeadraceError, OptionError
from headrace.histogram import Histogram
from headrace.logs import setup_logs
from headrace.memory.probes import read_blocks, read_usage
from headrace.memory.process import governor
from headrace.verify.evidence import Collected, Ended, Look, Sample
from headrace.verify.tasks import PLAN_VARIABLE, QUEUE, Tasks, VerifyPlan

if TYPE_CHECKING:
    from headrace.clock import Duty
    from headrace.subscription import Event

#: Time between two samples, seconds, and the most that are kept: ten minutes of them.
SAMPLE_INTERVAL: Final = 0.05
MOST_SAMPLES: Final = 12_000
#: Classes of errors that are counted apart.
MOST_ERRORS: Final = 20


class Bench:
    """A worker that is looked at.

    Args:
        app: The app under test.
        plan: What to do.
    """

    def __init__(self, app: Headrace, plan: VerifyPlan) -> None:
        self._app = app
        self._tasks = Tasks(app, plan.journal)
        self._worker = app.worker([QUEUE])
        self._census = Census()
        self._samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self._lag = Histogram()
        self._errors: Counter[str] = Counter()
        self._sampling: Duty | None = None
        self._first = self._last = 0.0

    async def run(self) -> None:
        """Run until told to stop, or until whoever started this has gone."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._worker.stop)
        for event in ("job.retried", "job.failed"):
            self._app.subscribe(event, self._note_error)
        running = self._census.create_task(
            self._worker.run(), name="run", owner="verify", expected=(HeadraceError, asyncio.CancelledError)
        )
        started = self._census.create_task(self._worker.signals.started.wait(), name="await start", owner="verify")
        await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if running.done():
            running.result()
        say({"id": self._worker.id})
        answering = self._census.create_task(self._answer_all(), name="answer", owner="verify")
        stats = await running
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
        threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        say(
            Ended(
                worker=dataclasses.asdict(stats),
                census=[str(row) for row in self._app.census()],
                threads=threads,
                children=len(psutil.Process().children(recursive=True)),
            )
        )

    async def _answer_all(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        try:
            while line := await reader.readline():
                question = line.decode().strip()
                if question == "stop":
                    self._worker.stop()
                    return
                say(await self._answer(question))
            self._worker.stop(hard=True)
        finally:
            transport.close()

    async def _answer(self, question: str) -> Any:
        if question == "look":
            return self._look()
        if question == "sample":
            self._begin_sampling()
        elif question == "settle":
            await self._app.memory.optimize()
        else:
            return await self._collect(int(question.removeprefix("collect ")))
        return {"done": question}

    def _note_error(self, event: Event) -> None:
        name = str(event.fields.get("error", ""))
        self._errors[name if name in self._errors or len(self._errors) < MOST_ERRORS else "others"] += 1

    def _look(self) -> Look:
        app, status, pool = self._app, self._app.memory.status(), self._app.pool.stats()
        if self._sampling is not None:
            self._sampling.close()
            self._sampling = None
        counts: dict[str, int] = {}
        for row in app.census():
            counts[str(row.kind)] = counts.get(str(row.kind), 0) + 1
        samples, lag = list(self._samples), self._lag.quantiles()
        self._samples.clear()
        self._lag = Histogram()
        response, self._tasks.responses = self._tasks.responses.quantiles(), Histogram()
        return Look(
            at=time.time(),
            resident=read_usage().resident,
            blocks=read_blocks(),
            timers=max(_count_timers(), counts.get(str(Kind.TIMER), 0)),
            census=counts,
            minimum=pool.minimum,
            maximum=pool.maximum,
            pool=dataclasses.asdict(pool),
            worker=dataclasses.asdict(self._worker.stats()),
            memory_used=status.used_bytes,
            memory_limit=status.limit.budget_bytes,
            memory_share=status.share,
            relieved=status.optimizations,
            samples=samples,
            lag=lag,
            response=response,
            errors=dict(self._errors),
        )

    def _begin_sampling(self) -> None:
        if self._sampling is None:
            self._first = self._last = time.monotonic()
            self._sampling = self._app.clock.every("sample the pool", SAMPLE_INTERVAL, self._sample, owner="verify")

    def _sample(self) -> None:
        now, stats = time.monotonic(), self._app.pool.stats()
        self._lag.record(max(0.0, now - self._last - SAMPLE_INTERVAL))
        self._last = now
        self._samples.append(Sample(now - self._first, stats.active, stats.idle, stats.total, stats.waiting))

    async def _collect(self, megabytes: int) -> Collected:
        """Make garbage that only a collection can find, have it collected, and see what came of it."""
        collects = gc.isenabled()
        gc.disable()
        try:
            start = read_usage().resident
            _litter(megabytes * 2**20)
            before = read_usage().resident
            done = await self._app.memory.optimize()
        finally:
            if collects:
                gc.enable()
        actions = [f"{one.action}: {one.freed_bytes / 2**20:.1f} MB in {one.seconds:.3f} s" for one in done.effects]
        return Collected(
            made=before - start, before=before, after=read_usage().resident, seconds=done.seconds, actions=actions
        )


def _litter(size_bytes: int) -> None:
    """Leave cycles behind that hold so many bytes; nothing but the collector can free them."""
    # Pieces this small come from the interpreter's own allocator, as most objects do.
    piece = 480
    chain: list[Any] = []
    for _ in range(size_bytes // piece):
        chain = [chain, bytes(piece - 100)]
    chain_end: list[Any] = [chain]
    chain.append(chain_end)


def _count_timers() -> int:
    """Count the timers that the running loop has set, whoever set them; 0 for a loop that does not tell."""
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return sum(1 for handle in scheduled if not handle.cancelled())


def say(what: Any) -> None:
    """Write one line of JSON to the standard output."""
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def load_user_app(place: str) -> Headrace:
    """Import the app under test.

    Args:
        place: `module:attribute`.

    Raises:
        OptionError: There is no such app.
    """
    module, _, attribute = place.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"'{place}': {error}. Write module:attribute, such as shop.jobs:app.") from error
    if not isinstance(found, Headrace):
        raise OptionError(f"'{place}': expected a Headrace app, found a value of type {type(found).__name__}.")
    return found


async def main() -> None:
    """Do what the plan in the environment says."""
    plan = msgspec.json.decode(os.environ.pop(PLAN_VARIABLE), type=VerifyPlan)
    app = load_user_app(plan.app) if plan.app else Headrace()
    app.settings = app.settings.override({"redis_url": plan.url, "prefix": plan.prefix, **plan.overrides})
    setup_logs(app.settings.override({"log_format": "json"}))
    # As `headrace worker` does: this process belongs to its worker, which may set the collector.
    governor().claim(processes=1, replace=None)
    await Bench(app, plan).run()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except HeadraceError as error:
        say({"failed": f"{type(error).__name__}: {error}"})
        sys.exit(1)
