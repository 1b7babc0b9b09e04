"""Compare Headrace with other job queues for Python on one server: drain, enqueue, sleeping jobs, memory.

    python benchmarks/peers.py                      all subjects, 5 repeats
    python benchmarks/peers.py --only saq,arq       some of them
    python benchmarks/peers.py --quick              2 repeats of few jobs, to see that everything runs
    python benchmarks/peers.py --write --repeats 3  put the tables into README.md and benchmarks/README.md

The subjects, their pinned versions and how each is configured are in peers/subjects.toml: what its documents offer that
is fastest here, keeps running a job at least once where the subject can, and is sane for real work; results off. Each
is installed on first use into an environment of its own, benchmarks/.envs/NAME, and driven there by a small script,
peers/NAME_adapter.py. What a measure contains is told in peers/adapter_kit.py; each is one process, so that a drain is
what one Python worker process does.

All subjects use one private server over its unix socket, with the append-only file written every second, as a queue
that may lose nothing needs. The subjects take turns within each repeat, each repeat starting with another one, so that
a disturbance of the machine meets them all; FLUSHALL precedes each measure. Printed are medians with the extremes, and
the ratio to the fastest peer, which is the best median among all subjects but Headrace and the floors.

Processor time is told of the worker and of the server apart, because a subject may save one by spending the other; that
of the server includes the connecting of the worker. Wall time is neither: on an idle machine about their sum, where the
two wait for each other.

A subject that cannot be installed or fails stays in the tables, with its last error; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import redis

from headrace.bench.facts import describe_machine
from headrace.bench.surroundings import default_environment
from headrace.server import start_private_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE: Final = Path(__file__).resolve().parent
ADAPTERS: Final = HERE / "peers"
ENVIRONMENTS: Final = HERE / ".envs"
INSTALL_TIMEOUT: Final = 300.0
# Longest run of one measure in seconds, and what its process may take on top for start and end.
RUN_TIMEOUT: Final = 90.0
RUN_MARGIN: Final = 15.0
CLIENTS_GONE_TIMEOUT: Final = 5.0
MEASURES: Final = ("drain", "single", "sleep")


class SubjectError(Exception):
    """A subject could not be installed or measured; the text is the last line of its error."""


@dataclass(slots=True)
class Subject:
    """One job queue, and what was measured of it: measure -> one figure for each repeat."""

    name: str
    adapter: str
    configuration: str
    environment: str = ""
    requirements: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    factor: float = 1.0
    on_request: bool = False
    figures: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether this is Headrace, which needs no environment of its own and is no peer."""
        return not self.requirements

    @property
    def version(self) -> str:
        """What is compared, with its version."""
        if self.ours:
            return f"headrace {importlib.metadata.version('headrace')}"
        return self.requirements[0].replace("==", " ")

    @property
    def python(self) -> Path:
        """The interpreter that runs the adapter."""
        if self.ours:
            return Path(sys.executable)
        return ENVIRONMENTS / (self.environment or self.name) / "bin" / "python"

    def error_of(self, measure: str) -> str:
        """Return why a measure failed, or nothing; what a drain brings along fails with it."""
        if self.figures.get(measure):
            return self.errors.get(measure, "")
        return self.errors.get(measure) or self.errors.get("drain", "")


