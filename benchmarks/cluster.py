"""Measure what a cluster costs a client: parting a batch by node, and jobs a second beside one server.

    python benchmarks/cluster.py [--jobs 20000] [--repeats 3]

`parting` is the time in which a cluster link reads the keys of a packed batch, in microseconds: of one command, of a
worker's round trip (a settle of 100 jobs and a reserve), and of the same for three queues. The jobs are no-ops of one
worker with 100 slots that keep no results: on one server, on three primaries with one queue, and with three queues on
three nodes. All servers are on this machine over TCP, without a file. Subjects take turns; the figures are medians with
the extremes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import print_head, spread

from headrace import Headrace
from headrace.pool.address import Address
from headrace.pool.slots import split_commands
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command
from headrace.server import start_private_server
from headrace.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.server import PrivateServer

SLOTS = 16_384
QUEUES = ("one", "two", "three")
PLAIN = ("--appendonly", "no", "--save", "")


@contextlib.contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Run one server and three primaries of a cluster; yields the URLs of both."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, contextlib.ExitStack() as stack:

        def start(name: str, *extra: str) -> PrivateServer:
            return stack.enter_context(start_private_server(Path(folder, name), port=0, extra=(*PLAIN, *extra)))

        one = start("one")
        print_head(one)
        print("here      over TCP, without a file\n")
        nodes = [
            start(f"node-{index}", "--cluster-enabled", "yes", "--cluster-port", str(free_port())) for index in range(3)
        ]
        for index, node in enumerate(nodes):
            low, high = SLOTS * index // 3, SLOTS * (index + 1) // 3 - 1
            ask(node, "CLUSTER", "ADDSLOTSRANGE", low, high)
            ask(node, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            bus = ask(node, "CONFIG", "GET", "cluster-port")[b"cluster-port"]
            ask(nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port or 0, bus)
        deadline = time.monotonic() + 20
        while any(b"cluster_state:ok" not in ask(node, "CLUSTER", "INFO") for node in nodes):
            if time.monotonic() > deadline:
                raise SystemExit("the cluster did not come up")
            time.sleep(0.05)
        yield one.url, "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes) + "/"


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(node: PrivateServer, *words: str | int | bytes) -> Any:
    """Send one command to one node."""
    link = SyncLink(Address(port=node.port or 0), name="bench")
    (reply,) = link.roundtrip(pack_command(*words), 1)
    link.close()
    if isinstance(reply, Exception):
        raise reply
    return reply


def parting(queues: Sequence[str], repeats: int) -> list[float]:
    """Return the microseconds in which the batch of a worker's round trip is read."""
    store = Store("p", where="nowhere")
    packed: list[bytes] = []
    for queue in queues:
        calls = store.queue(queue)
        entries = [part for at in range(100) for part in (f"job-of-16-chars{at}", b"1790000000000+5+worker1234")]
        packed.append(calls["settle"].pack(("worker1234", 30_000, 0, 5, 10_000, 10_000, 604_800_000, 100, *entries)))
        packed.append(store.pack_reserve(calls, "worker1234", 30_000, 100, 100))
    return [timed(b"".join(packed), len(packed)) for _ in range(repeats)]


def timed(payload: bytes, count: int, rounds: int = 300) -> float:
    """Return the microseconds of one reading."""
    began = time.perf_counter()
    for _ in range(rounds):
        split_commands(payload, count)
    return (time.perf_counter() - began) / rounds * 1e6


async def drain(url: str, queues: Sequence[str], jobs: int) -> float:
    """Return the jobs a second of one worker."""
    app = Headrace(url, settings={"prefix": f"bench-{time.time_ns()}"})

    @app.task(queue=queues[0], keep_result=0)
    async def work(number: int) -> None:
        """Do nothing."""

    async with app:
        for queue in queues:
            await work.using(queue=queue).enqueue_many([((at,), {}) for at in range(jobs // len(queues))])
        began = time.perf_counter()
        await app.worker(list(queues), 100, burst=True).run()
        return jobs / (time.perf_counter() - began)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with servers() as (one, cluster):
        subjects = {
            "one server, one queue": (one, QUEUES[:1]),
            "cluster, one queue": (cluster, QUEUES[:1]),
            "one server, three queues": (one, QUEUES),
            "cluster, three queues": (cluster, QUEUES),
        }
        figures: dict[str, list[float]] = {name: [] for name in subjects}
        for _ in range(options.repeats):
            for name, (url, queues) in subjects.items():
                figures[name].append(asyncio.run(drain(url, queues, options.jobs)))
    single = [timed(pack_command("EVALSHA", "0" * 40, 1, "p:{one}:jobs", "x" * 200), 1) for _ in range(options.repeats)]
    print(f"parting, one command              {spread(single, ' us', 2)}")
    print(f"parting, a round trip, one queue  {spread(parting(QUEUES[:1], options.repeats), ' us', 1)}")
    print(f"parting, the same, three queues   {spread(parting(QUEUES, options.repeats), ' us', 1)}\n")
    for name, values in figures.items():
        print(f"{name:<26}{spread(values, ' jobs/s')}")


if __name__ == "__main__":
    main()
