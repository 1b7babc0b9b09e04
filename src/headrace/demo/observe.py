"""Read the present figures for the display: queues, pool, and each process with its memory and connections."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import TYPE_CHECKING

import psutil

from headrace.demo.app import QUEUES, app
from headrace.demo.scene import ProcessRow

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from headrace.demo.crew import Crew, Hand
    from headrace.demo.fault import Fault
    from headrace.demo.look import Look
    from headrace.demo.scene import Scene


class Observer:
    """Keep a scene up to date.

    Args:
        scene: Takes the figures.
        look: Asks the server.
        crew: The workers.
        fault: Is told what the server counts.
        files_by_pid: Files completed by each worker process.
    """

    def __init__(self, scene: Scene, look: Look, crew: Crew, fault: Fault, files_by_pid: Counter[int]) -> None:
        self._scene = scene
        self._look = look
        self._crew = crew
        self._fault = fault
        self._files_by_pid = files_by_pid
        self._recent: deque[tuple[float, int]] = deque(maxlen=64)

    async def run(self, show: Callable[[Scene], None], interval: float) -> None:
        """Look and show, until cancelled."""
        while True:
            if self._scene.phase != "recount":
                await self._look_around()
            show(self._scene)
            await asyncio.sleep(interval)

    async def _look_around(self) -> None:
        scene = self._scene
        scene.queues = {name: await app.queue(name).stats() for name in QUEUES}
        self._fault.watch(scene.queues)
        facts = await self._look.facts()
        connections = await self._look.connections(int(facts.get("connected_clients", 0)))
        scene.rate = self._rate()
        scene.pool = app.pool.stats()
        scene.processes = [
            self._own_row("enqueues and collects", connections),
            *(self._row(hand, connections) for hand in self._crew.hands),
            ProcessRow(
                "server",
                int(facts.get("process_id", 0)),
                scene.server,
                memory_bytes=int(facts.get("used_memory_rss", 0)),
                connections=int(facts.get("connected_clients", 0)),
            ),
        ]
        scene.note_most()

    def _rate(self) -> float:
        """Return the file jobs completed a second, over the last second."""
        now, completed = time.monotonic(), self._scene.completed
        self._recent.append((now, completed))
        while len(self._recent) > 2 and now - self._recent[0][0] > 1.0:  # noqa: PLR2004 - a rate needs two looks
            self._recent.popleft()
        then, before = self._recent[0]
        return (completed - before) / (now - then) if now > then else 0.0

    def _own_row(self, state: str, connections: dict[int, int]) -> ProcessRow:
        pid = os.getpid()
        return ProcessRow("demo", pid, state, None, _memory_bytes(pid), connections.get(pid))

    def _row(self, hand: Hand, connections: dict[int, int]) -> ProcessRow:
        files = self._files_by_pid[hand.pid]
        if not hand.alive:
            return ProcessRow(hand.name, hand.pid, hand.state, files)
        return ProcessRow(
            hand.name, hand.pid, hand.state, files, _memory_bytes(hand.pid), connections.get(hand.pid), is_worker=True
        )


def _memory_bytes(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
