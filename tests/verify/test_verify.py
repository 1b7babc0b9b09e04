"""`headrace verify` on a healthy set-up, and on each broken one: the check that finds it, its reason and its remedy."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from headrace.server import start_private_server
from headrace.verify.claims_drill import Recovery
from headrace.verify.course import Course
from headrace.verify.doctor import examine
from headrace.verify.evidence import DrillEvidence
from headrace.verify.faults import Faults
from headrace.verify.journal import Journal
from headrace.verify.place import Place
from headrace.verify.run import verify
from tests.live import fresh_app
from tests.support.cluster import ClusterRaw
from tests.support.crew import Crew
from tests.support.raw import Raw
from tests.support.slow_proxy import SlowProxy
from tests.verify import sick_apps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headrace.server import PrivateServer
    from headrace.verify.outcome import Outcome
    from headrace.verify.run import Found
    from tests.support.cluster import Cluster

#: Some seconds of load, and no drill: most of what is broken shows at once.
SHORT = Course("test", 15.0, 300, 0.4, 1.0, 0.5, 1, 1.0, ())
ALL_FAULTS = ("kill", "pause", "cut", "restart", "crash")
#: How quick a machine is that runs eight test runs at once says nothing about a check.
OF_THE_MACHINE = {
    "redis latency under load", "collection", "event loop", "warnings", "slow log", "latency at rest", "throughput",
}  # fmt: skip


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server as it should be: with its append-only file."""
    with start_private_server(tmp_path / "own") as running:
        yield running


def find(outcomes: Sequence[Outcome], name: str) -> Outcome:
    """Return one check; each that did not pass must say what to do."""
    for outcome in outcomes:
        assert outcome.threshold
        assert outcome.source
        assert outcome.remedy or outcome.grade == "pass", outcome
    return next(outcome for outcome in outcomes if outcome.name == name)


def bad(found: Found) -> list[str]:
    """Say what did not pass, but for what this machine may be to blame for."""
    wrong = [one for one in found.outcomes if one.grade in {"partial", "fail"} and one.name not in OF_THE_MACHINE]
    return [f"{one.name}: {one.measured} ({one.evidence})" for one in wrong]


async def run(server: PrivateServer, app: str = "healthy", url: str = "", **options: Any) -> Found:
    course = options.pop("course", SHORT)
    return await verify(course, url=url or server.url, app=f"tests.verify.sick_apps:{app}", **options)


@pytest.mark.slow
async def test_a_healthy_set_up_passes_with_every_fault_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Fewer slots than connections, so that a machine with other things to do makes nobody wait.
    monkeypatch.setenv("QUEUE_CONCURRENCY", "20")
    always = functools.partial(start_private_server, extra=("--appendfsync", "always"))
    monkeypatch.setattr("headrace.verify.place.start_private_server", always)
    course = Course("test", 30.0, 300, 1.0, 1.5, 1.0, 1, 1.0, ALL_FAULTS)
    children = {child.pid for child in psutil.Process().children(recursive=True)}

    found = await verify(course, app="tests.verify.sick_apps:healthy")

    assert found.errors == []
    assert bad(found) == []
    assert [strike.fault for strike in found.drill.strikes if strike.struck] == list(ALL_FAULTS)
    assert found.drill.strike("kill").held > 0  # type: ignore[union-attr]  # it was done
    assert "appendfsync always loses nothing" in find(found.outcomes, "jobs lost").evidence
    assert found.drill.accepted > 100
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= children


