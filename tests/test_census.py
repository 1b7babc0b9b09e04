"""The census: what enters, what leaves by itself, and that no failed task is lost."""

from __future__ import annotations

import asyncio
import contextvars
import doctest
import gc
import logging
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import census as module
from headrace.census import Census, Entry, Kind
from headrace.errors import OptionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


def test_an_entry_is_listed_until_it_is_closed() -> None:
    census = Census()

    entry = census.add(Kind.CONNECTION, "jobs-1", "pool", resource=object())

    assert repr(entry) == "Entry(connection 'jobs-1' of 'pool')"
    (row,) = census.entries()
    assert (row.kind, row.name, row.owner) == (Kind.CONNECTION, "jobs-1", "pool")
    assert 0.0 <= row.age < 60.0
    entry.close()
    entry.close()
    assert census.is_empty()
    assert census.entries() == []


@given(st.lists(st.tuples(st.sampled_from(Kind), st.booleans())))
def test_counts_match_what_was_added_and_not_closed(plan: list[tuple[Kind, bool]]) -> None:
    census = Census()
    alive: list[Kind] = []

    for kind, closes in plan:
        entry = census.add(kind, "name", "owner")
        if closes:
            entry.close()
        else:
            alive.append(kind)

    assert census.counts() == {kind: alive.count(kind) for kind in set(alive)}
    assert [row.kind for row in census.entries()] == alive
    assert census.is_empty() == (not alive)


@pytest.mark.parametrize(("name", "owner"), [("", "owner"), ("name", "")])
def test_an_entry_without_name_or_owner_is_refused(name: str, owner: str) -> None:
    census = Census()

    with pytest.raises(OptionError, match="which part will end it"):
        census.add(Kind.FILE, name, owner)

    assert census.is_empty()


async def test_a_task_leaves_by_itself_when_it_is_done() -> None:
    census = Census()

    task = census.create_task(_give(5), name="give", owner="test")

    assert census.counts() == {Kind.TASK: 1}
    assert census.entries()[0].name == task.get_name() == "give"
    assert await task == 5
    assert census.is_empty()


async def test_a_failed_task_is_logged_once_and_still_raises_in_its_owner(caplog: pytest.LogCaptureFixture) -> None:
    census = Census()

    task = census.create_task(_fail("broken pump"), name="pump", owner="test")
    with pytest.raises(ValueError, match="broken pump"):
        await task
    with pytest.raises(ValueError, match="broken pump"):
        await task

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert (record.__dict__["task"], record.__dict__["owner"]) == ("pump", "test")
    assert "broken pump" in caplog.text
    assert census.is_empty()


async def test_a_failed_task_that_nobody_awaits_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    census = Census()
    done = asyncio.Event()

    task = census.create_task(_fail("unseen"), name="pump", owner="test")
    task.add_done_callback(lambda _: done.set())
    del task
    await asyncio.wait_for(done.wait(), timeout=5)
    gc.collect()

    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "unseen" in caplog.text


async def test_cancelled_and_expected_ends_are_no_failures(caplog: pytest.LogCaptureFixture) -> None:
    census = Census()
    waiting = census.create_task(asyncio.Event().wait(), name="wait", owner="test")
    answer = census.create_task(_fail("no"), name="ask", owner="test", expected=(LookupError, ValueError))

    waiting.cancel()
    await asyncio.wait({waiting, answer}, timeout=5)

    assert waiting.cancelled()
    assert answer.done()
    assert caplog.records == []
    assert census.is_empty()


async def test_a_task_that_only_the_census_holds_is_not_collected() -> None:
    census = Census()
    started, ended = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    task = census.create_task(pause(), name="pause", owner="test")
    del task
    await asyncio.wait_for(started.wait(), timeout=5)
    gc.collect()

    assert census.counts() == {Kind.TASK: 1}
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "pause"]
    task.add_done_callback(lambda _: ended.set())
    task.cancel()
    await asyncio.wait_for(ended.wait(), timeout=5)


async def test_a_task_runs_in_the_context_it_is_given() -> None:
    census = Census()
    number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)
    context = contextvars.copy_context()
    context.run(number.set, 7)

    async def read() -> int:
        return number.get()

    assert await census.create_task(read(), name="given", owner="test", context=context) == 7
    assert await census.create_task(read(), name="own", owner="test") == 0


def test_a_task_needs_a_running_loop() -> None:
    census = Census()
    coro: Coroutine[object, object, int] = _give(1)

    with pytest.raises(UsageError, match="no event loop runs"):
        _ = census.create_task(coro, name="early", owner="test")

    assert census.is_empty()


async def test_a_task_without_a_name_is_refused_before_it_starts() -> None:
    census = Census()

    with pytest.raises(OptionError, match="which part will end it"):
        _ = census.create_task(_give(1), name="", owner="test")

    assert census.is_empty()


def test_threads_may_add_and_close_while_others_list() -> None:
    census = Census()
    ready = threading.Barrier(5)

    def churn() -> None:
        ready.wait(timeout=10)
        entries: list[Entry] = [census.add(Kind.THREAD, "churn", "test") for _ in range(2_000)]
        for entry in entries:
            entry.close()

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait(timeout=10)
    while any(thread.is_alive() for thread in threads):
        assert census.counts().get(Kind.THREAD, 0) <= 8_000
        assert len(census.entries()) <= 8_000
    for thread in threads:
        thread.join(timeout=10)

    assert census.is_empty()


async def _give(number: int) -> int:
    return number


async def _fail(reason: str) -> NoReturn:
    raise ValueError(reason)
