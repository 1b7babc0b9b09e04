"""What an app says when it closes: nothing when nothing of it is left, else what is left, whose it is, who made it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from headrace import Headrace
from headrace.census import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def errors(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [vars(record) for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_leak_is_named_with_its_owner_and_its_maker(
    make_app: Callable[..., Headrace], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    async with app:
        # The fault: a task that nobody ends, and a timer that nobody cancels.
        task = app.census_book.create_task(asyncio.Event().wait(), name="poll the weather", owner="weather")
        timer = app.census_book.add(Kind.TIMER, "every 100 ms", owner="queue slots")

    (error,) = errors(caplog)
    assert error["message"] == "app closed, but something of it is left; end it where it was made"
    assert error["count"] == 2
    left = str(error["left"])
    assert "task 'poll the weather' of weather, made at tests/test_closing.py:" in left
    assert "timer 'every 100 ms' of queue slots, made at tests/test_closing.py:" in left
    task.cancel()
    timer.close()
    await asyncio.wait({task}, timeout=5)


async def test_an_app_that_left_nothing_says_nothing(
    make_app: Callable[..., Headrace], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    async with app:
        assert app.census() != []

    assert errors(caplog) == []
    assert app.census() == []


async def test_the_connection_of_synchronous_code_is_in_the_census(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task
    def step() -> None: ...

    await asyncio.to_thread(step.enqueue_sync)
    rows = [row for row in app.census() if row.owner == "enqueue_sync"]
    app.close_sync()
    await app_clear(app)

    assert [row.kind for row in rows] == [Kind.CONNECTION]
    assert app.census() == []


async def test_the_default_server_is_in_the_census_while_the_app_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    app = Headrace(settings={"data_dir": tmp_path / "data"})

    async with app:
        rows = [row for row in app.census() if "default server" in row.name]

    assert [(row.kind, row.owner) for row in rows] == [(Kind.CONNECTION, "app")]
    assert app.census() == []


async def app_clear(app: Headrace) -> None:
    async with app:
        await app.queue("default").clear("waiting")