@pytest.mark.slow
async def test_the_pool_of_the_incident_makes_callers_wait(
    own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_MAX_CONNECTIONS", "20")

    # Long enough for a machine that stands still for a moment.
    found = await run(own_server, course=dataclasses.replace(SHORT, calls=2.5))

    outcome = find(found.outcomes, "pool under load")
    assert outcome.grade == "fail"
    assert outcome.figures["waiting"] > 9
    assert "Raise REDIS_MAX_CONNECTIONS" in outcome.remedy


async def test_a_server_with_few_clients_fails_before_any_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_MAX_CONNECTIONS", "100")
    with start_private_server(tmp_path / "tiny", extra=("--maxclients", "40")) as tiny:
        found = await run(tiny)

    outcome = find(found.outcomes, "maxclients")
    assert (outcome.grade, found.verdict) == ("fail", "failed")
    assert "raise maxclients" in outcome.remedy
    assert "SettingError" in find(found.outcomes, "the run itself").evidence


@pytest.mark.slow
async def test_a_slow_server_fails_by_its_latency(
    own_server: PrivateServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUEUE_CONCURRENCY", "10")
    with SlowProxy(tmp_path, own_server.url, 0.06) as way:
        found = await run(own_server, url=way.url)

        assert way.delayed
    outcome = find(found.outcomes, "redis latency under load")
    assert outcome.grade in {"partial", "fail"}
    assert outcome.figures["p99_seconds"] > 0.1
    assert "the way to the server" in outcome.remedy


@pytest.mark.slow
async def test_a_leak_shows_in_the_memory_after_the_load(own_server: PrivateServer) -> None:
    found = await run(own_server, "leaking")

    outcome = find(found.outcomes, "memory of a worker")
    assert outcome.grade == "fail"
    assert outcome.figures["after_bytes"] - outcome.figures["before_bytes"] > 32 * 2**20
    assert "app.memory.trace()" in outcome.remedy


@pytest.mark.slow
async def test_unbounded_history_shows_in_what_each_job_leaves_behind(own_server: PrivateServer) -> None:
    found = await run(own_server, "hoarding")

    outcome = find(found.outcomes, "bounded history")
    assert outcome.grade == "fail"
    assert outcome.figures["blocks_per_job"] > 1
    assert "deque(maxlen=...)" in outcome.remedy


@pytest.mark.slow
async def test_what_each_job_leaves_in_the_server_shows_below_the_prefix_and_beside_it(
    own_server: PrivateServer,
) -> None:
    found = await run(own_server, "writing")

    outcome = find(found.outcomes, "history in the server")
    assert outcome.grade == "fail"
    assert outcome.figures["bytes_per_job"] > 100
    assert outcome.figures["other_keys"] > 100
    assert "trim lists and streams" in outcome.remedy


@pytest.mark.slow
async def test_a_cluster_is_put_under_load_and_struck_and_left_as_it_was(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The address of one node, which says nothing of a cluster.
    monkeypatch.setenv("QUEUE_CONCURRENCY", "20")
    course = Course("test", 15.0, 300, 0.4, 1.0, 0.5, 1, 1.0, ("kill", "cut", "restart", "crash"))
    with ClusterRaw(cluster) as raw:
        before = raw.keys("")

        found = await verify(course, url=cluster.nodes[0].url, app="tests.verify.sick_apps:healthy")

        assert raw.keys("") == before
    assert found.errors == []
    # Its nodes keep nothing on disk.
    assert {line.partition(":")[0] for line in bad(found)} == {"persistence"}
    strikes = {strike.fault: strike for strike in found.drill.strikes}
    assert strikes["kill"].held > 0
    assert "connections of 2 workers closed" in strikes["cut"].struck
    assert "a cluster may fall" in strikes["restart"].skipped
    assert "a cluster may fall" in strikes["crash"].skipped
    assert find(found.outcomes, "history in the server").grade == "pass"


@pytest.mark.slow
async def test_timers_threads_and_failures_of_an_app_each_show_in_their_own_check(own_server: PrivateServer) -> None:
    found = await run(own_server, "neglected")

    timers = find(found.outcomes, "timers")
    assert (timers.grade, timers.figures["timers"] >= sick_apps.POLLERS) == ("fail", True)
    assert "loop.call_later" in timers.remedy
    left = find(found.outcomes, "nothing left")
    assert (left.grade, left.evidence) == ("fail", "thread forgotten")
    errors = find(found.outcomes, "error rate")
    assert (errors.grade, 0.05 < errors.figures["error_rate"] < 0.2) == ("fail", True)
    assert "RuntimeError" in errors.evidence


@pytest.mark.slow
async def test_a_blocked_loop_fails_and_the_log_names_who_blocked_it(own_server: PrivateServer) -> None:
    found = await run(own_server, "blocking")

    outcome = find(found.outcomes, "event loop")
    assert outcome.grade == "fail"
    assert outcome.figures["lag_longest_seconds"] > sick_apps.BLOCKED_SECONDS * 0.8
    assert "headrace.verify." in outcome.evidence
    assert "await" in outcome.remedy


async def test_a_dead_worker_and_the_jobs_it_held_are_named(own_server: PrivateServer, monkeypatch: Any) -> None:
    with Crew(own_server.url, "shop") as crew:
        monkeypatch.setenv("HEADRACE_PREFIX", "shop")
        worker = await crew.worker(lease=60.0)
        async with crew.app(lease=60.0) as app:
            await app.step.enqueue_many([((number, 30.0),) for number in range(5)])
            await crew.journal.until("start", 5)
            alive = find(await examine(own_server.url), "workers")
            await worker.kill()

            outcome = find(await examine(own_server.url), "workers")

    assert (alive.grade, alive.measured) == ("pass", "1 there, none gone")
    assert outcome.grade == "fail"
    assert f"(pid {worker.pid} on " in outcome.measured
    assert outcome.measured.endswith("jobs that it holds: 5")
    assert outcome.remedy.startswith("Start the worker again")


async def test_jobs_that_nobody_serves_are_named(own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    app = fresh_app(own_server.url)
    monkeypatch.setenv("HEADRACE_PREFIX", app.settings.prefix)

    @app.task(queue="lonely")
    async def wait() -> None: ...

    async with app:
        await wait.enqueue()

    outcome = find(await examine(own_server.url), "workers")

    assert (outcome.grade, outcome.measured) == ("fail", "jobs that wait in queue 'lonely', which no worker serves: 1")


async def test_a_worker_that_dies_under_load_is_a_finding_with_its_exit_code(own_server: PrivateServer) -> None:
    found = await run(own_server, "dying")

    outcome = find(found.outcomes, "the run itself")
    assert found.verdict == "failed"
    assert "ended by itself with code 7" in outcome.evidence
    with Raw(own_server.url) as raw:
        assert raw.keys("") == []


@pytest.mark.slow
async def test_a_restart_without_the_append_only_file_loses_jobs_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = functools.partial(start_private_server, extra=("--appendonly", "no", "--save", ""))
    monkeypatch.setattr("headrace.verify.place.start_private_server", bare)

    found = await verify(dataclasses.replace(SHORT, faults=("restart",)))

    assert found.drill.strikes[0].struck
    lost = find(found.outcomes, "jobs lost")
    assert lost.grade == "fail"
    assert lost.figures["lost"] > 0
    assert "append-only file" in lost.remedy
    assert find(found.outcomes, "persistence").grade == "fail"


@pytest.mark.slow
async def test_a_server_of_somebody_else_is_killed_when_that_is_wanted_and_its_jobs_go_on(
    own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUEUE_CONCURRENCY", "20")
    first, again = own_server.pid, None

    def start_again(text: str) -> None:
        # What systemd or Kubernetes does: start it as soon as it is gone.
        nonlocal again
        if text == "fault: crash":
            again = threading.Thread(target=restart_when_gone, args=(own_server,))
            again.start()

    found = await run(
        own_server, course=dataclasses.replace(SHORT, faults=("crash",)), destructive=True, tell=start_again
    )

    assert again is not None
    again.join(20.0)
    assert own_server.pid != first
    strike = found.drill.strikes[0]
    assert strike.struck.startswith("the server ended with SIGKILL")
    assert strike.recovered is not None
    lost = find(found.outcomes, "jobs lost")
    assert lost.grade in {"pass", "partial"}
    assert "appendfsync everysec may lose what came in the last 2 s" in lost.evidence
    with Raw(own_server.url) as raw:
        assert raw.keys("") == []


def restart_when_gone(server: PrivateServer) -> None:
    psutil.Process(server.pid).wait(20.0)
    server.kill()
    server.start()


async def test_a_server_of_somebody_else_is_restarted_only_when_that_is_wanted(
    own_server: PrivateServer, tmp_path: Path
) -> None:
    app = fresh_app(own_server.url)
    place = Place(own_server.url, "p", tmp_path, app.settings, None, app.census_book)
    async with app, Journal(app.census_book) as journal:
        strike = await Faults(app, place, journal, 1.0).restart([], destructive=False)

        killed = await Faults(app, place, journal, 1.0).crash([], destructive=False)

    assert "--destructive" in strike.skipped
    assert "--destructive" in killed.skipped
    assert own_server.running
    assert Recovery("restart").judge(DrillEvidence(strikes=[strike])).grade == "skipped"


async def test_an_app_that_is_not_there_is_a_finding_and_leaves_no_key(own_server: PrivateServer) -> None:
    found = await run(own_server, "missing")

    assert found.verdict == "failed"
    assert "has no attribute 'missing'" in find(found.outcomes, "the run itself").evidence
    with Raw(own_server.url) as raw:
        assert raw.keys("") == []


async def test_cancelling_leaves_no_process_and_no_key(own_server: PrivateServer) -> None:
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    under_load = asyncio.Event()
    running = asyncio.create_task(
        run(
            own_server,
            course=Course("test", 60.0, 100, 30.0, 1.0, 1.0, 1, 1.0, ()),
            tell=lambda text: under_load.set() if text.startswith("jobs without") else None,
        )
    )
    await asyncio.wait_for(under_load.wait(), 20.0)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert {child.pid for child in psutil.Process().children(recursive=True)} <= children
    with Raw(own_server.url) as raw:
        assert raw.keys("") == []
