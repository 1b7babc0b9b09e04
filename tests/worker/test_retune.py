"""A worker takes changed settings while jobs run: whatever the order of changes, every job runs once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.memory.restraint import Restraint
from headrace.memory.steps import Step
from headrace.resp import pack_command
from tests.live import DEADLINE, Gate, fresh_app, opened, until, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace
    from headrace.server import PrivateServer
    from headrace.worker.worker import Worker

#: Slots, a limit of one queue or none, and a pause in ms.
steps = st.lists(
    st.tuples(st.integers(1, 12), st.one_of(st.none(), st.integers(1, 6)), st.integers(0, 4)), min_size=1, max_size=8
)


async def retune(worker: Worker, **changes: Any) -> list[str]:
    """Hand a running worker other settings, as the app does."""
    host = worker._host
    before = host.settings
    host.settings = before.override(changes)
    assert worker._parts is not None
    kept: list[str] = await worker._parts.retuning.retune(before, host.settings)
    return kept


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_any_changes_of_slots_and_limits_leave_every_job_run_once(
    server: PrivateServer, changes: list[tuple[int, int | None, int]]
) -> None:
    app = fresh_app(server.url)
    ran: Counter[str] = Counter()

    @app.task(queue="one", name="nap")
    async def nap(name: str) -> None:
        await asyncio.sleep(0.002)
        ran[name] += 1

    @app.task(queue="two", name="flash")
    async def flash(name: str) -> None:
        ran[name] += 1

    async def run() -> None:
        async with opened(app), working(app, ["one", "two"], None) as worker:  # type: ignore[arg-type]  # as the settings say
            await nap.enqueue_many([((f"nap {number}",), {}) for number in range(40)])
            await flash.enqueue_many([((f"flash {number}",), {}) for number in range(40)])
            for slots, limit, pause in changes:
                await retune(worker, queue_concurrency=slots, queue_limits={"one": limit} if limit else {})
                await asyncio.sleep(pause / 1000)
            for queue in ("one", "two"):
                await app.queue(queue).drain(timeout=DEADLINE)

    asyncio.run(run())

    assert ran == Counter([f"nap {number}" for number in range(40)] + [f"flash {number}" for number in range(40)])


async def test_jobs_of_slots_that_are_gone_go_to_another_worker(make_app: Callable[..., Headrace]) -> None:
    app, gate = make_app(queue_concurrency=10), Gate()
    app.task(name="wait")(gate.pass_through)
    other = make_app()
    other.task(name="wait")(gate.pass_through)
    async with opened(app), opened(other), working(app, None, None) as worker:  # type: ignore[arg-type]  # as the settings say
        task: Any = app.tasks.get("wait")
        await retune(worker, queue_concurrency=2)
        await task.enqueue_many([((number,), {}) for number in range(4)])

        async def two_run() -> bool:
            return len(gate.runs) == 2

        await until(two_run, "two jobs run")
        await retune(worker, queue_concurrency=1)
        async with working(other, None, 10):

            async def all_run() -> bool:
                return len(gate.runs) == 4

            await until(all_run, "the others run elsewhere")
            gate.open.set()
            await app.queue("default").drain(timeout=DEADLINE)

    assert sorted(gate.runs) == [0, 1, 2, 3]


async def test_a_lowered_limit_hands_back_what_it_does_not_let_run_and_a_raised_one_starts_more(
    make_app: Callable[..., Headrace],
) -> None:
    app, gate = make_app(queue_concurrency=10, queue_limits={"default": 1}), Gate()
    app.task(name="wait")(gate.pass_through)
    async with opened(app), working(app, None, None) as worker:  # type: ignore[arg-type]  # as the settings say
        task: Any = app.tasks.get("wait")
        await task.enqueue_many([((number,), {}) for number in range(6)])
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        at_one = len(gate.runs)
        await retune(worker, queue_limits={"default": 3})

        async def three_run() -> bool:
            return len(gate.runs) == 3

        await until(three_run, "three jobs run")
        await retune(worker, queue_limits={})

        async def six_run() -> bool:
            return len(gate.runs) == 6

        await until(six_run, "all jobs run")
        gate.open.set()
        await app.queue("default").drain(timeout=DEADLINE)

    assert at_one == 1


async def test_a_longer_lease_is_held_from_the_change_on(make_app: Callable[..., Headrace]) -> None:
    app, gate = make_app(lease=1.0), Gate()
    app.task(name="wait")(gate.pass_through)
    async with opened(app), working(app, None, 4) as worker:
        task: Any = app.tasks.get("wait")
        await task.enqueue(1)
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)

        await retune(worker, lease=60.0)
        deadline, now = await _deadline(app)
        gate.open.set()
        await app.queue("default").drain(timeout=DEADLINE)
        stats = worker.stats()

    assert 50_000 < deadline - now <= 60_000
    assert (stats.completed, stats.refused) == (1, 0)


async def _deadline(app: Headrace) -> tuple[float, float]:
    key = app.store.queue("default").keys["leases"]
    (found, time) = await app.control.roundtrip(
        pack_command("ZRANGE", key, 0, -1, "WITHSCORES") + pack_command("TIME"), 2
    )
    return float(found[0][1]), int(time[0]) * 1000 + int(time[1]) / 1000


async def test_what_the_worker_was_given_does_not_follow_the_settings(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with opened(app), working(app, {"one": 2, "two": None}, 5) as worker:  # type: ignore[arg-type]  # names with slots
        kept = await retune(worker, queue_concurrency=50, queue_limits={"one": 9, "two": 3})
        assert worker._parts is not None
        limits = {name: served.limit for name, served in worker._parts.queues.items()}

    assert worker.concurrency == 5
    assert limits == {"one": 2, "two": 3}
    assert [text.partition(" (")[0] for text in kept] == ["QUEUE_CONCURRENCY", "HEADRACE_QUEUE_LIMITS of 'one'"]


def test_a_worker_that_gets_more_slots_is_not_held_back_for_the_lack_of_memory() -> None:
    class Stub:
        concurrency = 4
        held: ClassVar[list[int | None]] = []

        def restrain(self, slots: int | None) -> None:
            self.held.append(slots)

    worker, restraint = Stub(), Restraint()
    restraint.attach(worker)  # type: ignore[arg-type]  # as much of a worker as this asks for

    worker.concurrency = 100
    said = [restraint._limit_slots(Step.NORMAL), restraint._limit_slots(Step.HIGH), restraint._limit_slots(Step.NORMAL)]

    assert said == ["", "50 of 100 slots are used", "100 of 100 slots are used"]
    assert worker.held == [50, None]


async def test_thresholds_and_what_is_kept_follow_the_settings(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="quick")
    async def quick() -> int:
        return 1

    async with opened(app), working(app, None, 4) as worker:
        await retune(
            worker, keep_result=7.0, loop_lag_warn=0.5, max_stalled=1, keep_dead_count=3, keep_finished_count=4
        )
        parts = worker._parts
        assert parts is not None
        found = (parts.runners[b"quick"].keep, parts.slots.slow_step, parts.slots.quarantine._stalls)

    assert found == (7.0, 0.5, 1)
    assert parts.flights._limits[:2] == (4, 3)
