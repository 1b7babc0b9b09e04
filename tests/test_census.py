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
from headrace.census import Census, Entry, Kind, all_censuses, report
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


def test_an_entry_tells_where_it_was_made() -> None:
    census = Census()

    census.add(Kind.FILE, "journal", owner="server")

    (row,) = census.entries()
    assert row.place.startswith("tests/test_census.py:")
    assert report([row]) == f"file 'journal' of server, made at {row.place} 0.0 s ago"


async def test_a_task_tells_where_it_was_made() -> None:
    census = Census()

    task = census.create_task(_give(1), name="give", owner="test")

    assert census.entries()[0].place.startswith("tests/test_census.py:")
    assert await task == 1


def test_a_report_of_many_is_bounded() -> None:
    census = Census()
    for number in range(1_000):
        census.add(Kind.FILE, f"file {number}", owner="test")

    text = report(census.entries())

    assert text.endswith("; and 980 more")
    assert len(text) < 2_000


async def test_a_call_in_a_thread_leaves_neither_thread_nor_entry() -> None:
    census = Census()
    number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)
    number.set(7)
    seen: list[object] = []

    def work(added: int) -> int:
        seen.append((threading.current_thread().name, census.counts(), census.entries()[0].place[:21]))
        return number.get() + added

    assert await census.in_thread(work, 1, name="add up", owner="test") == 8

    assert seen == [("add up", {Kind.THREAD: 1}, "tests/test_census.py:")]
    assert "add up" not in {thread.name for thread in threading.enumerate()}
    assert census.is_empty()


async def test_what_a_call_in_a_thread_raises_reaches_who_waits() -> None:
    census = Census()

    def fail() -> None:
        raise ValueError("broken pump")

    with pytest.raises(ValueError, match="broken pump"):
        await census.in_thread(fail, name="pump", owner="test")

    assert "pump" not in {thread.name for thread in threading.enumerate()}
    assert census.is_empty()


async def test_a_call_in_a_thread_that_was_given_up_is_listed_until_it_ends() -> None:
    census = Census()
    end, ended = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        end.wait(timeout=10)
        loop.call_soon_threadsafe(ended.set)

    waiting = asyncio.create_task(census.in_thread(work, name="wait", owner="test"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=5)

    assert waiting.cancelled()
    (row,) = census.entries()
    assert (row.kind, row.name) == (Kind.THREAD, "wait")
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "wait"]
    end.set()
    await asyncio.wait_for(ended.wait(), timeout=5)
    thread.join(timeout=5)
    assert census.is_empty()


def test_every_census_that_somebody_holds_is_known() -> None:
    census = Census()

    assert census in all_censuses()
    del census
    gc.collect()
    assert all(census.is_empty() or census.entries() for census in all_censuses())


async def _give(number: int) -> int:
    return number


async def _fail(reason: str) -> NoReturn:
    raise ValueError(reason)
