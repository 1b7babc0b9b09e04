"""The tables of other job queues go into both documents; what failed is told, and the best peer is computed."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "peers.py"
CIRCUMSTANCES = {"command": "python benchmarks/peers.py --write", "machine": "a machine"}


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The writer of the documents, with documents of its own."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    writer = importlib.import_module("peer_pages")
    for name, (path, mark) in {"FRONT": writer.FRONT, "TABLES": writer.TABLES}.items():
        copy = tmp_path / f"{name}.md"
        copy.write_text(path.read_text())
        monkeypatch.setattr(writer, name, (copy, mark))
    yield writer
    sys.modules.pop("peer_pages", None)


def subject(name: str, rate: float, **errors: str) -> Any:
    peers: Any = importlib.import_module("benchmarks.peers")
    requirements = [] if name.startswith(("headrace", "floor")) else [f"{name}==1"]
    measures = ("drain", "bulk", "single", "sleep", "cpu", "server_cpu", "memory")
    figures = {} if errors else {measure: [rate] for measure in measures}
    return peers.Subject(name, "x.py", "", requirements=requirements, figures=figures, errors=errors)


def test_both_documents_get_the_figures_of_one_run(pages: Any) -> None:
    subjects = [
        subject("headrace", 900.0), subject("floor-hiredis", 1000.0), subject("slow", 10.0), subject("fast", 30.0),
        subject("gone", 0.0, drain="no such package", single="no such package", sleep="no such package"),
    ]  # fmt: skip

    pages.check_pages()
    pages.write_pages("machine  a machine", subjects, CIRCUMSTANCES, 3)

    front, tables = pages.FRONT[0].read_text(), pages.TABLES[0].read_text()
    assert "best of 2 peers |" in front
    assert "| no-op jobs a second | 900 | 1,000 (hiredis) | 30 (fast) |" in front
    assert "| server memory a waiting job, bytes | 900 | 1,000 (hiredis) | 10 (slow) |" in front
    assert "gone failed (all): no such package" in front
    assert "```\nmachine  a machine\n```" in tables
    assert "gone failed (all): no such package" in tables
    assert front.startswith("# Headrace\n")
    assert "<!-- incident -->" in front


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "nonesuch"], "expected some of dramatiq"),
        (["--write", "--only", "saq"], "leave out --only"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--json", "no/such/folder/x.json"], "there is no folder"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_runs(arguments: list[str], complaint: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_server_and_the_folder(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, str(SCRIPT), "--only", "floor-hiredis", "--count", "100", "--repeats", "1000"]
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()

        process.send_signal(number)

        _, errors = process.communicate(timeout=30)
    assert first.startswith("repeat 1 of 1000")
    assert process.returncode == 128 + number, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
