"""The app of the demonstration, as a user would write one: three tasks, and a middleware that keeps a log of all runs.

One job counts one file, one adds the files of a package up, and the last one makes the report. The workers import this
module.
"""

from __future__ import annotations

import ast
import gc
import heapq
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from headrace import Headrace
from headrace.pool.link import Lane
from headrace.resp import pack_command
from headrace.store.replies import refuse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from headrace.context import CurrentJob
    from headrace.pool.carrier import Carrier

#: How many of the longest functions are kept.
LONGEST: Final = 10
#: The queues, in the order in which the work goes through them.
QUEUES: Final = ("files", "packages", "report")

app = Headrace()


class Function(msgspec.Struct, frozen=True, array_like=True):
    """A function and where it is; `lines` runs from its `def` to its last line."""

    lines: int
    name: str
    path: str
    line: int


class Count(msgspec.Struct, array_like=True):
    """What was counted in one file, or in several together.

    Attributes:
        name: The file, the package, or a word for all of them.
        files: Files counted.
        lines: Their lines.
        definitions: Functions and classes.
        imports: Import statements.
        not_parsed: Files that are no Python of this version: their lines are counted, and nothing else.
        reasons: Why, by file.
        longest: The longest functions, the longest first.
        pid: Process that counted.
    """

    name: str
    files: int = 0
    lines: int = 0
    definitions: int = 0
    imports: int = 0
    not_parsed: int = 0
    reasons: dict[str, str] = {}
    longest: list[Function] = []
    pid: int = 0


class Report(msgspec.Struct, array_like=True):
    """The end of the work: all files together, and each package."""

    total: Count
    packages: list[Count]


# Why plain functions: parsing is all computing, so it runs in a thread, and the loop stays free to renew the lease.
# Measured: coroutines that parse on the loop would be 8 % quicker, and hold it for up to 150 ms at a time.


@app.task(queue="files", attempts=3)
def count_file(root: str, name: str) -> Count:
    """Count one file."""
    count = Count(name, files=1, pid=os.getpid())
    try:
        source = Path(root, name).read_bytes()
        count.lines = len(source.splitlines())
        tree = ast.parse(source, name)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        count.not_parsed = 1
        count.reasons = {name: describe(error)}
        return count
    functions: list[Function] = []
    for statement, owner in statements(tree.body, ""):
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                count.definitions += 1
                length = (statement.end_lineno or statement.lineno) - statement.lineno + 1
                functions.append(Function(length, owner + statement.name, name, statement.lineno))
            case ast.ClassDef():
                count.definitions += 1
            case ast.Import() | ast.ImportFrom():
                count.imports += 1
    count.longest = longest(functions)
    return count


@app.task(queue="packages", attempts=3)
def count_package(name: str, counts: list[Count]) -> Count:
    """Add up what was counted in the files of one package, or in some of them."""
    return add_up(name, counts)


@app.task(queue="report", attempts=3)
def make_report(counts: list[Count]) -> Report:
    """Add up all packages."""
    parts: dict[str, list[Count]] = {}
    for count in counts:
        parts.setdefault(count.name, []).append(count)
    packages = [add_up(name, parts[name]) for name in sorted(parts)]
    return Report(add_up("all", packages), packages)


def describe(error: Exception) -> str:
    """Say why a file cannot be parsed."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}"


def statements(body: list[ast.stmt], owner: str) -> Iterator[tuple[ast.stmt, str]]:
    """List the statements of a body and of all bodies inside, each with the names around it: `Class.method.`."""
    for statement in body:
        yield statement, owner
        inside = owner
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{owner}{statement.name}."
        for part in ("body", "orelse", "finalbody"):
            yield from statements(getattr(statement, part, []), inside)
        for part in ("handlers", "cases"):
            for branch in getattr(statement, part, []):
                yield from statements(branch.body, inside)


def longest(functions: Iterable[Function]) -> list[Function]:
    """Return the longest functions, each once; of equally long ones those that come first."""
    return heapq.nsmallest(LONGEST, set(functions), key=lambda each: (-each.lines, each.path, each.line))


def add_up(name: str, counts: list[Count]) -> Count:
    """Add counts up."""
    total = Count(name, pid=os.getpid())
    for count in counts:
        total.files += count.files
        total.lines += count.lines
        total.definitions += count.definitions
        total.imports += count.imports
        total.not_parsed += count.not_parsed
        total.reasons = total.reasons | count.reasons
    total.longest = longest(function for count in counts for function in count.longest)
    return total


class Run(msgspec.Struct, frozen=True, array_like=True):
    """One run of a job, as the run log holds it; `at` is in seconds since 1970."""

    job: str
    task: str
    attempt: int
    pid: int
    at: float


class RunLog:
    """Write each run of a job down before it begins, so that jobs which run twice can be counted afterwards."""

    def __init__(self) -> None:
        self._link: Carrier | None = None

    async def before(self, job: CurrentJob) -> None:
        """Append to the list of runs, in Redis; the job begins when the server has confirmed it."""
        assert self._link is not None  # noqa: S101 - opened by the lifespan, around every job
        run = Run(job.id, job.task, job.attempt, os.getpid(), time.time())
        command = pack_command("RPUSH", run_log_key(app.settings.prefix), msgspec.msgpack.encode(run))
        (reply,) = await self._link.roundtrip(command, 1)
        refuse(reply, "RPUSH", str(self._link.address))

    async def open(self) -> AsyncGenerator[dict[str, object], None]:
        """Hold a connection for the log as long as a worker runs."""
        self._link = app.links.link(Lane.USER, "runs", owner="demo")
        # Measured: syntax trees have no cycles; a collector that looks for some all the time takes a quarter of it.
        threshold = gc.get_threshold()
        gc.set_threshold(200_000, 10, 10)
        try:
            yield {}
        finally:
            gc.set_threshold(*threshold)
            await app.links.release(self._link)


def run_log_key(prefix: str) -> str:
    """Return the key of the list of all runs."""
    return f"{prefix}:runs"


run_log = app.middleware(RunLog())
app.lifespan(run_log.open)
