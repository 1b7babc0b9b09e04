"""The governor with readings from a script: steps, events, restraint, pace, growth; and one of it in a process."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from headrace.census import Census
from headrace.clock import Clock
from headrace.errors import OptionError, UsageError
from headrace.events import EventBus
from headrace.memory.actions import Effect
from headrace.memory.governor import Governor
from headrace.memory.limits import MIB, Limit
from headrace.memory.process import governor
from headrace.memory.reading import Reader, Reading
from headrace.memory.steps import PAUSE
from headrace.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Headrace
    from headrace.events import Event
    from headrace.memory.restraint import Plea

BUDGET = 1_000 * MIB
LIMIT = Limit(BUDGET, "setting", 1, BUDGET, None, ())


class Script(Reader):
    """Readings that a test sets, one a second."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.used_mb = 100.0

    def limit(self, setting_mb: int, processes: int) -> Limit:
        del setting_mb, processes
        return LIMIT

    def read(self, limit: Limit, children: Any) -> Reading:
        del children
        used = round(self.used_mb * MIB)
        return Reading(self.now, used, used, 0, used / limit.budget_bytes, "budget", limit)


class Pool:
    """A pool that counts how often it was shrunk."""

    shrunk = 0

    def shrink(self) -> int:
        self.shrunk += 1
        return 0


class Store:
    """A store that has packed the calls of three queues."""

    prepared = 3

    def forget_prepared(self) -> None:
        self.prepared = 0


class App:
    """What the governor needs of an app."""

    def __init__(self, **settings: Any) -> None:
        self.census = Census()
        self.clock = Clock(self.census)
        self.events = EventBus(self.census)
        self.settings = Settings(**settings)
        self.pool = Pool()
        self.store = Store()
        self.heard: list[Event] = []
        self.events.subscribe("memory.*", self.heard.append)

    async def names(self) -> list[str]:
        await self.events.flush()
        return [event.name.removeprefix("memory.") for event in self.heard]

    async def close(self) -> None:
        await self.events.aclose()
        await self.clock.close()


class Worker:
    """A worker that remembers what it was told."""

    def __init__(self) -> None:
        self.concurrency = 8
        self.is_idle = self.is_calm = True
        self.told: list[object] = []

    def restrain(self, slots: int | None) -> None:
        self.told.append(slots)

    def stop_taking(self) -> None:
        self.told.append("stop")

    def resume_taking(self) -> None:
        self.told.append("resume")

    def job_processes(self) -> list[int]:
        return []

    def running_jobs(self) -> list[str]:
        return ["leak 01"]

    def arm(self, *, often: bool) -> None:
        self.armed = often


class Stage:
    """A governor, what it reads, the app that it tells, and the worker that it holds back."""

    def __init__(self) -> None:
        self.script = Script()
        self.governor = Governor(self.script)
        self.app = App()
        self.worker = Worker()

    def read(self, used_mb: float, *, times: int = 1, after: float = 1.0) -> None:
        for _ in range(times):
            self.script.now += after
            self.script.used_mb = used_mb
            self.governor.tick()


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    stage = Stage()
    stage.app.clock.start()
    stage.governor.join(stage.app)
    stage.governor.attach(stage.worker)
    # What is freed in this process is no part of the script.
    monkeypatch.setattr("headrace.memory.actions.read_usage", lambda: type("Usage", (), {"resident": 0}))
    yield stage
    stage.governor.detach(stage.worker)
    stage.governor.leave(stage.app)
    await stage.app.close()
    assert stage.app.census.is_empty()


async def test_each_step_is_told_once_and_so_is_the_recovery(stage: Stage) -> None:
    for used in (700, 810, 840, 830, 910, 905, 960, 955, 860, 820, 740, 730):
        stage.read(used, after=24.0)

    assert await stage.app.names() == ["elevated", "high", "critical", "recovered"]
    critical = stage.app.heard[2]
    assert critical.fields["used_mb"] == 960
    assert critical.fields["limit"] == "1,000 MB (setting)"


async def test_fewer_slots_are_used_down_to_one_and_all_of_them_again_below(stage: Stage) -> None:
    stage.read(910, times=5)
    stage.read(700, times=5)

    assert stage.worker.told == [4, 2, 1, 2, 4, None]
    assert stage.governor.status().workers[0].allowed == 8


async def test_without_anybody_who_starts_another_process_critical_keeps_one_slot(stage: Stage) -> None:
    stage.read(970, times=3)

    assert stage.worker.told == [1]
    assert stage.governor.status().replacements_asked == 0


async def test_critical_stops_taking_and_asks_for_another_process_once(stage: Stage) -> None:
    pleas: list[Plea] = []
    stage.governor.claim(processes=1, replace=pleas.append)
    stage.read(100)
    stage.read(970, times=5)

    assert stage.worker.told[-1] == "stop"
    (plea,) = pleas
    assert (plea.step.word, plea.used_bytes, plea.jobs) == ("critical", 970 * MIB, ("leak 01",))


