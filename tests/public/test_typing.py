"""What a type checker says of code that uses Headrace: a wrong argument is an error, and results have their types."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: `# E: code` behind a line: mypy reports this error there, and none elsewhere. `# T: type`: the type it reveals.
CODE: Final = """
from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import headrace
from headrace import Exponential, Fixed, Headrace, Job, JobStatus, Priority, current_job, resource
from headrace.testing import connected, inline, run_until_idle

app = Headrace()


@app.task
async def greet(name: str, times: int = 1) -> list[str]:
    return [name] * times


@app.task(queue="bulk", attempts=5, backoff=Exponential(base=2.0), timeout=30.0, priority=Priority.HIGH)
def measure(path: str, *, limit: float) -> dict[str, float]:
    return {path: limit}


@app.task(process=True)
def nothing(*numbers: int) -> None: ...


@app.task(queu="bulk")  # E: call-overload
def misspelt() -> None: ...


@app.task(attempts="5")  # E: call-overload
def wrong_option() -> None: ...


@app.task
async def with_resource(number: int, db: str = resource()) -> int:
    job = current_job()
    reveal_type(job.attempt)  # T: int
    await job.progress(50, "half")
    job.follow(greet, "ann")
    return number


@app.middleware
class Notes:
    async def before(self, job: headrace.context.CurrentJob) -> None: ...


@app.lifespan
async def database() -> AsyncGenerator[dict[str, Any], None]:
    yield {"db": "db"}


async def enqueue() -> None:
    job = await greet.enqueue("ann", times=2)
    reveal_type(job)  # T: headrace.job.Job[list[str]]
    reveal_type(await job.result())  # T: list[str]
    reveal_type(await job.result(timeout=5.0))  # T: list[str]
    reveal_type(job.status)  # T: headrace.job.JobStatus
    reveal_type(await (await measure.enqueue("p", limit=1.0)).result())  # T: dict[str, float]
    reveal_type(await (await nothing.enqueue(1, 2)).result())  # T: None
    reveal_type(greet.enqueue_sync("ann"))  # T: headrace.job.Job[list[str]]
    reveal_type(await greet.enqueue_many([(("ann",), {"times": 3})]))  # T: list[headrace.job.Job[list[str]]]
    refreshed: Job[list[str]] = await job.refresh()
    await greet.enqueue(5)  # E: arg-type
    await greet.enqueue()  # E: call-arg
    await greet.enqueue("ann", 1, 2)  # E: call-arg
    await greet.enqueue("ann", time=1)  # E: call-arg
    await greet.enqueue("ann", times="2")  # E: arg-type
    await measure.enqueue("p")  # E: call-arg
    await measure.enqueue("p", 1.0)  # E: call-arg
    await nothing.enqueue("one")  # E: arg-type
    greet.enqueue_sync(5)  # E: arg-type
    wrong: Job[int] = await greet.enqueue("ann")  # E: assignment


async def using() -> None:
    soon = greet.using(delay=5.0, key="k", priority=7)
    reveal_type(await soon.enqueue("ann"))  # T: headrace.job.Job[list[str]]
    reveal_type(measure.using(queue="q").enqueue_sync("p", limit=1.0))  # T: headrace.job.Job[dict[str, float]]
    await soon.enqueue(5)  # E: arg-type
    await soon.enqueue("ann", tims=2)  # E: call-arg
    greet.using(delay="5")  # E: arg-type
    greet.using(dely=5)  # E: call-arg


async def call_directly() -> None:
    reveal_type(await greet("ann"))  # T: list[str]
    reveal_type(measure("p", limit=2.0))  # T: dict[str, float]
    await greet(5)  # E: arg-type
    measure("p")  # E: call-arg
    await with_resource(1, db="mine")


async def test_kit() -> None:
    with inline(app) as ran:
        reveal_type([job.status for job in ran.ran(greet)])  # T: list[headrace.job.JobStatus]
        ran.ran("greet")  # E: arg-type
    async with connected(app) as same:
        reveal_type(same)  # T: headrace.app.Headrace
        reveal_type((await run_until_idle(app, timeout=5.0)).completed)  # T: int


async def ask() -> None:
    status = (await app.queue("mail").job("id").refresh()).status
    reveal_type(status == "failed" or status is JobStatus.CANCELLED)  # T: bool
    reveal_type((await app.queue("mail").stats()).waiting)  # T: int
    app.subscribe("job.*", lambda event: print(event.fields["job"]))
    app.queue(5)  # E: arg-type
    Fixed("5")  # E: arg-type
    headrace.Headace  # E: attr-defined
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[tuple[str, str]]]:
    """What mypy says of each line: kind and text."""
    path: Path = tmp_path_factory.mktemp("typing") / "shop.py"
    path.write_text(CODE)
    # With the settings of this repository, so that what it has cached of the package serves here too.
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--show-error-codes", str(path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[int, list[tuple[str, str]]] = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r".*shop\.py:(\d+): (error|note): (.*)", line)
        if match is not None:
            found.setdefault(int(match[1]), []).append((match[2], match[3]))
    return found


def marks(kind: str) -> list[tuple[int, str]]:
    return [
        (number, match[1])
        for number, line in enumerate(CODE.splitlines(), 1)
        if (match := re.search(rf"  # {kind}: (.+)$", line))
    ]


def test_mistakes_are_errors_where_they_are_made_and_nowhere_else(said: dict[int, list[tuple[str, str]]]) -> None:
    errors = {
        (number, re.sub(r".*\[([\w-]+)\]$", r"\1", text))
        for number, those in said.items()
        for kind, text in those
        if kind == "error"
    }
    # A wrong option also leaves its function without a type.
    echoes = {(number, "untyped-decorator") for number, code in marks("E") if code == "call-overload"}

    assert sorted(errors - echoes) == marks("E"), said


@pytest.mark.parametrize(("number", "type_"), marks("T"))
def test_a_value_has_the_type_that_its_author_expects(
    said: dict[int, list[tuple[str, str]]], number: int, type_: str
) -> None:
    revealed = [text for _, text in said.get(number, [])]

    assert revealed == [f'Revealed type is "{type_}"'], CODE.splitlines()[number - 1].strip()


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src/headrace/py.typed").is_file()