def last_line(text: str) -> str:
    """Return the last line that says something, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    return lines[-1][:200] if lines else "it said nothing"


def call(
    command: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in the adapters' folder to its end.

    Raises:
        SubjectError: It failed or took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            command, cwd=ADAPTERS, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise SubjectError(f"ended after {timeout:.0f} s: {shlex.join(map(str, command[1:]))[:120]}") from None
    if done.returncode and not done.stdout.startswith('{"error"'):
        raise SubjectError(last_line(done.stderr))
    return done


def install(subject: Subject) -> None:
    """Make the subject's environment, unless it is there with the same requirements.

    Raises:
        SubjectError: The environment could not be made or the packages not installed.
    """
    if subject.ours:
        return
    folder = subject.python.parent.parent
    stamp = folder / "requirements.txt"
    wanted = "\n".join(subject.requirements) + "\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {subject.name}: {' '.join(subject.requirements)}", file=sys.stderr)
    call([sys.executable, "-m", "venv", "--clear", folder], timeout=INSTALL_TIMEOUT)
    pip = [str(subject.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    call([*pip, *subject.requirements], timeout=INSTALL_TIMEOUT)
    stamp.write_text(wanted)


def run_adapter(subject: Subject, measure: str, url: str, count: int, task: str = "noop") -> dict[str, float]:
    """Run one measure of a subject in a process of its own.

    Raises:
        SubjectError: The subject failed, or did not end in time.
    """
    command = [str(subject.python), subject.adapter, measure, "--url", url, "--count", str(count), "--task", task]
    command += ["--deadline", str(RUN_TIMEOUT)]
    done = call(command, timeout=RUN_TIMEOUT + RUN_MARGIN, env=default_environment() | subject.variables)
    figures: dict[str, Any] = json.loads(last_line(done.stdout))
    if "error" in figures:
        logged = f"; it logged: {last_line(done.stderr)}" if done.stderr.strip() else ""
        raise SubjectError(last_line(figures["error"]) + logged)
    return figures


class Comparison:
    """Measures subjects on one server, which it clears before each measure.

    Args:
        url: A server of its own.
        count: Jobs of a measure, before a subject's factor.
    """

    def __init__(self, url: str, count: int) -> None:
        self.url = url
        self.count = count
        self.client: Any = redis.Redis.from_url(url)

    def memory_bytes(self) -> int:
        """Return what the server uses, once all clients but this one are gone."""
        deadline = time.monotonic() + CLIENTS_GONE_TIMEOUT
        while self.client.info("clients")["connected_clients"] > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        return int(self.client.info("memory")["used_memory"])

    def cpu_seconds(self) -> float:
        """Return the processor time that the server has used."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def prepare(self, subject: Subject) -> None:
        """Install a subject and let it run a few jobs, which also leaves its Lua scripts with the server.

        Raises:
            SubjectError: It could not be installed or did not run.
        """
        install(subject)
        self.client.flushall()
        run_adapter(subject, "bulk", self.url, 200)
        run_adapter(subject, "drain", self.url, 100)

    def measure(self, subject: Subject, measure: str) -> dict[str, float]:
        """Take one measure; `drain` takes those of enqueueing in bulk, memory and processor time with it.

        Raises:
            SubjectError: The subject failed.
        """
        count = max(100, round(self.count * subject.factor))
        self.client.flushall()
        if measure == "single":
            return {"single": _rate(run_adapter(subject, "single", self.url, count))}
        if measure == "sleep":
            count = min(self.count, count)
            run_adapter(subject, "bulk", self.url, count, "sleep")
            return {"sleep": _rate(run_adapter(subject, "drain", self.url, count, "sleep"))}
        before = self.memory_bytes()
        bulk = run_adapter(subject, "bulk", self.url, count)
        waiting_bytes = self.memory_bytes() - before
        server_before = self.cpu_seconds()
        drain = run_adapter(subject, "drain", self.url, count)
        server_seconds = self.cpu_seconds() - server_before
        return {
            "drain": _rate(drain),
            "bulk": _rate(bulk),
            "cpu": drain["cpu_seconds"] / drain["jobs"] * 1e6,
            "server_cpu": server_seconds / count * 1e6,
            "memory": waiting_bytes / (count + 1),
        }

    def run(self, subjects: Sequence[Subject], repeats: int) -> None:
        """Measure all subjects in turns; what fails is noted and not tried again."""
        for subject in subjects:
            try:
                self.prepare(subject)
            except SubjectError as error:
                subject.errors = dict.fromkeys(MEASURES, str(error))
        for repeat in range(repeats):
            for subject in [*subjects[repeat % len(subjects) :], *subjects[: repeat % len(subjects)]]:
                for measure in MEASURES:
                    self._take(subject, measure)
                print(f"repeat {repeat + 1} of {repeats}: {subject.name}", file=sys.stderr)

    def _take(self, subject: Subject, measure: str) -> None:
        if measure in subject.errors:
            return
        try:
            for name, figure in self.measure(subject, measure).items():
                subject.figures.setdefault(name, []).append(figure)
        except SubjectError as error:
            subject.errors[measure] = str(error)


