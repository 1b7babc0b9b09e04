"""Settings on trial: they stay when no figure gets worse, and are taken back by themselves if one does."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from headrace.errors import OptionError, PoolTimeout, SettingsConflict
from headrace.fleet import trial as module
from headrace.fleet.trial import FIGURES, IN_A_ROW, Trial, Window, find_limits, judge
from tests.live import DEADLINE, opened, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from headrace import Headrace
    from headrace.settings_fleet import Version
    from tests.apps.journal import JournalApp
    from tests.support.crew import Crew

CALM = Window(1.0, 100.0, 100, 0.0, 5, 20.0, 0, 2)


def window(**changes: Any) -> Window:
    values = {name: getattr(CALM, name) for name in Window.__slots__}
    return Window(**{**values, **changes})


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("figure", "bad"),
    [
        ("throughput", window(throughput=60.0, waiting=40)),
        ("errors", window(errors=0.06)),
        ("latency", window(latency=1_050.0)),
        ("pool", window(pool=6)),
        ("workers", window(workers=1)),
    ],
)
def test_a_figure_that_stays_beyond_its_limit_is_found(figure: str, bad: Window) -> None:
    found = judge([CALM, CALM], [CALM, *[bad] * IN_A_ROW])

    assert [worse.figure for worse in found] == [figure]
    assert judge([CALM], [*[bad] * (IN_A_ROW - 1)]) == []
    assert judge([CALM], [bad, bad, CALM, bad, bad]) == []
    others = [other for other in FIGURES if other != figure]
    assert judge([CALM], [bad] * IN_A_ROW, others) == []


def test_fewer_jobs_to_do_are_no_fault_of_the_settings() -> None:
    assert judge([CALM], [window(throughput=0.0, attempts=0, waiting=0)] * IN_A_ROW) == []


def test_a_few_failures_among_few_attempts_say_nothing() -> None:
    assert judge([CALM], [window(throughput=100.0, attempts=4, errors=1.0)] * IN_A_ROW) == []


def test_a_fleet_that_did_nothing_before_has_no_throughput_to_lose() -> None:
    assert "throughput" not in find_limits([window(throughput=0.0, attempts=0)])


windows = st.builds(
    Window, st.just(1.0), st.floats(0, 1e6), st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 10**6),
    st.floats(0, 1e6), st.integers(0, 10**4), st.integers(0, 100),
)  # fmt: skip


@settings(max_examples=50)
@given(st.lists(windows, min_size=1, max_size=10))
def test_what_is_no_worse_than_the_worst_window_before_is_not_worse(before: list[Window]) -> None:
    worst = Window(
        1.0, max(each.throughput for each in before), 10**6, 0.0, 1,
        max(each.latency for each in before), max(each.pool for each in before), max(each.workers for each in before),
    )  # fmt: skip

    assert judge(before, [worst] * IN_A_ROW) == []


@pytest.mark.parametrize(
    "options", [{"watched": ["speed"]}, {"watched": []}, {"before": 0.0}, {"after": 1e9}, {"every": 61}]
)
def test_a_trial_that_cannot_be_is_refused(make_app: Callable[..., Headrace], options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="expected"):
        Trial(make_app(), **options)


@contextlib.asynccontextmanager
async def load(app: JournalApp, pace: float) -> AsyncIterator[list[int]]:
    """Enqueue jobs of 100 ms at a steady pace beside the block."""
    sent: list[int] = []
    over = asyncio.Event()

    async def send() -> None:
        while not over.is_set():
            numbers = list(range(len(sent), len(sent) + round(pace / 20)))
            await app.step.enqueue_many([((number, 0.1),) for number in numbers])
            sent.extend(numbers)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(send())
    try:
        yield sent
    finally:
        # A cancelled call may have been sent: jobs would run that are not among those counted.
        over.set()
        await task


async def headrace(*words: str, url: str, prefix: str) -> tuple[int, str, str]:
    """Run the command in a process of its own; returns its code and what it printed."""
    environment = {**os.environ, "HEADRACE_PREFIX": prefix, "REDIS_URL": url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", *words, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.slow
async def test_settings_that_starve_the_workers_are_taken_back_by_themselves(crew: Crew, tmp_path: Path) -> None:
    starving = tmp_path / "starving.env"
    starving.write_text("QUEUE_CONCURRENCY=1\n")
    async with crew.app() as app:
        await app.fleet.store({"QUEUE_CONCURRENCY": "20"}, base=await app.fleet.read())
        workers = [await crew.worker(concurrency=None) for _ in range(2)]
        async with load(app, 150.0) as sent:
            await crew.journal.until("end", 50)

            code, out, err = await headrace(
                "config", "apply", str(starving), "--verify", "--before", "1.5", "--for", "20", "--every", "0.5",
                "--watch", "throughput",
                url=crew.url, prefix=crew.prefix,
            )  # fmt: skip

            for worker in workers:
                await worker.says.until("log", message="settings taken", version="3")
        await crew.journal.until("end", len(sent))
        latest = await app.fleet.read()
        facts = await app.fleet.workers()
        await crew.settled()

    assert code == 1
    assert "worse: throughput was " in out
    assert "taken by 2 of 2 workers" in out
    assert "version 2 was taken back: version 3 is what version 1 was" in err
    assert (dict(latest.values), latest.restores) == ({"QUEUE_CONCURRENCY": "20"}, 1)
    assert latest.note.startswith("version 2 was taken back: throughput was ")
    assert {each.concurrency for each in facts.values()} == {20}
    assert sorted(entry["number"] for entry in crew.journal("end")) == sent


async def test_settings_that_do_no_harm_stay(crew: Crew) -> None:
    async with crew.app() as app:
        await app.fleet.store({"QUEUE_CONCURRENCY": "10"}, base=await app.fleet.read())
        await crew.worker(concurrency=None)
        async with load(app, 100.0):
            await crew.journal.until("end", 20)
            trial = Trial(app, before=1.0, after=3.0, every=1.0)
            outcome = await trial.run({"QUEUE_CONCURRENCY": "20"}, base=await app.fleet.read(), source="the test")
        latest = await app.fleet.read()
        await crew.settled()

    assert (outcome.worse, outcome.restored) == ([], None)
    assert dict(latest.values) == {"QUEUE_CONCURRENCY": "20"}
    # On a machine that is busy a worker may answer late once.
    assert max(window.workers for window in outcome.before + outcome.after) == 1


async def test_a_trial_that_is_broken_off_takes_its_settings_back(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with opened(app):
        watched = asyncio.Event()

        def told(after: bool, _: Window) -> None:  # noqa: FBT001 - the callback of a trial
            if after:
                watched.set()

        trial = Trial(app, before=0.1, after=60.0, every=0.1, told=told)
        running = asyncio.create_task(trial.run({"QUEUE_CONCURRENCY": "5"}, base=await app.fleet.read(), source="x"))
        await asyncio.wait_for(watched.wait(), DEADLINE)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        latest = await app.fleet.read()

    assert (latest.number, dict(latest.values)) == (2, {})
    assert latest.note == "version 1 was taken back: the watch was ended"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_command_that_is_ended_in_its_trial_takes_the_settings_back_and_says_so(
    make_app: Callable[..., Headrace], prefix: str, tmp_path: Path, number: signal.Signals
) -> None:
    app = make_app()
    file = tmp_path / "fleet.env"
    file.write_text("QUEUE_CONCURRENCY=5\n")
    environment = {**os.environ, "HEADRACE_PREFIX": prefix, "REDIS_URL": app.settings.redis_url or ""}

    async def tried() -> bool:
        return app.taken.version == 1

    async with opened(app):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace", "config", "apply", str(file), "--verify", "--before", "0.1",
            env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await until(tried, "version 1 is taken")
        process.send_signal(number)
        _, err = await asyncio.wait_for(process.communicate(), DEADLINE)
        latest = await app.fleet.read()

    assert process.returncode == 128 + number
    assert (latest.number, dict(latest.values)) == (2, {})
    assert err.decode().strip() == (
        "the watch was ended: version 1 was taken back, version 2 is what version 0 was. Nothing of it counts any more."
    )


async def test_a_trial_that_is_broken_off_while_it_stores_takes_its_settings_back(
    make_app: Callable[..., Headrace],
) -> None:
    app = make_app()
    async with opened(app):
        trial = Trial(app, before=0.1, after=60.0, every=0.1)
        base = await app.fleet.read()
        store = app.fleet.store

        async def store_and_cancel(*arguments: Any, **options: Any) -> Version:
            version = await store(*arguments, **options)
            if version.number == 1:
                running.cancel()
                await asyncio.sleep(0)
            return version

        app.fleet.store = store_and_cancel  # type: ignore[method-assign]  # the moment that the test is about
        running = asyncio.create_task(trial.run({"QUEUE_CONCURRENCY": "5"}, base=base, source="x"))
        with pytest.raises(asyncio.CancelledError):
            await running
        latest = await app.fleet.read()

    assert (latest.number, dict(latest.values)) == (2, {})
    assert trial.restored is not None

    # Red when: a cancellation that comes while the answer of the server is under way leaves the settings behind.


async def test_what_somebody_else_stored_during_a_trial_is_left_alone(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with opened(app):
        stored = False

        def told(after: bool, _: Window) -> None:  # noqa: FBT001 - the callback of a trial
            nonlocal stored
            if after and not stored:
                stored = True
                others.append(asyncio.ensure_future(other()))

        async def other() -> None:
            await app.fleet.store({"QUEUE_CONCURRENCY": "7"}, base=await app.fleet.read(), author="bob")
            running.cancel()

        others: list[asyncio.Future[None]] = []
        trial = Trial(app, before=0.1, after=60.0, every=0.1, told=told)
        running = asyncio.create_task(trial.run({"QUEUE_CONCURRENCY": "5"}, base=await app.fleet.read(), source="x"))
        with pytest.raises(SettingsConflict, match="written by bob"):
            await asyncio.wait_for(running, DEADLINE)
        latest = await app.fleet.read()
        await others[0]

    assert dict(latest.values) == {"QUEUE_CONCURRENCY": "7"}


async def test_the_evidence_is_there_as_json(make_app: Callable[..., Headrace], prefix: str, tmp_path: Path) -> None:
    app = make_app()
    (tmp_path / "fleet.env").write_text("QUEUE_CONCURRENCY=5\n")
    code, out, err = await headrace(
        "config", "apply", str(tmp_path / "fleet.env"), "--verify", "--before", "0.1", "--for", "0.3", "--every", "0.1",
        "--watch", "errors,latency", "--json", url=app.settings.redis_url or "", prefix=prefix,
    )  # fmt: skip

    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["kept"], found["tried"], len(found["before"]), len(found["after"])) == (True, 1, 1, 3)


async def test_a_maximum_that_starves_the_pool_is_taken_back_by_itself(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with opened(app):
        client, working = Redis(connection_pool=app.pool), True

        async def use() -> None:
            # Why a flag: on Python 3.11 asyncio.wait_for, which redis-py sends by, may swallow a cancellation.
            while working:
                with contextlib.suppress(PoolTimeout, RedisConnectionError):
                    await client.blpop("nothing", timeout=0.05)
                await asyncio.sleep(0)

        users = [asyncio.create_task(use()) for _ in range(40)]
        try:

            async def served() -> bool:
                return app.pool.stats().lanes["user"].active >= 35

            await until(served, "all have their connection")
            trial = Trial(app, before=0.6, after=5.0, every=0.2)
            base = await app.fleet.read()
            outcome = await trial.run({"REDIS_MAX_CONNECTIONS": "8"}, base=base, source="the test")
        finally:
            working = False
            await asyncio.gather(*users)
        latest = await app.fleet.read()
        await app.fleet.wait_until_taken(latest.number)

        async def restored() -> bool:
            return app.pool.stats().maximum == 100

        await until(restored, "the pool has its maximum again")

    assert [worse.figure for worse in outcome.worse] == ["pool"]
    assert outcome.before[-1].pool < 5
    assert min(outcome.worse[0].after) > 20
    assert dict(latest.values) == {}
    assert "pool was " in latest.note
