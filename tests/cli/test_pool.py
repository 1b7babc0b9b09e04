"""`headrace pool size`: what one more process needs beside those that run, and whether it fits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import Command, Done

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace
    from tests.support.raw import Raw


@pytest.fixture
def app(make_app: Callable[..., Headrace]) -> Headrace:
    return make_app(redis_max_connections=50)


@pytest.fixture
def command(app: Headrace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("REDIS_MAX_CONNECTIONS", "REDIS_MIN_CONNECTIONS", "QUEUE_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    return Command(app, capsys, monkeypatch)


async def beside(app: Headrace, command: Command, *arguments: str) -> Done:
    """Run the command while the app is open."""
    async with app:
        return await asyncio.to_thread(command, "pool", "size", *arguments)


async def test_the_table_counts_the_process_and_the_fleet(app: Headrace, command: Command) -> None:
    done = await beside(app, command, "--workers", "2", "--slots", "30")

    lines = [line.split() for line in done.out.splitlines()]
    rows = {line[0]: line[1:3] for line in lines if len(line) > 2}
    assert done.code == 0
    assert rows["blocking"] == ["2", "2"]
    assert rows["user"] == ["61", "72"]
    assert rows["allowed"] == ["100", "150"]
    assert ["verdict", "fits"] in lines
    assert ["maximum", "100", "(default)"] in lines
    assert "maxclients" in rows


async def test_json_holds_the_whole_answer(app: Headrace, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_MAX_CONNECTIONS", "60")

    done = await beside(app, command, "--json", "--borrowed", "5")

    found = done.json
    assert (found["maximum_source"], found["minimum_source"]) == ("environment", "default")
    sizing = found["sizing"]
    assert (sizing["maximum"], sizing["places"], sizing["processes"]) == (60, 110, 2)
    assert sizing["recommended"] >= 9
    assert sizing["server"]["source"] == "INFO"
    assert sizing["rows"][0]["consumer"] == "worker control"


async def test_a_fleet_that_does_not_fit_is_looked_at_all_the_same_and_ends_with_code_1(
    app: Headrace, command: Command, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_MAX_CONNECTIONS", "90")
    before = int(raw("CONFIG", "GET", "maxclients")[b"maxclients"])
    raw("CONFIG", "SET", "maxclients", 100)
    try:
        done = await beside(app, command)
    finally:
        raw("CONFIG", "SET", "maxclients", before)

    assert done.code == 1
    assert "The fleet of 2 may open 140 connections, and the server accepts 100" in done.out
    assert "Lower REDIS_MAX_CONNECTIONS, set it to auto" in done.out
