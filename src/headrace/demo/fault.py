"""The fault: kill a worker in the middle of its work, start another, and measure how long the recovery takes."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Final

from headrace.demo.scene import Kill

if TYPE_CHECKING:
    from headrace.demo.app import Run
    from headrace.demo.crew import Crew, Hand
    from headrace.demo.look import Look
    from headrace.demo.scene import Moment, Scene
    from headrace.queue import QueueStats

#: A worker is killed when so many of the file jobs are completed, per cent.
AT_PERCENT: Final = 40


class Fault:
    """Kill one worker and follow the jobs that it held. Times are seconds since 1970, as in the run log.

    Args:
        scene: Told what happens.
        look: Asks the server.
        crew: The workers.
        jobs: File jobs.
    """

    def __init__(self, scene: Scene, look: Look, crew: Crew, jobs: int) -> None:
        self._scene = scene
        self._look = look
        self._crew = crew
        self._jobs = jobs
        self._changed = asyncio.Event()
        self._killed_at = 0.0
        self._told: Moment | None = None
        self._back: Moment | None = None
        self.ended_at: dict[str, float] = {}
        self.held: set[str] = set()
        self.kill: Kill | None = None

    @property
    def victim_pid(self) -> int:
        """Process that was killed, 0 for none."""
        return self.kill.pid if self.kill else 0

    def note(self, job_id: str) -> None:
        """Take note that a job has ended."""
        self.ended_at[job_id] = time.time()
        self._changed.set()

    async def strike(self) -> None:
        """Kill a worker that runs jobs once enough are completed, and wait until others have completed its jobs."""
        scene = self._scene
        while self.kill is None:
            await self._next_end()
            if len(self.ended_at) >= self._jobs:
                return
            if scene.completed * 100 >= AT_PERCENT * self._jobs:
                await self._kill_one()
        fresh = await self._crew.start()
        await self._crew.ready(fresh)
        scene.tell(f"{fresh.name} (pid {fresh.pid}) started in its place")
        while not self.held <= self.ended_at.keys():
            await self._next_end()
        after = max((self.ended_at[job] for job in self.held), default=self._killed_at) - self._killed_at
        scene.tell(f"the last of these jobs has completed elsewhere, {after:.1f} s after the kill", "good")

    def watch(self, stats: dict[str, QueueStats]) -> None:
        """Tell when the server counts jobs as stalled for the first time after the kill."""
        stalled = sum(each.stalled for each in stats.values())
        if self.kill is not None and stalled and self._back is None:
            self._back = self._scene.tell(
                f"{self.kill.worker}'s lease ran out: its {stalled} jobs are taken back", "good"
            )

    def learn(self, runs: list[Run]) -> None:
        """Complete the account of the kill from the log of all runs, which knows more than looks at the server do."""
        kill = self.kill
        if kill is None or self._told is None:
            return
        ours = [run for run in runs if run.job in self.held]
        started = len({run.job for run in ours if run.pid == kill.pid})
        again = [run.at for run in ours if run.pid != kill.pid and run.at > self._killed_at]
        ends = [self.ended_at.get(job, 0.0) for job in self.held]
        back_after = min(again) - self._killed_at if again else None
        recovered_after = max(ends) - self._killed_at if ends and all(ends) else None
        self.kill = dataclasses.replace(kill, started=started, back_after=back_after, recovered_after=recovered_after)
        self._told = self._scene.retell(self._told, f"{self._told.text} and ran {started} of them", self._told.at)
        if back_after is not None:
            text = f"{kill.worker}'s lease ran out: its {kill.held} jobs were taken back"
            at = self._told.at + back_after
            self._back = self._scene.retell(self._back, f"{text}, {back_after:.1f} s after the kill", at)

    async def _next_end(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def _kill_one(self) -> None:
        busiest: Hand | None = None
        most = 0
        for hand in self._crew.hands:
            started = sum((await self._look.holds(hand.worker_id)).values())
            # Of two that are as busy the later one is taken, so that it is the same one in most runs.
            if started and started >= most:
                busiest, most = hand, started
        if busiest is None:
            return
        percent = self._scene.completed * 100 / self._jobs
        self._killed_at = time.time()
        await busiest.kill()
        busiest.state = f"killed at {percent:.0f} %"
        holds = await self._look.holds(busiest.worker_id)
        self.held = set(holds)
        self.kill = Kill(busiest.name, busiest.pid, percent, len(holds))
        text = f"{busiest.name} (pid {busiest.pid}) killed with SIGKILL at {percent:.0f} %: it held {len(holds)} jobs"
        self._told = self._scene.tell(text, "bad")
