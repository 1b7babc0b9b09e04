"""The journal of the drill: a pipe to which each job writes when it begins and ends, in whatever process it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import msgspec

from headrace.census import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census

#: Most entries that are kept: a drill writes some thousands.
MOST_ENTRIES: Final = 200_000


class Entry(msgspec.Struct, frozen=True):
    """One line: `what` is start or end, `at` seconds since 1970."""

    what: str
    job: str
    n: int
    attempt: int
    pid: int
    at: float


@dataclass(slots=True)
class Runs:
    """What is known of one job: its starts in their order, and its first end."""

    starts: list[Entry]
    end: Entry | None = None


class Journal:
    """Read the pipe on the loop; as a block it is open.

    Args:
        census: Where the pipe is entered.

    Attributes:
        writing: The end that the workers write to.
        runs: What is known of each job, by id.
    """

    def __init__(self, census: Census) -> None:
        self.runs: dict[str, Runs] = {}
        self.writing = -1
        self.count = 0
        self._census = census
        self._reading = -1
        self._rest = b""
        self._news = asyncio.Event()

    async def until(self, enough: Callable[[], bool], timeout: float) -> bool:
        """Wait until something holds of what was read; returns whether it came to hold in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not enough():
                    self._news.clear()
                    await self._news.wait()
        return enough()

    def ended(self) -> int:
        """Count the jobs that ended."""
        return sum(1 for runs in self.runs.values() if runs.end is not None)

    async def __aenter__(self) -> Self:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._entry = self._census.add(Kind.FILE, "journal", "verify")
        asyncio.get_running_loop().add_reader(self._reading, self._read)
        return self

    async def __aexit__(self, *exc: object) -> None:
        asyncio.get_running_loop().remove_reader(self._reading)
        os.close(self._reading)
        os.close(self.writing)
        self._entry.close()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            *lines, self._rest = (self._rest + os.read(self._reading, 65_536)).split(b"\n")
            for line in lines:
                with contextlib.suppress(msgspec.DecodeError):
                    self._take(msgspec.json.decode(line, type=Entry))
        self._news.set()

    def _take(self, entry: Entry) -> None:
        self.count += 1
        if self.count > MOST_ENTRIES:
            return
        runs = self.runs.setdefault(entry.job, Runs([]))
        if entry.what == "start":
            runs.starts.append(entry)
        elif runs.end is None:
            runs.end = entry
