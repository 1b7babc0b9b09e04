"""The worker process of a measure: `python -m headrace.bench.work JSON` runs jobs and prints what it saw.

The variable `BENCH_SERVER` names the server, so that a password in its address is in no list of processes.

It prints `ready` when it reserves jobs, and one line of JSON after the last job; then it ends. With no jobs to expect,
it runs until its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import time
from typing import Any, Final

import msgspec
import redis.asyncio

from headrace import Headrace
from headrace.bench.timing import quantile
from headrace.settings import load_settings
from headrace.sizing.facts import measure_borrowed

#: Name of the one task, which does what its arguments say.
TASK: Final = "bench"
#: Name of the variable with the address of the server.
SERVER: Final = "BENCH_SERVER"


class Order(msgspec.Struct):
    """What one worker process is to do.

    Attributes:
        queues: Their names.
        concurrency: Slots.
        expect: Jobs after which it ends.
        calls: Redis commands that each job makes through the app's pool.
        rounds: Rounds of hashing that each job makes, whatever its kind.
        connections: Most connections of its pool; 0 for the default.
        prefix: Start of all keys.
    """

    queues: list[str]
    concurrency: int
    expect: int
    calls: int = 0
    rounds: int = 0
    connections: int = 0
    prefix: str = "headrace"


def make_app(url: str, connections: int = 0, prefix: str = "headrace") -> Headrace:
    """Return an app with the settings as they are by default, whatever the surroundings say.

    Args:
        url: The server.
        connections: Most connections of its pool; 0 for the default.
        prefix: Start of all keys.
    """
    settings = load_settings({"redis_url": url, "prefix": prefix}, environ={}, dotenv=None)
    if connections:
        minimum = min(settings.redis_min_connections, connections)
        settings = settings.override({"redis_max_connections": connections, "redis_min_connections": minimum})
    return Headrace(settings=settings)


class Recorder:
    """Count the jobs of one worker and keep their delays, at most as many as are expected."""

    def __init__(self, expect: int) -> None:
        self._expect = expect
        self._delays: list[float] = []
        self._done = 0
        self._first = self._last = 0.0
        self._used = 0.0
        self.ended = asyncio.Event()

    def begin(self, sent: float) -> None:
        """Note that a job starts, sent at that time by the machine's clock; 0 when its delay does not count."""
        now = time.monotonic()
        if not self._first:
            self._first, self._used = now, time.process_time()
        if sent:
            self._delays.append(now - sent)

    def end(self) -> None:
        """Note that it ended."""
        self._done += 1
        if self._done == self._expect:
            self._last = time.monotonic()
            self.ended.set()

    def facts(self) -> dict[str, Any]:
        """Return what was seen."""
        found: dict[str, Any] = {
            "jobs": self._done,
            "seconds": self._last - self._first,
            "processor_seconds": time.process_time() - self._used,
        }
        if self._delays:
            found |= {f"p{share}": quantile(self._delays, share / 100) for share in (50, 95, 99)}
        return found


async def run(url: str, order: Order) -> None:
    """Run one worker."""
    recorder = Recorder(order.expect)
    app = make_app(url, order.connections, order.prefix)
    client: Any = None

    @app.task(name=TASK, queue="bench")
    async def bench(kind: str, amount: float, sent: float, text: str) -> None:
        del text
        recorder.begin(sent)
        for _ in range(order.calls):
            await client.get("bench-call")
        if kind == "sleep":
            await asyncio.sleep(amount)
        if rounds := order.rounds + (int(amount) if kind == "cpu" else 0):
            compute(rounds)
        recorder.end()

    worker = app.worker(queues=order.queues, concurrency=order.concurrency)
    async with app:
        if order.calls:
            client = redis.asyncio.Redis(connection_pool=app.pool)
        running = asyncio.ensure_future(worker.run())
        await worker.signals.reserved.wait()
        print("ready", flush=True)  # noqa: T201 - whoever runs this process reads it
        if order.expect:
            await recorder.ended.wait()
        else:
            await wait_for_end()
        stats = app.pool.stats()
        borrowed = {"borrowed": measure_borrowed(stats) or 0, "pool_wait_p99": stats.wait.p99}
        print(json.dumps({**recorder.facts(), **borrowed}), flush=True)  # noqa: T201 - as above
        worker.stop()
        await running


async def wait_for_end() -> None:
    """Wait until the input of this process ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())


def compute(rounds: int) -> str:
    """Hash a text so many times over.

    Example:
        >>> compute(2) == hashlib.sha256(hashlib.sha256(b"headrace").digest()).hexdigest()
        True
    """
    value = b"headrace"
    for _ in range(rounds - 1):
        value = hashlib.sha256(value).digest()
    return hashlib.sha256(value).hexdigest()


def main() -> None:
    """Run the worker that the command line names, on uvloop where it is installed."""
    url, order = os.environ[SERVER], msgspec.json.decode(sys.argv[1], type=Order)
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - it may not be installed

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(url, order))


if __name__ == "__main__":
    main()
