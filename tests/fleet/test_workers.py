"""Running worker processes take the settings of the fleet while they work, and no job is lost by it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from headrace.settings_fleet import encode_version
from headrace.store.versions import Versions

if TYPE_CHECKING:
    from headrace import Headrace
    from headrace.settings_fleet import Version
    from tests.support.crew import Crew, Entry, WorkerProcess
    from tests.support.stalls import Stalls


async def store(app: Headrace, **values: str) -> Version:
    """Store settings of the fleet, all of them."""
    return await app.fleet.store(values, base=await app.fleet.read(), author="test")


async def taken(worker: WorkerProcess, version: int) -> Entry:
    """Wait until a worker process says that it has taken a version."""
    (line,) = await worker.says.until("log", message="settings taken", version=str(version))
    return line


def most_at_once(entries: list[dict[str, Any]]) -> int:
    """Return how many jobs ran at once, of a journal of starts and ends."""
    running = most = 0
    for entry in sorted(entries, key=lambda entry: entry["at"]):
        running += 1 if entry["what"] == "start" else -1
        most = max(most, running)
    return most


async def test_slots_grow_and_shrink_under_load_and_no_job_is_lost(crew: Crew) -> None:
    # Enough for none of the steps to find all of them done.
    jobs = 1_500
    async with crew.app() as app:
        await store(app, QUEUE_CONCURRENCY="4")
        worker = await crew.worker(concurrency=None)
        await taken(worker, 1)
        await app.step.enqueue_many([((number, 0.05),) for number in range(jobs)])
        await crew.journal.until("end", 20)
        at_four = crew.journal()

        await store(app, QUEUE_CONCURRENCY="40")
        await taken(worker, 2)
        await crew.journal.until("start", len(crew.journal("end")) + 40)
        at_forty = crew.journal()[len(at_four) :]

        await store(app, QUEUE_CONCURRENCY="1")
        await taken(worker, 3)
        before = len(crew.journal("start"))
        await crew.journal.until("start", before + 5)
        alone = {entry["job"] for entry in crew.journal("start")[before + 1 : before + 5]}
        at_one = [entry for entry in crew.journal() if entry["job"] in alone]

        await store(app, QUEUE_CONCURRENCY="100")
        await crew.journal.until("end", jobs)
        await app.queue("work").drain(timeout=10.0)
        facts = next(iter((await app.fleet.workers()).values()))
        stopped = await worker.stop()

    assert most_at_once(at_four) == 4
    assert 30 <= most_at_once(at_forty) <= 44
    assert most_at_once(at_one) == 1
    ended = Counter(entry["number"] for entry in crew.journal("end"))
    assert ended == Counter(range(jobs))
    assert {entry["attempt"] for entry in crew.journal("start")} == {1}
    assert (facts.concurrency, facts.settings, stopped["completed"]) == (100, 4, jobs)

    # Red when: the first slot that is one too many and ends lets all the others go on.


async def test_a_rollback_reaches_every_worker_in_under_five_seconds(crew: Crew, stalls: Stalls) -> None:
    async with crew.app() as app:
        await store(app, QUEUE_CONCURRENCY="20")
        workers = [await crew.worker(concurrency=None) for _ in range(3)]
        await store(app, QUEUE_CONCURRENCY="1")
        for worker in workers:
            await taken(worker, 2)
        await app.step.enqueue_many([((number, 0.02),) for number in range(300)])

        back = await app.fleet.roll_back(base=await app.fleet.read())
        reach = await app.fleet.wait_until_taken(back.number, timeout=15.0)

        await crew.journal.until("end", 300)
        await crew.settled()

    assert (back.number, back.restores, dict(back.values)) == (3, 1, {"QUEUE_CONCURRENCY": "20"})
    assert sorted(facts.pid for facts in reach.taken.values()) == sorted(worker.pid for worker in workers)
    assert reach.missing == {}
    assert reach.seconds < 5.0 + stalls.seconds
    assert {facts.concurrency for facts in reach.taken.values()} == {20}


async def test_a_bad_setting_of_the_fleet_is_refused_by_a_running_worker_which_goes_on(crew: Crew) -> None:
    async with crew.app() as app:
        await store(app, QUEUE_CONCURRENCY="7")
        worker = await crew.worker(concurrency=None)
        await taken(worker, 1)

        # Nothing of Headrace writes this: the writer is another version, or somebody's script.
        bad = encode_version({"QUEUE_CONCURRENCY": "fast", "HEADRACE_GRACE": "1"}, "test", "")
        await Versions(app.store).write(app.control, 1, bad)
        (line,) = await worker.says.until("log", message="settings of the fleet refused; the old ones stay")
        await app.step.enqueue(1)
        await crew.journal.until("end")
        reach = await app.fleet.wait_until_taken(2)
        await store(app, QUEUE_CONCURRENCY="9")
        await taken(worker, 3)
        after = await app.fleet.wait_until_taken(3)
        await worker.stop()

    assert line["level"] == "ERROR"
    assert "QUEUE_CONCURRENCY='fast': expected a whole number from 1 to 10000" in line["reason"]
    assert "version 2 of the fleet's settings" in line["reason"]
    (facts,) = reach.missing.values()
    assert (facts.settings, facts.refused, facts.concurrency) == (1, 2, 7)
    assert "QUEUE_CONCURRENCY='fast'" in facts.reason
    (facts,) = after.taken.values()
    assert (facts.settings, facts.refused, facts.concurrency) == (3, 0, 9)


async def test_what_waits_for_a_restart_is_listed_and_taken_by_the_next_worker(crew: Crew) -> None:
    async with crew.app() as app:
        worker = await crew.worker(concurrency=None)
        await store(app, HEADRACE_THREADS="3", QUEUE_CONCURRENCY="9")
        line = await taken(worker, 1)
        (facts,) = (await app.fleet.wait_until_taken(1)).taken.values()
        await worker.stop()
        following = await crew.worker(concurrency=None)
        (later,) = (await app.fleet.wait_until_taken(1)).taken.values()
        said = await taken(following, 1)
        await following.stop()

    assert (line["restart"], line["changed"]) == ("HEADRACE_THREADS", "QUEUE_CONCURRENCY 100 -> 9")
    assert (facts.restart, facts.concurrency) == (["HEADRACE_THREADS"], 9)
    assert later.restart == []
    assert said["changed"] == "QUEUE_CONCURRENCY 100 -> 9, HEADRACE_THREADS 32 -> 3"


async def test_a_nearer_source_stays_and_is_named(crew: Crew) -> None:
    async with crew.app() as app:
        of_environment = await crew.worker(concurrency=None, QUEUE_CONCURRENCY="3")
        of_argument = await crew.worker(concurrency=5)
        await store(app, QUEUE_CONCURRENCY="50", HEADRACE_MAX_STALLED="9")
        first, second = await taken(of_environment, 1), await taken(of_argument, 1)
        facts = (await app.fleet.wait_until_taken(1)).taken.values()
        for worker in (of_environment, of_argument):
            await worker.stop()

    assert first["kept"] == "QUEUE_CONCURRENCY (environment)"
    assert second["kept"].startswith("QUEUE_CONCURRENCY (argument of worker ")
    assert sorted(each.concurrency for each in facts) == [3, 5]
