"""Run the two sides one after the other, each with a server of its own, and collect what they tell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import redis

from headrace.bench.checkout import find_checkout
from headrace.bench.facts import collect_facts, describe_private
from headrace.bench.surroundings import default_environment
from headrace.errors import HeadraceError
from headrace.server import start_private_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.bench.incident.workload import Workload

#: Seconds that one side may take on top of its phases: the start, the monitoring of two days, the surge, the end.
MARGIN: Final = 120.0


class SideReport(msgspec.Struct):
    """What one side told.

    Attributes:
        name: `incident` or `headrace`.
        started_mb: Resident memory after the start.
        history_mb: By what it grew with the monitoring of the time before.
        phases: Phase -> its figures, as side.py tells them, with `server_seconds` and `commands` of the server.
        closing: What was known at the end only.
    """

    name: str
    started_mb: float = 0.0
    history_mb: float = 0.0
    phases: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    closing: dict[str, Any] = msgspec.field(default_factory=dict)


class Run(msgspec.Struct):
    """Both sides, one after the other."""

    before: SideReport
    after: SideReport


class IncidentReport(msgspec.Struct):
    """Some runs of both sides, with what the figures depend on."""

    schema: str
    facts: dict[str, str]
    workload: dict[str, Any]
    runs: list[Run]


async def compare_incident(workload: Workload, tell: Callable[[str], None], repeats: int = 1) -> IncidentReport:
    """Run both sides, that of the incident first, so many times.

    Args:
        workload: What they carry.
        tell: Called with a line for each phase that begins.
        repeats: How often.

    Raises:
        OptionError: There is no checkout, which holds the incident's side.
        ServerStartFailed: The server could not be started.
        HeadraceError: A side failed, or took too long.

    Cancelling leaves no process behind.
    """
    load_before = os.getloadavg()[0]
    script = find_checkout("benchmarks/incident/service.py")
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as text:
        folder = Path(text)
        runs = []
        for number in range(1, repeats + 1):
            place = folder / f"run-{number}"
            place.mkdir()

            def say(line: str, number: int = number) -> None:
                tell(line if repeats == 1 else f"run {number} of {repeats}: {line}")

            before = await _run_side("incident", [str(script)], workload, place, say)
            after = await _run_side("headrace", ["-m", "headrace.bench.incident.ours"], workload, place, say)
            runs.append(Run(before, after))
        with start_private_server(folder / "facts") as server:
            facts = collect_facts(describe_private(server.binary), load_before)
    return IncidentReport("headrace-bench-incident-2", facts, workload.plain(), runs)


async def _run_side(
    name: str, script: Sequence[str], workload: Workload, folder: Path, tell: Callable[[str], None]
) -> SideReport:
    place = folder / name
    place.mkdir()
    limit = MARGIN + workload.idle + 3 * workload.steady + workload.rush
    log = place / "errors.log"
    with start_private_server(place / "server") as server, log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *script, server.url, json.dumps(workload.plain()),
            cwd=place, env=default_environment(), stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True,
            # A phase is one line, with all that was seen in it.
            limit=64 * 1024 * 1024,
        )  # fmt: skip
        try:
            async with asyncio.timeout(limit):
                report = await _Reader(name, server.url, tell).read(process)
                code = await process.wait()
        except TimeoutError as error:
            raise HeadraceError(
                f"the side '{name}' did not end within {limit:g} s. Look for what else keeps this machine busy."
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code or not report.closing:
        end = log.read_text(errors="replace").strip()[-2_000:] or "(nothing)"
        raise HeadraceError(f"the side '{name}' ended by itself with code {code}. Its output ends with:\n{end}")
    return report


class _Reader:
    """Take the lines of one side, and ask its server at the edges of each phase."""

    def __init__(self, name: str, url: str, tell: Callable[[str], None]) -> None:
        self._report = SideReport(name)
        self._url = url
        self._tell = tell

    async def read(self, process: asyncio.subprocess.Process) -> SideReport:
        report = self._report
        assert process.stdout is not None  # noqa: S101 - a pipe
        with redis.Redis.from_url(self._url) as client:
            used = self._server(client)
            while line := await process.stdout.readline():
                told: dict[str, Any] = json.loads(line)
                event = told.pop("event")
                if event == "started":
                    report.started_mb = told["memory"]
                elif event == "aged":
                    report.history_mb = told["grown"]
                elif event == "begin":
                    self._tell(f"{report.name}: {told['phase']}")
                    used = self._server(client)
                elif event == "phase":
                    now = self._server(client)
                    # Why one less: the question itself is a command.
                    told |= {"server_seconds": now[0] - used[0], "commands": now[1] - used[1] - 1}
                    report.phases[told.pop("phase")] = told
                elif event == "end":
                    report.closing = told
        return report

    @staticmethod
    def _server(client: redis.Redis) -> tuple[float, int]:
        """Return the processor time of the server, and how many commands it has got."""
        info: dict[str, Any] = client.info("everything")
        return info["used_cpu_user"] + info["used_cpu_sys"], info["total_commands_processed"]
