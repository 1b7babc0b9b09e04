"""The command `headrace queues`, on a real server, without the code of the app."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer

from headrace.keys import queues_key
from headrace.queue import QueueStats
from headrace.server import start_private_server
from tests.cli.command import Command, run_with
from tests.live import fresh_app, work_off, working
from tests.support.sick import send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace import Headrace, Job
    from tests.support.raw import Raw

COUNTS = ("waiting", "delayed", "active", "completed", "failed", "cancelled")


@pytest.fixture
def app(make_app: Callable[..., Headrace]) -> Headrace:
    return make_app()


@pytest.fixture
def command(app: Headrace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(app, capsys, monkeypatch)


def enqueue(app: Headrace, *outcomes: str) -> list[Job[Any]]:
    """Have one job of queue 'mail' a word: done and dead ones are run, waiting, delayed and cancelled ones are not."""

    @app.task(name="mail", queue="mail", attempts=1, dead_letter="mail-dead", keep_result=600)
    async def mail(outcome: str) -> str:
        if outcome == "dead":
            raise ValueError("no such address")
        return outcome

    async def work() -> list[Job[Any]]:
        jobs = [await mail.enqueue(outcome) for outcome in outcomes if outcome in {"done", "dead"}]
        await work_off(app, ["mail"])
        for outcome in outcomes:
            if outcome not in {"done", "dead"}:
                jobs.append(await mail.using(delay=60.0 if outcome == "delayed" else 0.0).enqueue(outcome))
            if outcome == "cancelled":
                await jobs[-1].cancel()
        return jobs

    found: list[Job[Any]] = run_with(app, work)
    return found


def stats_of(app: Headrace, name: str) -> QueueStats:
    found: QueueStats = run_with(app, lambda: _stats(app, name))
    return found


async def _stats(app: Headrace, name: str) -> QueueStats:
    return await app.queue(name).stats()


def test_list_shows_every_queue_with_its_counts(app: Headrace, command: Command) -> None:
    enqueue(app, "done", "done", "dead", "delayed", "cancelled", "waiting")

    lines = command("queues", "list").out.splitlines()
    rows = command("queues", "list", "--json").json

    assert lines[0].split() == ["queue", *COUNTS, "paused", "workers", "jobs/s", "errors", "oldest"]
    assert [line.split()[:9] for line in lines[1:]] == [
        ["mail", "1", "1", "0", "2", "0", "1", "no", "0"],
        ["mail-dead", "0", "0", "0", "0", "1", "0", "no", "0"],
    ]
    assert [(row["queue"], *(row[count] for count in COUNTS)) for row in rows] == [
        ("mail", 1, 1, 0, 2, 0, 1),
        ("mail-dead", 0, 0, 0, 0, 1, 0),
    ]
    assert rows[0].keys() == {"queue", "served", *QueueStats.__slots__}


def test_how_many_workers_serve_a_queue_is_shown_also_while_they_are_idle(app: Headrace, command: Command) -> None:
    async def look() -> tuple[Any, Any]:
        async with working(app, ["mail", "bulk"]), working(app, ["mail"]):
            rows = await asyncio.to_thread(lambda: command("queues", "list", "--json").json)
            return rows, (await asyncio.to_thread(command, "queues", "stats", "mail")).out

    rows, text = run_with(app, look)

    assert {row["queue"]: row["served"] for row in rows} == {"mail": 2, "bulk": 1}
    assert text.endswith("workers     2 serve it, 0 hold jobs of it\n")


def test_list_without_any_queue_says_so(command: Command) -> None:
    done = command("queues", "list")

    first, *_ = done.out.splitlines()
    assert first.startswith("No queue was ever used below prefix 't-")
    assert first.endswith("/run/server.sock?db=0.")
    assert (done.code, done.err) == (0, "")
    assert command("queues", "list", "--json").json == []


def test_list_without_any_queue_names_other_prefixes_and_databases(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Why: few prefixes are named, and other tests leave some on the server that they share.
    with start_private_server(tmp_path / "own", extra=("--appendonly", "no", "--save", "")) as own:
        app = fresh_app(own.url)
        enqueue(app, "waiting")

        command.url = f"{own.url}?db=1"
        elsewhere = command("queues", "list").out
        command.url = own.url
        monkeypatch.setenv("HEADRACE_PREFIX", f"{app.settings.prefix}-other")
        other = command("queues", "list").out

    assert re.search(
        r"^Other databases of this server hold keys: 0 \(\d+ keys\)\. Does REDIS_URL", elsewhere, re.MULTILINE
    )
    assert f"Queues are here below other prefixes: '{app.settings.prefix}'. Is HEADRACE_PREFIX" in other


def test_list_shows_the_queues_whatever_else_was_written_among_their_names(
    app: Headrace, command: Command, raw: Raw
) -> None:
    enqueue(app, "waiting")
    raw("SADD", queues_key(app.settings.prefix), b"\xff\xfe", "a b", "", "x" * 101, "{x}", "\x1b[31mred")

    listed = command("queues", "list")
    why = command("jobs", "why", "unknown")

    assert [line.split()[0] for line in listed.out.splitlines()] == ["queue", "mail", "mail-dead"]
    assert listed.code == 0
    assert "job unknown is not in the 2 known queues" in why.err


def test_a_prefix_cannot_write_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As in a terminal, where nothing is taken out of what is printed.
    monkeypatch.setattr(typer, "echo", lambda text, **_: sys.stdout.write(text))
    with start_private_server(tmp_path / "own", extra=("--appendonly", "no", "--save", "")) as own:
        command = Command(fresh_app(own.url), capsys, monkeypatch)
        send(own.url, "SADD", queues_key("\x1b[31mred"), "mail")

        listed = command("queues", "list")

    assert "below other prefixes: '\\x1b[31mred'." in listed.out


def test_stats_show_one_queue(app: Headrace, command: Command) -> None:
    enqueue(app, "done", "dead", "waiting")

    text = command("queues", "stats", "mail").out
    found = command("queues", "stats", "mail", "--json").json

    facts = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert (facts["queue"], facts["completed"], facts["waiting"], facts["paused"]) == ("mail", "1", "1", "no")
    assert "error rate  50.0 % of the attempts of the last hour" in text
    assert (found["queue"], found["completed"], found["error_rate"]) == ("mail", 1, 0.5)


@pytest.mark.parametrize("words", [["stats", "mial"], ["retry", "mial"], ["clear", "mial", "--status", "failed", "-y"]])
def test_a_mistyped_name_is_no_empty_queue(app: Headrace, command: Command, words: list[str]) -> None:
    enqueue(app, "waiting")

    done = command("queues", *words)

    assert done == (1, "", "Queue 'mial' was never used. Did you mean 'mail'?\n")


def test_pause_and_resume_say_what_they_changed(app: Headrace, command: Command) -> None:
    enqueue(app, "waiting")

    texts = [command("queues", word, "mail").out for word in ("pause", "pause", "resume", "resume")]
    first = command("queues", "pause", "mail", "--json").json
    paused = stats_of(app, "mail").paused
    second = command("queues", "resume", "mail", "--json").json

    assert texts == [
        "Queue 'mail' is paused.\n",
        "Queue 'mail' was paused already.\n",
        "Queue 'mail' is running.\n",
        "Queue 'mail' was running already.\n",
    ]
    assert first == {"queue": "mail", "paused": True, "changed": True}
    assert second == {"queue": "mail", "paused": False, "changed": True}
    assert paused


@pytest.mark.parametrize(("status", "queue"), [("waiting", "mail"), ("cancelled", "mail"), ("failed", "mail-dead")])
def test_clear_deletes_the_jobs_of_one_status(app: Headrace, command: Command, status: str, queue: str) -> None:
    enqueue(app, "dead", "dead", "cancelled", "cancelled", "waiting", "waiting")

    done = command("queues", "clear", queue, "--status", status, "--yes")

    assert done == (0, f"Deleted 2 {status} jobs of queue '{queue}'.\n", "")
    assert getattr(stats_of(app, queue), status) == 0
    again = command("queues", "clear", queue, "--status", status, "--yes", "--json")
    assert again.json == {"queue": queue, "status": status, "cleared": 0}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_clear_wants_a_yes_where_nobody_can_be_asked(app: Headrace, command: Command, options: list[str]) -> None:
    enqueue(app, "waiting")

    done = command("queues", "clear", "mail", "--status", "waiting", *options)

    assert (done.code, done.out) == (2, "")
    assert done.err == "clear deletes all waiting jobs of queue 'mail'. Add --yes to say that this is wanted.\n"
    assert stats_of(app, "mail").waiting == 1


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 1)])
def test_clear_asks_at_a_terminal(
    app: Headrace, command: Command, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    enqueue(app, "waiting")
    asked: list[str] = []
    monkeypatch.setattr("headrace.cli.queues.is_terminal", lambda: True)

    def confirm(text: str, **_: bool) -> None:
        asked.append(text)
        if answer != "y":
            raise typer.Abort

    monkeypatch.setattr("typer.confirm", confirm)

    done = command("queues", "clear", "mail", "--status", "waiting")

    assert asked == ["Delete 1 waiting job of queue 'mail' for good?"]
    assert stats_of(app, "mail").waiting == left
    assert done.code == (0 if answer == "y" else 1)


def test_clear_names_what_can_be_cleared(command: Command) -> None:
    done = command("queues", "clear", "mail", "--status", "active", "--yes")

    assert (done.code, done.out) == (2, "")
    assert "--status active: expected one of waiting, delayed, completed, failed, cancelled." in done.err


def test_retry_brings_dead_letters_home_without_the_code_of_the_app(app: Headrace, command: Command) -> None:
    enqueue(app, "dead", "dead", "dead")

    found = command("queues", "retry", "mail", "--json").json
    again = command("queues", "retry", "mail")

    assert found == {"queue": "mail", "retried": 3}
    assert again.out == "Put 0 dead jobs back.\n"
    assert (stats_of(app, "mail").waiting, stats_of(app, "mail-dead").failed) == (3, 0)


def test_retry_of_the_dead_letter_queue_brings_them_home_too(app: Headrace, command: Command) -> None:
    enqueue(app, "dead")

    done = command("queues", "retry", "mail-dead")

    assert done.out == "Put 1 dead job back.\n"
    assert (stats_of(app, "mail").waiting, stats_of(app, "mail-dead").waiting) == (1, 0)


def test_a_server_that_is_not_there_is_one_sentence_and_code_1(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_ACQUIRE_TIMEOUT_MS", "50")
    command.url = "unix:///nowhere/server.sock"

    done = command("queues", "list")

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("ConnectionLost: ")
    assert len(done.err.splitlines()) == 1
