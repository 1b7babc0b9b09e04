"""Real processes with `auto` on one small server: together they never pass the fleet's share of maxclients."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from headrace.keys import budget_key
from headrace.server import start_private_server
from headrace.sizing.sizer import ASK_AGAIN
from tests.support.raw import Raw
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headrace.server import PrivateServer

MAXCLIENTS = 100
SHARE = 80
PREFIX = "fleet"
#: Growing takes a second a step, and giving up and asking again takes ASK_AGAIN.
PATIENCE = 15.0 + 2 * ASK_AGAIN


@pytest.fixture
def small(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server that accepts few clients, for this test alone."""
    extra = ("--appendonly", "no", "--save", "", "--maxclients", str(MAXCLIENTS))
    with start_private_server(tmp_path, extra=extra) as running:
        yield running


class Hungry:
    """One process that wants more than there is."""

    def __init__(self, url: str, users: int) -> None:
        env = {**os.environ, "REDIS_URL": url, "HEADRACE_PREFIX": PREFIX, "REDIS_MAX_CONNECTIONS": "auto"}
        command = [sys.executable, "-m", "tests.support.hungry_main", str(users)]
        env |= {"REDIS_MIN_CONNECTIONS": "4", "HEADRACE_POOL_FLEET_SHARE": str(SHARE)}
        self.process = subprocess.Popen(
            command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def ready(self) -> None:
        """Wait until its users call."""
        assert self.process.stdout is not None
        assert (await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), 15.0)) == "ready\n"

    def stop(self) -> None:
        """Let it end by itself, or kill it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10.0)
        finally:
            self.process.kill()
            self.process.stdout.close()


def places(raw: Raw) -> dict[str, int]:
    """What each process has in the budget."""
    fields = dict(raw("HGETALL", budget_key(PREFIX)))
    return {name.decode(): int(value.split()[1]) for name, value in fields.items() if name != b"*"}


def connections(raw: Raw) -> int:
    """How many connections of the fleet the server sees."""
    return str(raw("CLIENT", "LIST")).count("name=headrace:")


async def watch(raw: Raw, enough: Callable[[dict[str, int], int], bool]) -> tuple[int, int]:
    """Look again and again until there is enough; returns the most places and the most connections that were seen."""
    most_places = most_connections = 0
    deadline = time.monotonic() + PATIENCE
    while True:
        found = places(raw)
        most_places = max(most_places, sum(found.values()))
        open_now = connections(raw)
        most_connections = max(most_connections, open_now)
        if enough(found, open_now):
            return most_places, most_connections
        assert time.monotonic() < deadline, (found, open_now)
        await asyncio.sleep(0.02)


def all_taken(found: dict[str, int], now: int) -> bool:
    """Whether every place of the share is taken, and nearly every one is a connection: some are kept for workers."""
    return sum(found.values()) == SHARE and now >= SHARE - 4 * len(found)


@pytest.mark.slow
async def test_processes_with_auto_together_never_pass_the_share(small: PrivateServer) -> None:
    with Raw(small.url) as raw:
        fleet = [Hungry(small.url, users=60) for _ in range(3)]
        try:
            for process in fleet:
                await process.ready()
            while_growing = await watch(raw, lambda found, now: len(found) == 3 and all_taken(found, now))
            await asyncio.to_thread(fleet[0].stop)
            after_one_left = await watch(raw, lambda found, now: len(found) == 2 and all_taken(found, now))
        finally:
            for process in fleet:
                await asyncio.to_thread(process.stop)

        assert while_growing[0] == after_one_left[0] == SHARE
        assert max(while_growing[1], after_one_left[1]) <= SHARE
        assert raw("EXISTS", budget_key(PREFIX)) == 0
    # Red when: budget.lua grants what is wanted whatever is left.
