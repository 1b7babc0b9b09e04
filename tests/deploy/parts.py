"""Read the files of `deploy/`, and run a server and commands as they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headrace.server import find_server
from headrace.worker.supervisor import STOP_MARGIN
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEPLOY = ROOT / "deploy"
#: Nothing that these tests wait for takes longer, seconds.
DEADLINE = 30.0
#: A worker that was told to stop is gone after its grace and this; the supervisor kills what is left.
STOPPED_AFTER = STOP_MARGIN
#: Checks of how long something took.
BUSY = {"latency at rest", "slow log"}
#: Of what no process runs yet nothing can be said.
OF_PROCESSES = "memory of running processes"
OWN = ("HEADRACE_", "REDIS_", "QUEUE_", "MONITORING_", "MEMORY_")


def read(name: str) -> str:
    return (DEPLOY / name).read_text()


def documents(name: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return [document for document in yaml.safe_load_all(read(name)) if document]


def document(name: str, kind: str) -> dict[str, Any]:
    """Return the one document of this kind."""
    (found,) = [each for each in documents(name) if each["kind"] == kind]
    return found


def directives(text: str) -> dict[str, str]:
    """Return the lines of a configuration of Valkey: name to the rest of the line."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split(" ", 1) for line in lines)


def size_bytes(text: str) -> int:
    """Read a size as Valkey, systemd, compose and Kubernetes write it; all of these mean powers of 1,024.

    Example:
        >>> size_bytes("2gb"), size_bytes("512m"), size_bytes("4Gi")
        (2147483648, 536870912, 4294967296)
    """
    match = re.fullmatch(r"(\d+)([kmg]?)i?b?", text.lower())
    assert match, text
    power: int = " kmg".index(match[2] or " ")
    return int(match[1]) << (10 * power)


def seconds(text: str) -> float:
    """Read `45s` or `45`."""
    return float(text.removesuffix("s"))


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without any setting, with the programs of this interpreter first on PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more}


@contextmanager
def serving(folder: Path, *options: str, conf: str | None = None, open_files: int = 0) -> Iterator[str]:
    """Run a server with `deploy/valkey.conf` on a socket in a folder; `options` win over the file."""
    file = folder / "valkey.conf"
    file.write_text(read("valkey.conf") if conf is None else conf)
    path = folder / "s.sock"
    log = folder / "server.log"
    command = [str(find_server().path), str(file), "--dir", str(folder), "--port", "0", "--unixsocket", str(path)]
    if open_files:
        command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + DEADLINE
        while "Ready to accept connections" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        yield f"unix://{path}"
    finally:
        process.terminate()
        process.wait(DEADLINE)


def headrace(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of headrace with no other settings than these."""
    return subprocess.run(
        ["headrace", *arguments], env=clean_environment(**(environment or {})), cwd="/", stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


def doctor(url: str) -> dict[str, dict[str, Any]]:
    """Return what `headrace doctor --json` finds, by the name of the check."""
    done = headrace("doctor", "--json", environment={"REDIS_URL": url})
    assert done.stdout, done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def complaints(checks: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return name and measurement of each check that does not pass, but for those that a busy machine may fail."""
    assert checks.keys() > BUSY
    return [
        (name, check["measured"])
        for name, check in checks.items()
        if check["grade"] != ("skipped" if name == OF_PROCESSES else "pass") and name not in BUSY
    ]