async def test_a_process_that_stays_high_with_one_slot_is_replaced_too(stage: Stage) -> None:
    pleas: list[Plea] = []
    stage.governor.claim(processes=1, replace=pleas.append)
    stage.read(910, times=25)
    early = list(pleas)

    stage.read(910, times=15)

    assert early == []
    assert [plea.step.word for plea in pleas] == ["high"]
    assert stage.worker.told[-1] == "stop"


async def test_a_process_that_was_not_replaced_takes_jobs_again(stage: Stage) -> None:
    stage.governor.claim(processes=1, replace=lambda _: None)
    stage.read(970, times=2)
    stage.read(970, after=100.0)

    assert stage.worker.told[-1] == "resume"
    assert stage.governor.status().workers[0].allowed == 1


async def test_a_process_that_needs_as_much_from_its_start_is_not_replaced(stage: Stage) -> None:
    pleas: list[Plea] = []
    stage.governor.detach(stage.worker)
    stage.script.used_mb = 940
    stage.governor.attach(stage.worker)
    stage.governor.claim(processes=1, replace=pleas.append)

    stage.read(970, times=3)

    assert pleas == []
    assert stage.worker.told[-1] == 1


async def test_a_process_of_its_own_has_its_collector_set_and_knows_its_predecessor(stage: Stage) -> None:
    stage.governor.detach(stage.worker)
    before = gc.get_threshold()
    stage.governor.claim(processes=2, replace=None, predecessor="process 7 was killed by the kernel")

    stage.governor.attach(stage.worker)
    during = stage.governor.collector.stats()
    stage.governor.detach(stage.worker)

    assert during.tuned
    assert during.frozen > 0
    assert gc.get_threshold() == before
    assert await stage.app.names() == ["killed"]
    assert stage.governor.status().predecessor == "process 7 was killed by the kernel"


async def test_whoever_sees_the_end_is_told_of_high_and_of_its_end(stage: Stage) -> None:
    told: list[str] = []
    stage.governor.claim(processes=1, replace=None, tell=lambda plea: told.append(plea.step.word))

    for used in (820, 910, 960, 910, 820, 700):
        stage.read(used)

    assert told == ["high", "critical", "elevated"]


async def test_attempts_that_free_nothing_end_after_two_and_say_what_holds_the_memory(stage: Stage) -> None:
    for _ in range(2_000):
        stage.read(850, after=1.0)

    effects = [effect for effect in stage.governor.status().effects if effect.action == "collect"]
    assert len(effects) == 2
    assert stage.governor.status().held
    assert stage.governor.status().holders
    assert (await stage.app.names()).count("held") == 1


async def test_attempts_lie_five_minutes_apart(stage: Stage) -> None:
    stage.read(850)
    stage.read(850, after=PAUSE - 2)
    early = len(stage.governor.status().effects)
    stage.read(850, after=3.0)

    assert early == 3
    assert len(stage.governor.status().effects) == 6


async def test_what_was_freed_on_one_occasion_counts_once_and_what_was_asked_for_not_at_all(stage: Stage) -> None:
    times = [("high", 100.0), ("high", 100.3), ("asked", 200.0), ("high", 500.0)]
    effects = tuple(Effect("collect", reason, at, 0, 0.0, "") for reason, at in times)

    status = dataclasses.replace(stage.governor.status(), effects=effects)

    assert status.optimizations == [100.0, 500.0]


async def test_a_busy_worker_is_let_finish_its_batch_before_anything_is_collected(stage: Stage) -> None:
    stage.worker.is_calm = stage.worker.is_idle = False
    stage.read(850)
    waiting = stage.governor.wants_calm, len(stage.governor.status().effects)

    stage.governor.calm()

    assert waiting == (True, 0)
    assert len(stage.governor.status().effects) == 3
    assert not stage.governor.wants_calm


async def test_rapid_growth_is_told_once(stage: Stage) -> None:
    for used in range(100, 400, 10):
        stage.read(used)

    assert await stage.app.names() == ["rapid_growth"]
    assert stage.app.heard[0].fields["bytes_per_second"] == 10 * MIB
    assert stage.worker.armed


async def test_lasting_growth_is_a_suspected_leak_that_names_the_tasks(stage: Stage) -> None:
    for _ in range(5):
        stage.governor.leaks.add("leak", growth_bytes=50_000, growth_blocks=9, footprint_bytes=50_000, together=1)
        stage.governor.leaks.add("steady", growth_bytes=0, growth_blocks=0, footprint_bytes=90_000, together=1)

    for number in range(120):
        stage.read(100 + number + (200 if number % 3 else 0), after=5.0)

    assert await stage.app.names() == ["leak_suspected"]
    (leak,) = stage.app.heard
    assert leak.fields["tasks"] == ("leak",)
    assert 0.15 * MIB < leak.fields["bytes_per_second"] < 0.25 * MIB
    assert stage.governor.status().leak_suspected


async def test_memory_that_comes_and_goes_is_no_leak(stage: Stage) -> None:
    for number in range(300):
        stage.read(300 + 250 * (number % 7), after=5.0)

    assert "leak_suspected" not in await stage.app.names()