def _rate(figures: Mapping[str, float]) -> float:
    return figures["jobs"] / figures["seconds"]


def facts(comparison: Comparison, load_before: float) -> dict[str, str]:
    """Collect what a figure depends on."""
    server = comparison.client.info("server")
    name = server.get("server_name", "redis")
    aof = comparison.client.config_get("append*")
    return {
        "machine": describe_machine(),
        "load": f"{load_before:.2f} before, {os.getloadavg()[0]:.2f} after",
        "python": platform.python_version(),
        "server": f"{name} {server.get('valkey_version', server['redis_version'])}, unix socket, "
        f"appendonly {aof['appendonly']}, appendfsync {aof['appendfsync']}",
        "command": shlex.join(["python", "benchmarks/peers.py", *sys.argv[1:]]),
    }


def load_subjects(only: str | None) -> list[Subject]:
    """Read the subjects that are asked for.

    Raises:
        SystemExit: `only` names a subject that there is not.
    """
    entries = tomllib.loads((ADAPTERS / "subjects.toml").read_text())
    known = [Subject(name=name, **entry) for name, entry in entries.items()]
    if only is None:
        return [subject for subject in known if not subject.on_request]
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if not wanted or set(wanted) - {subject.name for subject in known}:
        raise SystemExit(f"--only {only}: expected some of {', '.join(subject.name for subject in known)}.")
    return [subject for subject in known if subject.name in wanted]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="NAME,...", help="the subjects to compare")
    parser.add_argument("--repeats", type=int, help="how often each measure is taken, by default 5")
    parser.add_argument("--count", type=int, help="jobs of a measure, by default 5000")
    parser.add_argument("--quick", action="store_true", help="2 repeats of 1000 jobs unless told otherwise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md and benchmarks/README.md")
    given = parser.parse_args()
    given.repeats = (2 if given.quick else 5) if given.repeats is None else given.repeats
    given.count = (1_000 if given.quick else 5_000) if given.count is None else given.count
    if given.repeats < 1 or given.count < 100:
        parser.error("--repeats must be at least 1, --count at least 100")
    if given.write and (given.only or given.quick):
        parser.error("--write is for the figures of all subjects: leave out --only and --quick")
    if given.json and not given.json.parent.is_dir():
        parser.error(f"--json {given.json}: there is no folder {given.json.parent}")
    return given


def stop(number: int, frame: object) -> None:
    """End at a signal, once: what was started ends with it."""
    del frame
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    print("interrupted", file=sys.stderr)
    raise SystemExit(128 + number)


def main() -> int:
    """Compare, print the tables, and write the figures; return 1 when a subject failed."""
    from peer_pages import all_tables, check_pages, write_pages

    given = arguments()
    subjects = load_subjects(given.only)
    if given.write:
        check_pages()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    load_before = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="headrace-peers-") as folder,
        start_private_server(Path(folder)) as server,
    ):
        comparison = Comparison(server.url, given.count)
        comparison.run(subjects, given.repeats)
        circumstances = facts(comparison, load_before)
    lines = [f"{name:9}{fact}" for name, fact in circumstances.items()]
    lines += [f"{'subject':9}{subject.name}, {subject.version}: {subject.configuration}" for subject in subjects]
    lines += [f"{'jobs':9}{given.count:,} ({given.repeats} repeats); each a number and a text of 200 bytes"]
    head = "\n".join(lines)
    print(head, all_tables(subjects), sep="\n\n")
    if given.json:
        rows = {one.name: {"version": one.version, "figures": one.figures, "errors": one.errors} for one in subjects}
        given.json.write_text(json.dumps({"facts": circumstances, "subjects": rows}, indent=2) + "\n")
    if given.write:
        write_pages(head, subjects, circumstances, given.repeats)
    return 1 if any(subject.errors for subject in subjects) else 0


if __name__ == "__main__":
    sys.exit(main())
