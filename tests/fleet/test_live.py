"""An open app has the settings of the fleet: told by a push, caught up after a break, and its own when it closes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from headrace.clock import Clock
from headrace.errors import CommandRefused, ConnectionLost, OptionError, SettingError
from headrace.record import encode_value
from headrace.resp import pack_command
from headrace.settings_fleet import encode_version
from headrace.store.versions import Versions
from tests.live import DEADLINE, opened, sibling, until, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from headrace import Headrace, Job
    from headrace.events import Event
    from headrace.server import PrivateServer
    from headrace.settings import Settings
    from tests.support.proxy import FaultProxy
    from tests.support.raw import Raw
    from tests.support.stalls import Stalls


async def store(app: Headrace, **values: str) -> int:
    """Store settings of the fleet, all of them."""
    return (await app.fleet.store(values, base=await app.fleet.read(), author="test")).number


async def has(app: Headrace, version: int) -> None:
    """Wait until an app has taken a version."""

    async def taken() -> bool:
        return app.taken.version == version

    await until(taken, f"version {version} is taken")


async def test_an_app_that_opens_has_the_settings_of_the_fleet_and_its_own_when_it_closes(
    make_app: Callable[..., Headrace],
) -> None:
    first, second = make_app(), make_app(max_stalled=9)
    async with opened(first):
        await store(first, QUEUE_CONCURRENCY="7", HEADRACE_THREADS="5", HEADRACE_MAX_STALLED="1")
        async with opened(second):
            found = second.settings

    assert (found.queue_concurrency, found.threads, found.max_stalled) == (7, 5, 9)
    assert found.sources["queue_concurrency"] == "fleet"
    assert (second.settings.queue_concurrency, second.settings.threads) == (100, 32)


async def test_a_change_is_told_to_a_subscriber_and_in_one_line_of_the_log(
    make_app: Callable[..., Headrace], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    events: list[Event] = []
    app.subscribe("settings.changed", events.append)
    with caplog.at_level(logging.INFO, logger="headrace.fleet"):
        async with opened(app):
            await store(app, QUEUE_CONCURRENCY="7", HEADRACE_THREADS="5")
            await has(app, 1)
            await app.events.flush()

    (event,) = events
    assert (event.fields["version"], event.fields["changed"]) == (1, ("QUEUE_CONCURRENCY 100 -> 7",))
    (line,) = [record for record in caplog.records if record.getMessage() == "settings taken"]
    assert vars(line)["restart"] == "HEADRACE_THREADS"
    assert vars(line)["author"] == "test"


async def test_a_change_that_was_made_during_a_break_is_taken_after_it(
    make_app: Callable[..., Headrace], proxy: FaultProxy
) -> None:
    app, other = make_app(proxy.url), make_app()
    async with opened(app), opened(other):
        cut = proxy.arm(lambda request: b"cut here" in request, before=True, hold=True)
        with pytest.raises(ConnectionLost):
            await app.control.roundtrip(pack_command("PING", "cut here"), 1, timeout=5.0)
        await cut.strikes()

        version = await store(other, QUEUE_CONCURRENCY="7")
        await asyncio.sleep(0.05)
        missed = app.taken.version
        proxy.refusing = False
        await has(app, version)

    assert missed == 0


async def test_a_fleet_that_was_wiped_gives_every_app_its_own_settings_again(
    make_app: Callable[..., Headrace], proxy: FaultProxy, raw: Raw, prefix: str
) -> None:
    app, other = make_app(proxy.url), make_app()
    async with opened(app), opened(other):
        await store(other, QUEUE_CONCURRENCY="7")
        await has(app, 1)
        raw("DEL", f"{prefix}:settings")
        proxy.arm(lambda request: b"cut here" in request, before=True)
        with pytest.raises(ConnectionLost):
            await app.control.roundtrip(pack_command("PING", "cut here"), 1, timeout=5.0)
        await has(app, 0)
        found = app.settings.queue_concurrency

    assert found == 100


@pytest.mark.parametrize("stored", [b"nonsense", b"1 " + encode_version({"QUEUE_CONCURRENCY": "0"}, "x", "")])
async def test_an_app_opens_on_its_own_settings_when_those_of_the_fleet_are_bad(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str, stored: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    raw("HSET", f"{prefix}:settings", "last", "1", "1", stored)
    app = make_app()

    async with opened(app):
        found = (app.settings.queue_concurrency, app.taken.version)
        line = next(record for record in caplog.records if "refused" in record.getMessage())

    assert found == (100, 0)
    assert line.levelno == logging.ERROR


async def test_an_app_that_opened_on_bad_settings_takes_the_next_good_ones(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str
) -> None:
    bad = encode_version({"HEADRACE_GRACE": "-7"}, "x", "")
    raw("HSET", f"{prefix}:settings", "last", "1", "1", b"1 " + bad)
    app = make_app()

    async with opened(app):
        refused = app.taken.refused
        await store(app, QUEUE_CONCURRENCY="7")
        await has(app, 2)
        found = (app.settings.queue_concurrency, app.taken.refused)

    assert refused == 1
    assert found == (7, 0)

    # Red when: settings that wait for a restart are kept of a version that was refused.


async def test_a_setting_of_a_newer_version_is_named_and_the_rest_is_taken(
    make_app: Callable[..., Headrace], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    async with opened(app):
        newer = encode_version({"HEADRACE_NEWER": "1", "QUEUE_CONCURRENCY": "7"}, "x", "")
        await Versions(app.store).write(app.control, 0, newer)
        await has(app, 1)
        found = app.settings.queue_concurrency

    assert found == 7
    line = next(record for record in caplog.records if "newer version" in record.getMessage())
    assert vars(line)["settings"] == "HEADRACE_NEWER"


async def test_a_part_that_fails_to_take_a_change_does_not_keep_the_others_from_it(
    make_app: Callable[..., Headrace], caplog: pytest.LogCaptureFixture
) -> None:
    class Part:
        def __init__(self, error: Exception | None) -> None:
            self.error = error
            self.seen: list[int] = []

        async def retune(self, _before: Settings, after: Settings) -> list[str]:
            if self.error is not None:
                raise self.error
            self.seen.append(after.queue_concurrency)
            return []

        async def announce(self) -> None:
            pass

        def figures(self) -> Mapping[str, int] | None:
            return None

    app, broken, sound = make_app(), Part(ValueError("broken")), Part(None)
    async with opened(app):
        app.follow(broken)
        app.follow(sound)
        await store(app, QUEUE_CONCURRENCY="7")
        await has(app, 1)
        app.unfollow(sound)
        await store(app, QUEUE_CONCURRENCY="8")
        await has(app, 2)

    assert sound.seen == [7]
    assert "settings could not be taken by a part" in caplog.text


async def test_many_changes_at_once_end_with_the_latest(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    other = sibling(app)
    async with opened(app), opened(other):
        for number in range(1, 31):
            await store(other, QUEUE_CONCURRENCY=str(number))
        await has(app, 30)
        found = app.settings.queue_concurrency

    assert found == 30


async def test_the_pool_is_resized_live(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with opened(app):
        await store(app, REDIS_MAX_CONNECTIONS="12", REDIS_MIN_CONNECTIONS="3", REDIS_ACQUIRE_TIMEOUT_MS="500")
        await has(app, 1)
        lowered = app.pool.stats().maximum
        await store(app)
        await has(app, 2)
        raised = app.pool.stats().maximum

    assert (lowered, raised) == (12, 100)


async def test_whoever_asks_gets_the_figures_of_every_process(make_app: Callable[..., Headrace]) -> None:
    app, other = make_app(), make_app()
    async with opened(app), opened(other), working(other, ["default"], 6):
        answers = await app.fleet.ask()
        with pytest.raises(OptionError, match="wait="):
            await app.fleet.ask(wait=60.0)

    found = {answer.app: answer for answer in answers}
    assert found.keys() == {app.id, other.id}
    assert (found[app.id].workers, found[other.id].workers, found[other.id].concurrency) == (0, 1, 6)


async def test_an_open_app_does_nothing_for_its_settings_while_nothing_changes(
    make_app: Callable[..., Headrace], monkeypatch: pytest.MonkeyPatch
) -> None:
    duties: list[str] = []
    every = Clock.every

    def noted(self: Clock, name: str, *arguments: Any, **options: Any) -> Any:
        duties.append(f"{options['owner']}: {name}")
        return every(self, name, *arguments, **options)

    monkeypatch.setattr(Clock, "every", noted)
    app = make_app()
    async with opened(app):
        timers = [row for row in app.census() if row.owner == "settings"]

    assert timers == []
    assert not [duty for duty in duties if duty.startswith("settings")]


# Going back


async def test_going_back_again_and_again_leads_to_no_settings_at_all(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with opened(app):
        for concurrency in ("5", "6", "7"):
            await store(app, QUEUE_CONCURRENCY=concurrency)
        values = []
        for _ in range(3):
            version = await app.fleet.roll_back(base=await app.fleet.read(), author="ann")
            values.append((version.number, dict(version.values), version.note))

    assert values == [
        (4, {"QUEUE_CONCURRENCY": "6"}, "back to version 2"),
        (5, {"QUEUE_CONCURRENCY": "5"}, "back to version 1"),
        (6, {}, "back to version 0"),
    ]


async def test_a_change_after_going_back_is_undone_by_going_back_once(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with opened(app):
        await store(app, QUEUE_CONCURRENCY="5")
        await store(app, QUEUE_CONCURRENCY="6")
        await app.fleet.roll_back(base=await app.fleet.read())
        base = await app.fleet.read()
        await app.fleet.change({"HEADRACE_THREADS": "4", "QUEUE_CONCURRENCY": None}, base=base, place="the test")
        back = await app.fleet.roll_back(base=await app.fleet.read())
        there = await app.fleet.roll_back(4, base=await app.fleet.read())

    assert dict(back.values) == {"QUEUE_CONCURRENCY": "5"}
    assert dict(there.values) == {"HEADRACE_THREADS": "4"}


async def test_there_is_nothing_to_go_back_from_before_the_first_version(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with opened(app):
        with pytest.raises(SettingError, match="the fleet has never stored settings"):
            await app.fleet.roll_back(base=await app.fleet.read())
        with pytest.raises(SettingError, match=r"version 4 .* is not there: none was ever stored"):
            await app.fleet.roll_back(4, base=await app.fleet.read())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"QUEUE_CONCURENCY": "5"}, r"QUEUE_CONCURENCY: no such setting\. Did you mean QUEUE_CONCURRENCY\?"),
        ({"REDIS_URL": "redis://h"}, "REDIS_URL: a setting of each process, which the fleet cannot store"),
        ({"QUEUE_CONCURRENCY": "0"}, "QUEUE_CONCURRENCY='0': expected a whole number from 1 to 10000"),
        ({"REDIS_MIN_CONNECTIONS": "101"}, "REDIS_MIN_CONNECTIONS=101: expected at most REDIS_MAX_CONNECTIONS=100"),
    ],
)
async def test_a_bad_setting_is_refused_before_it_is_stored(
    make_app: Callable[..., Headrace], values: dict[str, str], text: str
) -> None:
    app = make_app()
    async with opened(app):
        with pytest.raises(SettingError, match=text):
            await app.fleet.store(values, base=await app.fleet.read())
        latest = await app.fleet.read()

    assert latest.number == 0


async def test_a_wait_for_workers_ends_when_one_does_not_answer(
    make_app: Callable[..., Headrace], raw: Raw, stalls: Stalls
) -> None:
    app = make_app()
    async with opened(app), working(app, ["default"], 4) as worker:
        frozen = app.taken
        # A worker that was killed stays in the registry for a while.
        await asyncio.wait_for(_register_gone(app, raw), DEADLINE)
        version = await store(app, QUEUE_CONCURRENCY="7")
        reach = await app.fleet.wait_until_taken(version, timeout=0.3)

    assert frozen.version == 0
    assert set(reach.taken) == {worker.id}
    assert set(reach.missing) == {"gone"}
    assert 0.3 <= reach.seconds < 2.0 + stalls.seconds


async def _register_gone(app: Headrace, raw: Raw) -> None:
    (facts,) = (await app.fleet.workers()).values()
    raw("HSET", f"{app.settings.prefix}:workers", "gone", encode_value(facts))


async def test_thresholds_and_intervals_of_every_part_are_taken(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="mail")
    async def mail(text: str) -> None: ...

    async with opened(app):
        await mail.enqueue("x" * 1_000)
        await store(
            app, HEADRACE_COMPRESS_OVER_BYTES="256", MONITORING_HEALTH_INTERVAL_MS="2000",
            HEADRACE_HEALTH_LATENCY_MS="7", HEADRACE_LOOP_LAG_WARN_MS="70", REDIS_ACQUIRE_TIMEOUT_MS="700",
        )  # fmt: skip
        await has(app, 1)
        first, second = [await job_size(app, await mail.enqueue("x" * 1_000)) for _ in range(2)]
        monitor, session = app._open_session.monitor, app._open_session
        found = (monitor._interval, monitor._threshold, monitor._watch._threshold, session.sender.timeout)
        due = monitor._alarm.when
        soon = asyncio.get_running_loop().time() + 2.0
        await app.queue("default").clear("waiting")

    assert found == (2.0, 0.007, 0.07, 0.7)
    assert due is not None
    assert due <= soon + 0.1
    assert max(first, second) < 500


async def job_size(app: Headrace, job: Job[Any]) -> int:
    """Return how many bytes the record of a job takes."""
    key = app.store.queue("default").keys["jobs"]
    (size,) = await app.control.roundtrip(pack_command("HSTRLEN", key, job.id), 1)
    return int(size)


async def test_a_change_while_a_worker_starts_is_not_missed(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.lifespan
    async def slow() -> AsyncIterator[dict[str, Any]]:
        entered.set()
        await go_on.wait()
        yield {}

    async with opened(app):
        worker = app.worker(["default"])
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(entered.wait(), DEADLINE)
        await store(app, QUEUE_CONCURRENCY="7")
        await has(app, 1)
        go_on.set()
        await asyncio.wait_for(worker.signals.started.wait(), DEADLINE)
        assert worker._parts is not None
        found = (worker.concurrency, worker._parts.slots.concurrency)
        worker.stop()
        await asyncio.wait_for(running, DEADLINE)

    assert found == (7, 7)


async def test_an_app_whose_user_may_use_no_channels_works_without_hearing_of_changes(
    make_app: Callable[..., Headrace], server: PrivateServer, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    raw("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "resetchannels")
    app, other = make_app(server.url.replace("unix://", "unix://narrow:pw@")), make_app()

    @app.task(name="mail")
    async def mail() -> None: ...

    try:
        async with opened(other):
            await store(other, QUEUE_CONCURRENCY="7")
        async with opened(app):
            found = (app.settings.queue_concurrency, app.taken.version)
            await mail.enqueue()
            await app.queue("default").clear("waiting")
            calls: list[Awaitable[Any]] = [app.control.roundtrip(pack_command("ECHO", n), 1) for n in range(40)]
            # In the middle, so that replies to others come right before and behind its own.
            calls.insert(20, app.listen(["elsewhere"], lambda *_: None))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            error = answers.pop(20)
    finally:
        raw("ACL", "DELUSER", "narrow")

    assert found == (7, 1)
    assert "changes of the fleet's settings are not heard" in caplog.text
    assert isinstance(error, CommandRefused)
    assert "the channels below the prefix" in str(error)
    assert answers == [[str(number).encode()] for number in range(40)]
