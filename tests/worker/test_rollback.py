"""A worker goes by what the server says after a break, also when that is older than what it was told before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.live import DEADLINE, Gate, until, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace
    from tests.support.raw import Raw


class Snapshot:
    """The keys of one test as they were: what a replica had when its primary was lost, or a file after a power cut."""

    def __init__(self, raw: Raw, prefix: str) -> None:
        self._raw = raw
        self._prefix = prefix
        self._dumps = [(name, max(0, raw("PTTL", name)), raw("DUMP", name)) for name in raw.keys(f"{prefix}:")]

    def restore(self) -> None:
        """Put the keys back and close all connections, as one step for everybody else."""
        names = self._raw.keys(f"{self._prefix}:")
        restores = [("RESTORE", *dump, "REPLACE") for dump in self._dumps]
        kill = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self._raw.many([("UNLINK", *names), *restores, kill])


async def test_a_job_whose_completion_the_server_lost_runs_again_although_its_worker_lives(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str
) -> None:
    gates = {"lost": Gate(), "other": Gate()}
    app = make_app(lease=60.0)

    @app.task
    async def work(name: str) -> None:
        await gates[name].pass_through(name)

    async with app, working(app, concurrency=2):
        jobs = [await work.enqueue(name) for name in gates]
        for gate in gates.values():
            await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        snapshot = Snapshot(raw, prefix)
        gates["lost"].open.set()
        await jobs[0].result(timeout=DEADLINE)

        snapshot.restore()

        async def ran_again() -> bool:
            return len(gates["lost"].runs) == 2

        # Why: the other job goes on, so the worker's lease is renewed, and nobody else takes its jobs back.
        await until(ran_again, "the job runs again")
        gates["other"].open.set()
        await asyncio.gather(*(job.result(timeout=DEADLINE) for job in jobs))

    assert gates["other"].runs == ["other"]

    # Red when: running.py does not compare holds after its connection was made anew.
