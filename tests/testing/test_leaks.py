"""A test that leaves anything behind fails and says what and who made it; one that leaves nothing passes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.testing.test_plugin import run_pytest

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import asyncio, atexit, socket, subprocess, sys, threading
import pytest
from headrace import Headrace
from headrace.census import Kind
kept = []
"""
#: Kind -> a test that leaves it, the line that makes it, and a test that uses the same and leaves nothing.
CASES = {
    "census": (
        """
        def test_it():
            app = Headrace("redis://127.0.0.1:1/0")
            kept.append(app)
            app.census_book.add(Kind.TIMER, "every 100 ms", owner="my poller")  # made here
        """,
        "timer 'every 100 ms' of my poller",
        """
        def test_it():
            app = Headrace("redis://127.0.0.1:1/0")
            kept.append(app)
            app.census_book.add(Kind.TIMER, "every 100 ms", owner="my poller").close()
        """,
    ),
    "task": (
        """
        async def poll_weather():  # made here
            await asyncio.Event().wait()

        async def test_it():
            kept.append(asyncio.create_task(poll_weather(), name="poller"))
        """,
        "task 'poller' runs poll_weather",
        """
        async def poll_weather():
            await asyncio.Event().wait()

        async def test_it():
            task = asyncio.create_task(poll_weather(), name="poller")
            task.cancel()
            await asyncio.wait({task})
        """,
    ),
    "thread": (
        """
        def test_it():
            thread = threading.Thread(target=threading.Event().wait, name="poller", daemon=True)
            thread.start()  # made here
        """,
        "thread 'poller' (daemon)",
        """
        def test_it():
            end = threading.Event()
            thread = threading.Thread(target=end.wait, name="poller", daemon=True)
            thread.start()
            # It ends after the test, which is soon enough.
            threading.Timer(0.2, end.set).start()
        """,
    ),
    "process": (
        """
        def test_it():
            kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]))  # made here
        """,
        "time.sleep(30)",
        """
        def test_it():
            with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
                process.wait()
        """,
    ),
    "file": (
        """
        def test_it(tmp_path):
            kept.append(open(tmp_path / "log", "w"))  # made here
        """,
        "/log (descriptor",
        """
        def test_it(tmp_path):
            with open(tmp_path / "log", "w") as file:
                file.write("x")
        """,
    ),
    "socket": (
        """
        def test_it():
            listener = socket.socket()  # made here
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            kept.append(listener)
        """,
        "at ('127.0.0.1', ",
        """
        def test_it():
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
        """,
    ),
}
CLEANUP = """
@atexit.register
def clean_up():
    for one in kept:
        if isinstance(one, subprocess.Popen):
            one.kill()
            one.wait()
        elif hasattr(one, "close"):
            one.close()
"""
OPTIONS = (
    "-p",
    "pytest_asyncio.plugin",
    "-o",
    "asyncio_mode=auto",
    "-o",
    "asyncio_default_fixture_loop_scope=function",
)


def write(folder: Path, text: str, name: str = "test_it.py") -> str:
    """Write a test file and return the place of its line that is marked, as a report names it."""
    text = HEAD + CLEANUP + textwrap.dedent(text)
    (folder / name).write_text(text)
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# made here")]
    return f"{name}:{marked[0]}" if marked else ""


@pytest.mark.slow
def test_a_test_that_leaves_something_fails_and_says_what_and_who_made_it(tmp_path: Path) -> None:
    places = {kind: write(tmp_path, leaving, f"test_{kind}.py") for kind, (leaving, _, _) in CASES.items()}

    done = run_pytest(tmp_path, "--headrace-leaks", *OPTIONS)

    assert done.returncode == 1, done.stdout + done.stderr
    # Each names its own leak alone, although what the others have left is still there.
    assert f"{len(CASES)} passed, {len(CASES)} errors" in done.stdout, done.stdout
    assert done.stdout.count("the test left 1 behind:") >= len(CASES)
    for kind, (_, what, _) in CASES.items():
        lines = [line for line in done.stdout.splitlines() if what in line]
        assert any(kind in line and places[kind] in line for line in lines), lines


