"""The command `headrace top`: what it shows of queues and processes, as lines, as JSON, and drawn on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli.top_show import Table
from headrace.errors import PoolTimeout
from tests.cli.command import Command, run_with
from tests.live import working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace import Headrace

DEADLINE = 20.0


@pytest.fixture
def app(make_app: Callable[..., Headrace]) -> Headrace:
    app = make_app()

    @app.task(name="step", queue="mail")
    async def step(number: int) -> int:
        return number

    return app


@pytest.fixture
def command(app: Headrace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(app, capsys, monkeypatch)


@pytest.fixture
def busy(app: Headrace) -> Iterator[None]:
    """A worker in a thread of this process, and somebody who gives it jobs."""
    ready, end = threading.Event(), threading.Event()

    async def work() -> None:
        async with app, working(app, ["mail"], concurrency=7):
            app.subscribe("job.*", lambda _: None, owner="panel")
            step: Any = app.tasks.get("step")
            while not end.is_set():
                await step.enqueue_many([((number,),) for number in range(20)])
                ready.set()
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(work()), name="busy")
    thread.start()
    assert ready.wait(DEADLINE)
    yield
    end.set()
    thread.join(DEADLINE)
    assert not thread.is_alive()


@pytest.mark.usefixtures("busy")
def test_once_shows_queues_with_rates_and_every_process(command: Command) -> None:
    done = command("top", "--once")

    assert done.code == 0
    lines = done.out.splitlines()
    assert "  1 process, " in lines[0]
    queue = next(line.split() for line in lines if line.startswith("mail "))
    assert queue[1] == "no"
    assert float(queue[8]) > 10, done.out
    process = next(line.split() for line in lines if str(os.getpid()) in line.split())
    assert process[2:4] == ["1", "7"]
    assert done.err == ""


@pytest.mark.usefixtures("busy")
def test_json_has_the_figures_by_name(command: Command) -> None:
    done = command("top", "--once", "--json")

    (queue,) = done.json["queues"]
    assert (queue["name"], queue["paused"]) == ("mail", False)
    assert queue["done_rate"] > 10
    (process,) = done.json["processes"]
    assert (process["pid"], process["workers"], process["concurrency"]) == (os.getpid(), 1, 7)
    assert done.json["counts"]["timer"] == 1
    assert done.json["silent"] == []


@pytest.mark.usefixtures("busy")
def test_one_process_in_full_shows_pool_duties_census_subscribers_and_histories(command: Command) -> None:
    done = command("top", "--once", "--process", str(os.getpid()))

    for expected in ("renew leases", "slot ", "worker/slots.py:", "panel", "readings of memory"):
        assert expected in done.out, done.out
    everyone = command("top", "--once", "--json", "-p", "all").json
    full = command("top", "--once", "--json", "-p", str(os.getpid())).json
    (one,) = everyone["processes"]
    assert one.keys() == full.keys()
    assert one["duties"]
    assert {"name", "owner", "interval", "late_maximum", "cost_total"} <= full["duties"][0].keys()
    assert {thing["kind"] for thing in full["census"]} >= {"timer", "task", "connection", "subscription"}
    assert full["settings"]["REDIS_URL"][1] == "argument"
    assert (full["pool"]["timeouts_total"], full["pool"]["holders"]) == (0, [])


def test_one_process_in_full_shows_who_holds_connections_and_who_got_none(app: Headrace, command: Command) -> None:
    app.settings = app.settings.override({"redis_max_connections": 8, "redis_acquire_timeout": 0.1})

    async def look() -> str:
        lane = app.pool.lane("user", owner="cart", purpose="check out")
        held = []
        # Bound: the lane has eight at most.
        with contextlib.suppress(PoolTimeout):
            while True:
                held.append(await lane.get_connection())
        shown = await asyncio.to_thread(command, "top", "--once", "-p", str(os.getpid()))
        for connection in held:
            await lane.release(connection)
        return shown.out

    shown = run_with(app, look)

    heads, row = shown.partition("pool: connections, ")[2].splitlines()[1:3]
    figures = dict(zip(re.split(" {2,}", heads.strip()), row.split(), strict=True))
    assert (figures["at most"], figures["timed out"]) == ("8", "1")
    assert re.search(r"^user  cart   check out  \S*test_top.py:\d+ \S+ +\d", shown, re.MULTILINE), shown


@pytest.mark.usefixtures("busy")
def test_a_process_that_does_not_answer_is_said_with_those_that_do(command: Command) -> None:
    done = command("top", "--once", "-p", "1")

    assert done.code == 1
    assert "No process 1 answered" in done.err
    assert f":{os.getpid()}." in done.err


@pytest.mark.parametrize("process", ["x", "host:", ""])
def test_a_malformed_process_is_refused(command: Command, process: str) -> None:
    done = command("top", "--once", "-p", process)

    assert done.code == 2
    assert "expected the process id that `headrace top` shows" in done.err


def test_an_empty_fleet_is_shown_as_such(command: Command) -> None:
    done = command("top", "--once", "--json")

    assert (done.code, done.json["queues"], done.json["processes"]) == (0, [], [])


@pytest.mark.usefixtures("busy")
def test_a_worker_whose_process_hangs_is_listed_as_silent(
    command: Command, app: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app._live, "_told", None)
    listeners = app._open_session._listeners
    channel = next(name for name in listeners if name.endswith(":settings"))
    monkeypatch.setitem(listeners, channel, [])

    done = command("top", "--once", "--json")

    assert done.json["processes"] == []
    (silent,) = done.json["silent"]
    assert (silent["pid"], silent["worker"]) == (os.getpid(), next(iter(app._workers)).id)


@pytest.mark.usefixtures("busy")
def test_on_a_terminal_it_draws_until_ctrl_c_and_gives_the_terminal_back(app: Headrace) -> None:
    reading, writing = pty.openpty()
    environment = {
        **os.environ, "HEADRACE_PREFIX": app.settings.prefix, "TERM": "xterm", "COLUMNS": "200", "LINES": "50",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "top", "--interval", "0.5", "--url", app.settings.redis_url or ""],
        stdin=writing, stdout=writing, stderr=subprocess.STDOUT, env=environment,
    )  # fmt: skip
    os.close(writing)
    shown = b""
    pressed = False
    with contextlib.suppress(OSError):
        while data := os.read(reading, 65_536):
            shown += data
            # The second view is there: the command draws again and again. A second Ctrl+C would cut its end short.
            if shown.count(b"Ctrl+C ends") >= 2 and not pressed:
                process.send_signal(signal.SIGINT)
                pressed = True
    os.close(reading)

    assert process.wait(DEADLINE) == 0
    text = shown.decode()
    assert "mail" in text
    assert "done/s" in text
    # The other screen of the terminal is entered and left.
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1


@pytest.mark.parametrize(
    ("width", "columns", "title"),
    [
        (32, ("queue", "paused", "waiting", "oldest"), "queues"),
        (31, ("queue", "paused", "waiting"), "queues (no room for oldest)"),
        (5, ("queue", "paused"), "queues (no room for waiting, oldest)"),
    ],
)
def test_a_narrow_terminal_loses_the_last_columns_and_never_the_names(
    width: int, columns: tuple[str, ...], title: str
) -> None:
    table = Table(
        "queues", ("queue", "paused", "waiting", "oldest"), [("films", False, 12, "1.5 days"), ("m", True, 0, None)]
    )

    found = table.fit(width)

    assert (found.columns, found.title) == (columns, title)
    assert [len(row) for row in found.rows] == [len(columns)] * 2


def test_a_long_text_is_folded_before_a_column_is_left_out() -> None:
    table = Table("holders", ("taken at", "held s"), [("a/very/long/path/to/a/module.py:120", 1.5)])

    assert table.fit(20) == table


@pytest.mark.usefixtures("busy")
def test_without_a_terminal_each_look_is_a_line_of_json(app: Headrace) -> None:
    environment = {**os.environ, "HEADRACE_PREFIX": app.settings.prefix}
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "top", "--json", "--interval", "0.5", "--url", app.settings.redis_url or ""],
        stdout=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as stream:
        looks = [json.loads(stream.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        rest = stream.read()

    assert process.wait(DEADLINE) == 0
    assert [len(look["processes"]) for look in looks] == [1, 1]
    assert "Traceback" not in rest
