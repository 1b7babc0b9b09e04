"""The command `headrace jobs`, on a real server, without the code of the app."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from headrace import current_job
from headrace.cli import jobs as jobs_module
from tests.cli.command import Command, run_with
from tests.live import DEADLINE, Gate, work_off, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace, Job
    from headrace.task import Task

FIELDS = {
    "id", "queue", "origin", "task", "status", "priority", "attempts", "stalls", "deferrals", "enqueued_at", "due_at",
    "held_at", "ended_at", "worker", "progress", "key", "reason", "unreadable",
}  # fmt: skip
SHOWN = FIELDS | {"failures", "log", "result"}


@dataclasses.dataclass
class Address:
    street: str
    since: dt.date


@pytest.fixture
def app(make_app: Callable[..., Headrace]) -> Headrace:
    return make_app()


@pytest.fixture
def command(app: Headrace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(app, capsys, monkeypatch)


@pytest.fixture
def mail(app: Headrace) -> Task[..., Any, Any]:
    @app.task(name="mail", queue="mail", attempts=1, dead_letter="mail-dead", keep_result=600)
    async def mail(to: str, address: Address | None = None) -> dict[str, Any]:  # noqa: ARG001 - only shown
        await current_job().progress(40, "half of it")
        await current_job().log(f"to {to}")
        if to == "nobody":
            raise ValueError("no such \x1b[31maddress")
        return {"to": to, "at": dt.date(2026, 11, 24), "raw": b"\x00"}

    return mail


def ran(app: Headrace, mail: Task[..., Any, Any], *receivers: str) -> list[Job[Any]]:
    async def work() -> list[Job[Any]]:
        jobs = [await mail.enqueue(to, address=Address("Main St", dt.date(2020, 1, 2))) for to in receivers]
        await work_off(app, ["mail"])
        return jobs

    found: list[Job[Any]] = run_with(app, work)
    return found


def waiting(app: Headrace, task: Any, count: int = 1) -> list[Job[Any]]:
    found: list[Job[Any]] = run_with(app, lambda: task.enqueue_many([((f"a{number}",),) for number in range(count)]))
    return found


# List


def test_list_pages_through_all_jobs_in_their_order(app: Headrace, command: Command, mail: Task[..., Any, Any]) -> None:
    jobs = waiting(app, mail, 250)

    ids: list[str] = []
    cursor: list[str] = []
    while True:
        page = command("jobs", "list", "-q", "mail", "--limit", "100", "--json", *cursor).json
        ids += [job["id"] for job in page["jobs"]]
        if page["cursor"] is None:
            break
        cursor = ["--cursor", page["cursor"]]
    lines = command("jobs", "list", "-q", "mail", "--limit", "2").out.splitlines()

    assert ids == [job.id for job in jobs]
    assert lines[0].split() == ["id", "task", "priority", "attempts", "enqueued"]
    assert [line.split()[:4] for line in lines[1:3]] == [[job.id, "mail", "5", "0"] for job in jobs[:2]]
    assert lines[3] == "More: --cursor 2"


@pytest.mark.parametrize("status", ["failed", "completed", "delayed", "cancelled"])
def test_list_shows_what_matters_of_each_status(
    app: Headrace, command: Command, mail: Task[..., Any, Any], status: str
) -> None:
    async def prepare() -> None:
        await mail.enqueue("nobody" if status == "failed" else "ann")
        await work_off(app, ["mail"])
        job = await mail.using(delay=60.0).enqueue("ann")
        if status == "cancelled":
            await job.cancel()

    run_with(app, prepare)
    queue = "mail-dead" if status == "failed" else "mail"

    text = command("jobs", "list", "-q", queue, "--status", status).out
    (job,) = command("jobs", "list", "-q", queue, "--status", status, "--json").json["jobs"]

    assert job.keys() == FIELDS | {"error"}
    assert (job["status"], job["task"]) == (status, "mail")
    error = {"error": "ValueError", "message": "no such \x1b[31maddress"} if status == "failed" else None
    assert job["error"] == error
    ends = {
        "failed": "ago  ValueError: no such \\x1b[31maddress", "completed": "ago", "cancelled": "ago", "delayed": " s",
    }  # fmt: skip
    assert text.rstrip().endswith(ends[status])


def test_list_without_jobs_says_so(command: Command) -> None:
    never_used = "Queue 'mail' was never used. See `headrace queues list`."
    assert command("jobs", "list", "-q", "mail").out == f"No waiting jobs in queue 'mail'. {never_used}\n"
    assert command("jobs", "list", "-q", "mail", "--json").json == {
        "queue": "mail", "status": "waiting", "jobs": [], "cursor": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--status", "dead"], "status 'dead': expected one of waiting"),
        (["--limit", "0"], "limit=0"),
        (["--cursor", "x"], "cursor='x'"),
    ],
)
def test_a_wrong_option_of_list_is_one_sentence_and_code_2(command: Command, options: list[str], message: str) -> None:
    done = command("jobs", "list", "-q", "mail", *options)

    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


# Show


def test_show_tells_the_story_of_a_dead_job_but_not_its_arguments(
    app: Headrace, command: Command, mail: Task[..., Any, Any]
) -> None:
    (job,) = ran(app, mail, "nobody")

    text = command("jobs", "show", job.id).out
    found = command("jobs", "show", job.id, "-q", "mail", "--json").json

    assert found.keys() == SHOWN
    expected = {
        "id": job.id, "queue": "mail-dead", "origin": "mail", "status": "failed", "task": "mail", "priority": 5,
        "attempts": 1, "log": ["to nobody"], "result": None, "worker": None, "due_at": None,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    (failure,) = found["failures"]
    assert (failure["attempt"], failure["error"], failure["message"]) == (1, "ValueError", "no such \x1b[31maddress")
    assert "raise ValueError" in failure["traceback"]
    # The worker notes by its own clock when an attempt failed, the server by its own when the job came and ended.
    assert found["enqueued_at"] - 1 <= failure["at"] <= found["ended_at"] + 1
    for line in ("job        " + job.id, "came from  mail", "status     failed (dead)", "log        to nobody"):
        assert line in text.splitlines()
    assert "raise ValueError" in text
    assert "\x1b" not in text
    assert "Main St" not in text


def test_show_shows_arguments_and_result_as_they_were_written(
    app: Headrace, command: Command, mail: Task[..., Any, Any]
) -> None:
    (job,) = ran(app, mail, "ann")

    async def enqueue() -> Job[Any]:
        return await mail.using(key="k").enqueue("bob", address=Address("Main St", dt.date(2020, 1, 2)))

    other: Job[Any] = run_with(app, enqueue)
    completed = command("jobs", "show", job.id, "--arguments", "--json").json
    pending = command("jobs", "show", other.id, "--arguments", "--json").json
    text = command("jobs", "show", other.id, "--arguments").out

    assert completed["result"] == {"to": "ann", "at": "2026-11-24", "raw": "AA=="}
    # The record went with the completion; what is kept is the outcome.
    assert (completed["arguments"], completed["keywords"]) == ([], {})
    assert (pending["arguments"], pending["key"]) == (["bob"], "k")
    assert pending["keywords"] == {"address": {"street": "Main St", "since": "2020-01-02"}}
    assert "argument          'bob'" in text.splitlines()


def test_show_finds_a_running_job_and_names_its_worker(app: Headrace, command: Command) -> None:
    gate = Gate()

    @app.task(name="wait", queue="mail")
    async def wait() -> None:
        await current_job().progress(40, "half of it")
        await gate.pass_through()

    async def look() -> tuple[Any, str, str, str]:
        async with working(app, ["mail"], 1) as worker:
            job = await wait.enqueue()
            await asyncio.wait_for(gate.entered.wait(), DEADLINE)
            found = (await asyncio.to_thread(command, "jobs", "show", job.id, "--json")).json
            why = (await asyncio.to_thread(command, "jobs", "why", job.id)).out
            gate.open.set()
            await job.result(DEADLINE)
            return found, why, job.id, worker.id

    found, why, job_id, worker_id = run_with(app, look)

    assert (found["id"], found["status"], found["worker"]) == (job_id, "active", worker_id)
    assert found["progress"] == {"percent": 40.0, "text": "half of it"}
    assert found["enqueued_at"] <= found["held_at"] + 0.001
    assert why.startswith(f"It runs on worker {worker_id} (")
    assert why.endswith(", attempt 1.\n")


def test_a_job_that_is_nowhere_is_one_sentence_and_code_1(
    app: Headrace, command: Command, mail: Task[..., Any, Any]
) -> None:
    waiting(app, mail)

    for words in (["show"], ["cancel"], ["retry"], ["why"]):
        everywhere = f"the one known queue below prefix '{app.settings.prefix}' at unix://"
        for where, place in ([], everywhere), (["-q", "mail"], "queue 'mail': "):
            done = command("jobs", *words, "nope", *where)
            assert (done.code, done.out) == (1, "")
            assert done.err.startswith(f"JobNotFound: job nope is not in {place}")


def test_a_job_is_not_looked_for_in_too_many_queues(
    app: Headrace, command: Command, mail: Task[..., Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MAX_QUEUES", 0)
    (job,) = waiting(app, mail)

    done = command("jobs", "show", job.id)

    assert done.code == 2
    assert "there are 1 queues, and at most 0 are looked through. Name the queue with -q." in done.err
    assert command("jobs", "show", job.id, "-q", "mail").code == 0


def test_an_unreadable_record_is_shown_as_such(
    app: Headrace, command: Command, mail: Task[..., Any, Any], raw: Callable[..., Any]
) -> None:
    (job,) = waiting(app, mail)
    key = f"{app.settings.prefix}:{{mail}}:jobs"
    raw("HSET", key, job.id, b"\x01\x05garbage")

    found = command("jobs", "show", job.id, "--arguments", "--json").json
    text = command("jobs", "show", job.id, "--arguments").out

    assert (found["status"], found["task"], found["arguments"]) == ("waiting", None, [])
    assert "too short" in found["unreadable"]
    assert "too short" in text


# Cancel, retry, why


def test_cancel_and_retry_say_what_became_of_the_job(
    app: Headrace, command: Command, mail: Task[..., Any, Any]
) -> None:
    (job,) = waiting(app, mail)

    texts = [command("jobs", word, job.id, "-q", "mail") for word in ("cancel", "cancel", "retry", "retry")]

    assert texts == [
        (0, f"Job {job.id} of queue 'mail' was cancelled.\n", ""),
        (1, "", f"Job {job.id} of queue 'mail' had ended already: cancelled.\n"),
        (0, f"Job {job.id} waits in queue 'mail' again.\n", ""),
        (1, "", f"Job {job.id} of queue 'mail' is waiting. Only dead (failed) and cancelled jobs are put back.\n"),
    ]
    done = [command("jobs", word, job.id, "--json").json for word in ("cancel", "cancel", "retry", "retry")]
    place = {"id": job.id, "queue": "mail"}
    assert done == [
        {**place, "cancelled": True, "status": "cancelled"},
        {**place, "cancelled": False, "status": "cancelled"},
        {**place, "retried": True, "status": "waiting"},
        {**place, "retried": False, "status": "waiting"},
    ]


@pytest.mark.parametrize("where", [[], ["-q", "mail"], ["-q", "mail-dead"]])
def test_retry_brings_a_dead_letter_home(
    app: Headrace, command: Command, mail: Task[..., Any, Any], where: list[str]
) -> None:
    (job,) = ran(app, mail, "nobody")

    done = command("jobs", "retry", job.id, *where, "--json")

    assert done.json == {"id": job.id, "queue": "mail", "retried": True, "status": "waiting"}
    assert command("jobs", "show", job.id, "--json").json["queue"] == "mail"


def test_cancel_of_a_running_job_tells_its_worker(app: Headrace, command: Command) -> None:
    gate = Gate()
    wait = app.task(name="wait", queue="mail")(gate.pass_through)

    async def look() -> tuple[Any, str]:
        async with working(app, ["mail"], 1):
            job = await wait.enqueue()
            await asyncio.wait_for(gate.entered.wait(), DEADLINE)
            done = await asyncio.to_thread(command, "jobs", "cancel", job.id)
            await app.queue("mail").drain(DEADLINE)
            return done, job.id

    done, job_id = run_with(app, look)

    assert done == (0, f"Job {job_id} of queue 'mail' runs; its worker was told to stop it.\n", "")
    assert command("jobs", "show", job_id, "--json").json["status"] == "cancelled"


def test_why_counts_what_comes_before_a_waiting_job(
    app: Headrace, command: Command, mail: Task[..., Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepare() -> list[Job[Any]]:
        jobs = await mail.enqueue_many([(("a",),)] * 20)
        urgent = await mail.using(priority=20).enqueue_many([(("b",),)] * 3)
        await mail.using(priority=1).enqueue_many([(("c",),)] * 3)
        await jobs[0].cancel()
        await urgent[0].cancel()
        return list(jobs)

    jobs: list[Job[Any]] = run_with(app, prepare)

    found = command("jobs", "why", jobs[10].id, "--json").json
    monkeypatch.setattr("headrace.store.store.RANK_JOBS", 5)
    text = command("jobs", "why", jobs[10].id).out

    assert (found["status"], found["code"]) == ("waiting", "no-worker")
    # Nine of its own priority and two urgent ones; two more were cancelled.
    assert found["text"] == (
        "It waits behind 11 jobs of the same or a higher priority. No live worker serves queue 'mail': start one with "
        "`headrace worker module:app -q mail`."
    )
    assert text.startswith("It waits behind more than 8 jobs")


def test_why_tells_a_paused_queue_a_busy_one_and_a_delay_apart(app: Headrace, command: Command) -> None:
    gate = Gate()
    wait = app.task(name="wait", queue="mail")(gate.pass_through)

    async def look() -> list[str]:
        codes = []

        async def ask(job: Job[Any]) -> None:
            codes.append((await asyncio.to_thread(command, "jobs", "why", job.id, "--json")).json["code"])

        async with working(app, ["mail"], 1):
            running = await wait.enqueue()
            await asyncio.wait_for(gate.entered.wait(), DEADLINE)
            first, second, delayed = await wait.enqueue(), await wait.enqueue(), await wait.using(delay=60).enqueue()
            for job in (running, first, second, delayed):
                await ask(job)
            await app.queue("mail").pause()
            await ask(second)
            gate.open.set()
            await running.result(DEADLINE)
        return codes

    assert run_with(app, look) == ["running", "next", "behind", "delayed", "paused"]


def test_why_names_what_nobody_can_run(app: Headrace, command: Command, make_app: Callable[..., Headrace]) -> None:
    @app.task(name="unknown", queue="mail")
    async def work() -> None: ...

    other = make_app()

    async def defer() -> Job[Any]:
        job = await work.enqueue()
        await work_off(other, ["mail"])
        return job

    job: Job[Any] = run_with(app, defer)

    found = command("jobs", "why", job.id, "--json").json

    assert found["code"] == "deferred"
    assert found["text"].startswith("Workers left it to others once: none knew its task 'unknown'.")
