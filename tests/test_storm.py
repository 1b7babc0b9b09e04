"""Cancels, pauses and retries from two apps while their workers run: each job ends once, in one place."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

from headrace import Fixed, Headrace, current_job
from headrace.errors import JobNotFound
from tests.live import DEADLINE, opened, sibling, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Job
    from headrace.task import Task


class Storm:
    """What happens to the jobs of one queue. The seed is printed by a failing test; pass it to replay the choices."""

    def __init__(self, app: Headrace, other: Headrace, seed: int) -> None:
        self.apps = (app, other)
        self.chance = random.Random(seed)
        self.runs: Counter[str] = Counter()
        self.returned: Counter[str] = Counter()
        self.jobs: list[Job[Any]] = []
        #: Runs of a job at the moment when it was cancelled before it ran, or between two attempts.
        self.runs_at_cancel: dict[str, int] = {}
        self.tasks = [self._register(each) for each in self.apps]

    def _register(self, app: Headrace) -> Task[[int], Any, int]:
        @app.task(name="work", queue="work", attempts=3, backoff=Fixed(0.0), dead_letter="dead", keep_result=600)
        async def work(number: int) -> int:
            job = current_job()
            self.runs[job.id] += 1
            luck = self.chance.random()
            if luck < 0.3:
                await asyncio.sleep(luck / 30)
            if luck < 0.1:
                raise ValueError(number)
            self.returned[job.id] += 1
            return number

        return work

    async def produce(self) -> None:
        for _ in range(40):
            task = self.tasks[0].using(priority=self.chance.randint(1, 20), delay=self.chance.choice((0.0, 0.0, 0.05)))
            self.jobs += await task.enqueue_many([((number,),) for number in range(50)])
            await asyncio.sleep(0.005)

    async def cancel(self, app: Headrace) -> None:
        for _ in range(200):
            await asyncio.sleep(0.002)
            if not self.jobs:
                continue
            # The latest ones still wait.
            job = app.queue("work").job(self.chance.choice(self.jobs[-60:]).id)
            try:
                if await job.cancel() and job.status == "cancelled":
                    self.runs_at_cancel[job.id] = self.runs[job.id]
            except JobNotFound:
                continue

    async def pause(self) -> None:
        queue = self.apps[1].queue("work")
        for _ in range(25):
            await queue.pause()
            await asyncio.sleep(self.chance.random() / 100)
            await queue.resume()
            await asyncio.sleep(self.chance.random() / 40)


async def test_each_job_ends_once_and_in_one_place(make_app: Callable[..., Headrace]) -> None:
    limits = {"keep_finished_count": 100_000, "keep_dead_count": 100_000}
    app = make_app(**limits)
    seed = secrets.randbits(32)
    print("seed", seed)  # noqa: T201 - pytest shows it when the test fails
    async with app, opened(sibling(app, **limits)) as other:
        storm = Storm(app, other, seed)
        queue, dead = app.queue("work"), app.queue("dead")
        async with working(app, ["work"], 1), working(other, ["work"], 20):
            await asyncio.gather(storm.produce(), storm.cancel(app), storm.cancel(other), storm.pause())
            await queue.drain(DEADLINE)
            before, died = await queue.stats(), (await dead.stats()).failed
            ran_although_cancelled = [
                job_id for job_id, runs in storm.runs_at_cancel.items() if storm.runs[job_id] != runs
            ]

            put_back = await queue.retry_failed()
            for job in (await queue.jobs("cancelled", limit=1_000)).jobs:
                put_back += await job.retry()
            await queue.drain(DEADLINE)
            after, died_again = await queue.stats(), (await dead.stats()).failed

    assert ran_although_cancelled == []
    assert before.completed + before.cancelled + died == len(storm.jobs)
    assert put_back == before.cancelled + died
    assert after.completed + died_again == len(storm.jobs)
    assert max(storm.returned.values()) == 1
    assert storm.runs_at_cancel