async def test_it_reads_sooner_while_memory_grows_towards_the_limit(stage: Stage) -> None:
    stage.read(100)
    calm = stage.app.clock.stats()[1].due_in
    stage.read(500)
    soon = stage.app.clock.stats()[1].due_in

    assert calm is None
    assert soon is not None
    assert soon < 1.0


async def test_registered_caches_are_released_and_a_broken_one_harms_none(stage: Stage) -> None:
    cache = {"a": bytes(1_000)}

    def fail() -> None:
        raise OSError("no")

    broken = stage.governor.register_cache("broken", fail)
    good = stage.governor.register_cache("good", cache.clear, size=lambda: 1_000 * len(cache), limit_bytes=5_000)
    sizes = [(one.name, one.size_bytes, one.limit_bytes) for one in stage.governor.status().buffers[-2:]]

    done = await stage.governor.optimize()

    assert sizes == [("broken", None, None), ("good", 1_000, 5_000)]
    assert cache == {}
    assert done.effects[0].detail == "3 released; broken: OSError: no"
    assert stage.app.pool.shrunk == 1
    broken.close()
    good.close()
    names = [buffer.name for buffer in stage.governor.status().buffers]
    assert names[4:] == [
        "idle connections",
        "figures of the pool and of health",
        "events that wait for subscribers",
        "packed calls of queues",
        "who gets which events",
    ]


async def test_what_headrace_holds_says_its_bytes_and_stays_below_its_bounds_for_a_day(stage: Stage) -> None:
    for number in range(24 * 120):
        stage.read(300 + number % 9, after=30.0)

    buffers = {buffer.name: buffer for buffer in stage.governor.status().buffers}
    idle = buffers.pop("idle connections")
    assert idle.can_release
    assert len(buffers) == 8
    for buffer in buffers.values():
        assert buffer.size_bytes is not None
        assert buffer.limit_bytes is not None
        assert buffer.size_bytes <= buffer.limit_bytes


async def test_an_aggressive_optimization_says_what_holds_the_rest(stage: Stage) -> None:
    done = await stage.governor.optimize(aggressive=True)

    assert [effect.action for effect in done.effects][-2:] == ["collect, also what was frozen", "return to the system"]
    assert done.holders
    assert done.seconds >= sum(effect.seconds for effect in done.effects)


async def test_a_trace_names_the_lines_that_keep_memory_and_what_it_cost(stage: Stage) -> None:
    kept: list[bytes] = []
    tracing = asyncio.ensure_future(stage.governor.trace(0.2))
    await asyncio.sleep(0)
    assert tracemalloc.is_tracing()
    kept.extend(bytes(10_000) for _ in range(100))

    trace = await tracing

    assert "test_governor.py" in trace.lines[0].place
    assert trace.lines[0].size_bytes >= 1_000_000
    assert trace.overhead_bytes > 0
    assert not tracemalloc.is_tracing()


async def test_a_second_trace_is_refused(stage: Stage) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="runs already"):
            await stage.governor.trace(0.1)
    finally:
        tracemalloc.stop()


async def test_a_malformed_cache_is_refused(stage: Stage) -> None:
    with pytest.raises(OptionError, match="expected a name, a function that empties it"):
        stage.governor.register_cache("", lambda: None)


async def test_when_it_is_switched_off_nothing_is_done(stage: Stage) -> None:
    stage.app.settings = Settings(memory_enabled=False)

    stage.read(990, times=10)

    assert await stage.app.names() == []
    assert stage.worker.told == []


async def test_a_changed_interval_counts_from_the_next_reading(stage: Stage) -> None:
    stage.app.settings = Settings(memory_interval=0.5)

    stage.read(100)

    assert [duty.interval for duty in stage.app.clock.stats() if duty.name == "read memory"] == [0.5]


async def test_the_next_app_takes_over_when_the_first_closes(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    second = App(memory_threshold=70)
    second.clock.start()
    with caplog.at_level(logging.WARNING):
        stage.governor.join(second)
    before = second.clock.stats()

    stage.governor.leave(stage.app)
    stage.read(750)

    assert "settings of the app that opened first are in force" in caplog.text
    assert before == []
    assert [duty.name for duty in second.clock.stats()] == ["read memory", "read memory sooner"]
    assert await second.names() == ["elevated"]
    stage.governor.leave(second)
    await second.close()


async def test_all_apps_of_a_process_share_one(make_app: Callable[..., Headrace]) -> None:
    one, other = make_app(), make_app()
    async with one, other:
        assert one.memory is other.memory is governor()
        status = one.memory.status()

        assert status.enabled
        assert status.step == "normal"
        assert status.used_bytes > 20 * MIB
        assert status.limit.source in {"default", "setting", "cgroup v1", "cgroup v2", "RLIMIT_AS", "physical"}
        duties = [duty.name for app in (one, other) for duty in app.clock.stats() if duty.owner == "memory"]
        assert duties == ["read memory", "read memory sooner"]
    with pytest.raises(UsageError, match="not open"):
        _ = one.memory