def test_a_test_that_leaves_nothing_passes(tmp_path: Path) -> None:
    for kind, (_, _, clean) in CASES.items():
        write(tmp_path, clean, f"test_{kind}.py")

    done = run_pytest(tmp_path, "--headrace-leaks", *OPTIONS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CASES)} passed" in done.stdout


MARKS = """
def leave():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def test_plain():
    leave()

@pytest.mark.headrace_leaks
def test_asked_for():
    leave()

@pytest.mark.headrace_leaks(False)
def test_not_wanted():
    leave()

@pytest.mark.headrace_leaks(allow=["thread"])
def test_allowed():
    leave()

@pytest.mark.headrace_leaks(allow=["file"])
def test_another_kind_allowed():
    leave()

@pytest.mark.headrace_leaks(allow=["thraed"])
def test_mistyped():
    leave()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "fails"),
    [
        ((), {"asked_for", "another_kind_allowed", "mistyped"}),
        (("-o", "headrace_leaks=true"), {"plain", "asked_for", "another_kind_allowed", "mistyped"}),
    ],
)
def test_marks_and_the_setting_switch_it(tmp_path: Path, options: tuple[str, ...], fails: set[str]) -> None:
    write(tmp_path, MARKS)

    done = run_pytest(tmp_path, "--strict-markers", "-rE", *options)

    failed = {line.split("::test_")[1].split()[0] for line in done.stdout.splitlines() if line.startswith("ERROR ")}
    assert failed == fails, done.stdout + done.stderr
    assert "expected some of census, task, thread, process, file, socket" in done.stdout


def test_what_wider_fixtures_make_is_theirs_and_not_the_tests(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        @pytest.fixture(scope="module")
        def poller():
            end = threading.Event()
            thread = threading.Thread(target=end.wait, name="poller")
            thread.start()
            yield thread
            end.set()
            thread.join()

        app = Headrace()

        @app.task
        async def step(number):
            return number

        @pytest.mark.parametrize("number", range(3))
        async def test_it(poller, headrace_connected, number):
            from headrace.testing import run_until_idle
            async with headrace_connected(app):
                job = await step.enqueue(number)
                await run_until_idle(app)
                assert await job.result(timeout=5) == number
        """,
    )

    done = run_pytest(tmp_path, "--headrace-leaks", *OPTIONS)

    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout


KEYS = """
@pytest.mark.parametrize("end", ["waits", "runs", "cancels", "foreign"])
async def test_it(headrace_server, headrace_prefix, end):
    from headrace.resp import pack_command
    from headrace.testing import run_until_idle
    app = Headrace(headrace_server.url, settings={"prefix": headrace_prefix})

    @app.task(queue="mail")
    async def step(number):
        return number

    async with app:
        job = await step.enqueue(1)
        if end == "runs":
            await run_until_idle(app)
        elif end == "cancels":
            await job.cancel()
        elif end == "foreign":
            await run_until_idle(app)
            await app.control.roundtrip(pack_command("SET", f"{headrace_prefix}:mine", "1"), 1)
"""


def test_keys_of_jobs_that_have_not_ended_and_foreign_ones_fail_their_test(tmp_path: Path) -> None:
    write(tmp_path, KEYS)

    done = run_pytest(tmp_path, *OPTIONS, "-rpE")

    assert "PASSED test_it.py::test_it[runs]" in done.stdout, done.stdout + done.stderr
    assert "ERROR test_it.py::test_it[runs]" not in done.stdout
    assert "ERROR test_it.py::test_it[cancels]" not in done.stdout
    assert "ERROR test_it.py::test_it[waits]" in done.stdout
    assert ":{mail}:wait:5': jobs that wait; run, cancel or clear them" in done.stdout, done.stdout
    assert "ERROR test_it.py::test_it[foreign]" in done.stdout
    assert ":mine': no key that outlives its jobs, or none of Headrace" in done.stdout
