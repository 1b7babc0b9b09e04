"""Events of a worker that tests and tools can wait for, instead of sleeping."""

from __future__ import annotations

import asyncio


class WorkerSignals:
    """Set once each when it first happens; clear one to wait for it again.

    Attributes:
        started: The worker reserves jobs.
        reserved: A reserve was answered.
        lease_lost: A lease ran out.
        stopped: The worker has let go of everything.
    """

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.reserved = asyncio.Event()
        self.lease_lost = asyncio.Event()
        self.stopped = asyncio.Event()
