"""Worker processes and what they tell: started, stopped, killed and waited for with deadlines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from headrace import Headrace
from headrace.keys import QueueKeys
from tests.apps.journal import VARIABLE, JournalApp
from tests.support.raw import Raw
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

Entry = dict[str, Any]
#: Nothing that these tests wait for takes longer, seconds.
DEADLINE = 20.0
#: Short, for tests that wait for its end; longer than a machine that others use stands still at a time, seconds.
LEASE = 2.0


class Lines:
    """JSON lines read from a pipe by a thread, for others to wait for."""

    def __init__(self, fd: int, name: str) -> None:
        self._entries: list[Entry] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(fd,), name=name, daemon=True)
        self._thread.start()

    def __call__(self, what: str | None = None, **fields: Any) -> list[Entry]:
        """Return what was told so far and has these fields."""
        wanted = fields if what is None else {"what": what, **fields}
        with self._news:
            return [entry for entry in self._entries if wanted.items() <= entry.items()]

    def wait(self, enough: Callable[[], bool], what: str, timeout: float = DEADLINE) -> None:
        """Wait for lines until there is enough."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not enough():
                left = deadline - time.monotonic()
                assert left > 0, f"did not happen within {timeout} s: {what}; last told: {self._entries[-5:]}"
                self._news.wait(left)

    async def until(self, what: str, count: int = 1, timeout: float = DEADLINE, **fields: Any) -> list[Entry]:
        """Wait for that many lines with these fields, and return all there are."""
        wish = f"{count} x {what} {fields}"
        await asyncio.to_thread(self.wait, lambda: len(self(what, **fields)) >= count, wish, timeout)
        return self(what, **fields)

    def join(self) -> None:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def _read(self, fd: int) -> None:
        with open(fd, encoding="utf-8") as stream:
            for line in stream:
                entry = json.loads(line)
                with self._news:
                    self._entries.append(entry)
                    self._news.notify_all()


class WorkerProcess:
    """One worker in a process of its own; `says` is what it says about itself."""

    def __init__(self, arguments: list[str], environment: dict[str, str], pass_fds: tuple[int, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.worker_main", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, **environment},
            pass_fds=pass_fds,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.pid = self.process.pid
        self.says = Lines(os.dup(self.process.stdout.fileno()), f"worker {self.pid}")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    async def end(self) -> int:
        """Wait for the end of the process and return its exit code."""
        return await asyncio.to_thread(self.process.wait, DEADLINE)

    async def kill(self) -> float:
        """End it with SIGKILL; returns when that was (time.monotonic)."""
        when = time.monotonic()
        self.send(signal.SIGKILL)
        await self.end()
        return when

    async def stop(self) -> Entry:
        """Ask it to stop; returns its figures."""
        self.send(signal.SIGTERM)
        (stopped,) = await self.says.until("stopped")
        assert await self.end() == 0
        assert stopped["census"] == []
        return stopped

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
        self.process.wait(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.says.join()


async def produce(app: JournalApp, accepted: list[int], enough: asyncio.Event) -> None:
    """Enqueue jobs until told to stop, and note each one that was accepted."""
    number = 0
    while not enough.is_set():
        await app.step.enqueue_many([((number + at, 0.005),) for at in range(10)])
        accepted += range(number, number + 10)
        number += 10
        await asyncio.sleep(0.005)


class Crew:
    """The workers of one test, the pipe that their tasks write to, and apps beside them in this process."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        reading, self._writing = os.pipe()
        self.journal = Lines(reading, "journal")
        self.workers: list[WorkerProcess] = []
        self.apps: list[JournalApp] = []

    def app(self, url: str | None = None, **settings: Any) -> JournalApp:
        """Return an app in this process with the tasks that the workers know."""
        app = JournalApp(url or self.url, prefix=self.prefix, **{"lease": LEASE, **settings})
        self.apps.append(app)
        return app

    async def worker(
        self,
        *,
        concurrency: int | None = 10,
        url: str | None = None,
        build: str = "build",
        lease: float = LEASE,
        queues: str = "work",
        **env: str,
    ) -> WorkerProcess:
        """Start a worker process and wait until it reserves; without a concurrency it has that of its settings."""
        environment = {
            "REDIS_URL": url or self.url, "HEADRACE_PREFIX": self.prefix, VARIABLE: str(self._writing),
            "QUEUE_STALLED_INTERVAL": str(round(lease * 1000)), **env,
        }  # fmt: skip
        worker = WorkerProcess([f"tests.apps.journal:{build}", queues, str(concurrency)], environment, (self._writing,))
        self.workers.append(worker)
        await worker.says.until("ready")
        return worker

    async def settled(self) -> None:
        """Wait until the server knows of no job that waits or runs."""
        async with Headrace(self.url, settings={"prefix": self.prefix}) as observer:
            await observer.queue("work").drain(timeout=DEADLINE)

    async def lease_runs_out(self) -> None:
        """Wait until every lease that there is has run out: the server's clock says so, and nothing announces it."""
        with Raw(self.url) as raw:
            leases = raw("ZRANGE", QueueKeys(self.prefix, "work")["leases"], 0, -1, "WITHSCORES")
            seconds, micros = raw("TIME")
        latest = max(deadline for _, deadline in leases)
        await asyncio.sleep(latest / 1000 - int(seconds) - int(micros) / 1_000_000 + 0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self.workers:
            worker.clean_up()
        os.close(self._writing)
        self.journal.join()
        for app in self.apps:
            assert app.census() == []
