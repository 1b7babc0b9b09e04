"""A worker process of the benchmark: start it, read what it saw, and end it in every case."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.bench.surroundings import default_environment
from headrace.bench.work import SERVER
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from headrace.bench.place import Place
    from headrace.bench.work import Order


class Hired:
    """A worker process that reserves jobs."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    async def ready(self) -> None:
        """Wait until it reserves jobs."""
        await self._line()

    async def result(self) -> dict[str, Any]:
        """Wait for the last of its jobs, and return what it saw.

        Raises:
            HeadraceError: It ended without.
        """
        found: dict[str, Any] = json.loads(await self._line())
        return found

    def release(self) -> None:
        """Let a worker go that expects no number of jobs."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.close()

    async def _line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        if line := await self._process.stdout.readline():
            return line
        code = await self._process.wait()
        end = self._log.read_text(errors="replace").strip()[-2_000:] or "(nothing)"
        raise HeadraceError(f"a worker of the benchmark ended by itself with code {code}. Its output ends with:\n{end}")


@contextlib.asynccontextmanager
async def hire(place: Place, order: Order, number: int = 0) -> AsyncIterator[Hired]:
    """Start a worker process for a block, and wait until it reserves jobs; it has ended after the block.

    Args:
        place: Server, prefix and folder.
        order: What it is to do.
        number: Its number among those that run at a time.
    """
    log = place.folder / f"worker-{number}.log"
    order = msgspec.structs.replace(order, prefix=place.prefix)
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace.bench.work", msgspec.json.encode(order).decode(),
            cwd=place.folder, env=default_environment() | {SERVER: place.url}, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    hired = Hired(process, log)
    try:
        await hired.ready()
        yield hired
        await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
