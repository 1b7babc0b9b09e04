"""Run the examples of a page as a reader would: files are written, commands are run, and what they print is compared.

What a page may hold:

    ``` with a first line `# shop.py`       a file of any kind; `# shop.py, continued` adds to it
    ```python with anything else            lines to put inside `async with app:`, with the app of the page's first
                                            file; a comment behind a `print(...)` is what it prints
    ```console                              commands behind `$ `, each with what it prints
    <!-- background -->                     in front of a console block: it runs until the page ends or its files change
    <!-- file: deploy/x.yml -->             in front of a block of any kind: it is that file of the repository, word
                                            for word, and the reader has it under that name
    <!-- not run: REASON -->                in front of any of them: it is only shown

A block of text, or of a kind in `SHOWN_ONLY`, is only shown; any other block, and any fence that is not read as one,
is refused.

In what a command prints, a line `...` stands for any lines, and ` ...` at the end of a line for its rest. Of a command
in the background, the lines that are shown must have been printed, whatever else was. What
`python FILE` prints must agree to the letter; in what other programs print, numbers, ids and units of time may differ.
A command with an id that the page has shown before is run with the id that was printed there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from tests.tidy.tree import ROOT, tracked_files

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds for one command.
TIMEOUT: Final = 75
SHOWN_ONLY: Final = {"", "text"}

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n+)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
_COMMAND = re.compile(r"((?:[^\n]*\\\n)*[^\n]*)(.*)", re.DOTALL)
_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)
_FILE = re.compile(r"# (?P<name>[\w./-]*\.\w+|(?:\w+/)*Dockerfile)(?P<more>, continued)?\n")
_NOTE = re.compile(r"background|/?[\w-]+|not run: \S.*|file: (?P<file>\S+)")
_PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
_EXACT = re.compile(r"python [\w/]+\.py\b")
_ID = re.compile(r"\b[0-9a-hjkmnp-tv-z]{12}[0-9a-f]{6}\b")
_WORKER = re.compile(r"\b[0-9a-hjkmnp-tv-z]{10}\b")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_UNIT = re.compile(r"\b0 (?:ms|s|min|h)\b")

_INSIDE: Final = """\
import asyncio

from {module} import app


async def main() -> None:
    async with app:
{lines}

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block, and what it prints."""

    text: str
    printed: str
    background: bool


@dataclass(frozen=True, slots=True)
class File:
    """A file, or more of one."""

    name: str
    text: str
    more: bool


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of Python to be run inside `async with app:`, and what they print."""

    text: str
    printed: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A file of the repository, and what the page shows of it."""

    name: str
    text: str


Step = Command | Copy | File | Lines


def steps(page: str) -> Iterator[Step]:
    """Read the examples of a page in their order.

    Raises:
        ValueError: A block looks as if it were run, and is not: use python and console. A mark is none of the above.
    """
    if left := _FENCE.search(_BLOCK.sub("", page)):
        raise ValueError(f"a fence that is not read: {left[0]!r}; start it at the line's first letter, with one word")
    for block in _BLOCK.finditer(page):
        kind, body, note = block["kind"], block["body"], block["note"] or ""
        named = _FILE.match(body)
        mark = _NOTE.fullmatch(note)
        if note and not mark:
            raise ValueError(f"a mark that is not known: <!-- {note} -->")
        if mark and mark["file"]:
            yield Copy(mark["file"], body)
            continue
        if note.startswith("not run: ") or (kind in SHOWN_ONLY and not named):
            continue
        if named:
            yield File(named["name"], body, bool(named["more"]))
        elif kind == "python":
            yield Lines(body, "\n".join(_PRINTED.findall(body)))
        elif kind == "console":
            for command in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                # A line that ends with a backslash goes on in the next one.
                text, printed = _COMMAND.fullmatch(command).groups()  # type: ignore[union-attr]  # it fits any text
                yield Command(text, printed.strip("\n"), note == "background")
        else:
            raise ValueError(f"a block of kind '{kind}': write python or console, or one of {sorted(SHOWN_ONLY)}")


def difference(printed: str, expected: str, *, exact: bool) -> str | None:
    """Tell how what was printed differs from what the page shows, or None."""
    lines, wanted = _plain(printed, exact=exact), _plain(expected, exact=exact)
    pattern = "\n".join("@" if line == "..." else _pattern(line) for line in wanted)
    pattern = re.sub(r"(?:\n|^)@(?=\n|$)", r"(?:(?:^|\\n)[^\\n]*)*?", pattern)
    if re.fullmatch(pattern, "\n".join(lines)):
        return None
    return f"printed:\n{printed}\n\nthe page shows:\n{expected}"


def _pattern(line: str) -> str:
    return re.escape(line[:-4]) + r"[^\n]*" if line.endswith(" ...") else re.escape(line)


def _plain(text: str, *, exact: bool) -> list[str]:
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return lines if exact else [mask(line) for line in lines]


def mask(line: str) -> str:
    """Take out of a line what differs from run to run.

    Example:
        >>> mask("9zm3k1q7w2ab000001  waiting   12.5 ms")
        'ID waiting 0 s'
    """
    for pattern, name in ((_ID, "ID"), (_WORKER, "WORKER"), (_NUMBER, "0"), (_UNIT, "0 s")):
        line = pattern.sub(name, line)
    return re.sub(r" {2,}", " ", re.sub(r"-{2,}", "--", line))


@dataclass
class Working:
    """A command that runs until it is stopped."""

    process: subprocess.Popen[bytes]
    output: Path
    shown: str


@dataclass
class Reader:
    """Somebody who follows a page in a folder of their own.

    Attributes:
        folder: Where the files are written.
        url: The server.
    """

    folder: Path
    url: str
    module: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    working: dict[str, Working] = field(default_factory=dict)

    def follow(self, page: str) -> Iterator[str]:
        """Do what a page says; yield each way in which it is wrong."""
        changed = False
        try:
            for step in steps(page):
                if isinstance(step, File):
                    self._write(step)
                    changed = True
                    continue
                if isinstance(step, Copy):
                    yield from self._copy(step)
                    continue
                if changed:
                    yield from self._restart()
                    changed = False
                if isinstance(step, Lines):
                    yield from self._run_lines(step)
                elif step.background:
                    self._start(step.text, step.printed)
                else:
                    yield from self._run(step)
            for text in list(self.working):
                yield from self._stop(text)
        finally:
            for working in self.working.values():
                os.killpg(working.process.pid, signal.SIGKILL)
                working.process.wait()

    def _write(self, file: File) -> None:
        path = self.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() + "\n\n" if file.more else ""
        path.write_text(before + file.text)
        if not self.module and "Headrace(" in file.text:
            self.module = path.stem

    def _copy(self, copy: Copy) -> Iterator[str]:
        if (ROOT / copy.name) not in tracked_files():
            yield f"<!-- file: {copy.name} -->: the repository has no such file"
        elif (ROOT / copy.name).read_text() != copy.text:
            yield f"<!-- file: {copy.name} -->: the block and the file are not the same"
        path = self.folder / copy.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(copy.text)

    def _run_lines(self, lines: Lines) -> Iterator[str]:
        script = self.folder / "lines_of_the_page.py"
        script.write_text(_INSIDE.format(module=self.module, lines=textwrap.indent(lines.text, " " * 8)))
        printed, code = self._wait(self._open(f"{sys.executable} {script.name}", subprocess.PIPE))
        found = difference(printed, lines.printed, exact=True)
        if code or found:
            yield f"{lines.text}\nexit code {code}; {found or printed}"

    def _run(self, command: Command) -> Iterator[str]:
        text = _ID.sub(lambda match: self.ids.get(match[0], match[0]), command.text)
        printed, code = self._wait(self._open(text, subprocess.PIPE))
        shown, real = _ID.findall(command.printed), _ID.findall(printed)
        if len(shown) == len(real):
            self.ids.update(zip(shown, real, strict=True))
        found = difference(printed, command.printed, exact=_EXACT.match(command.text) is not None)
        if found:
            yield f"$ {command.text}\nexit code {code}; {found}"

    def _wait(self, process: subprocess.Popen[bytes]) -> tuple[str, int]:
        try:
            printed, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            printed = (printed or b"") + f"(ended after {TIMEOUT} s)\n".encode()
        return (printed or b"").decode(), process.returncode

    def _open(self, text: str, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = ("HEADRACE_", "REDIS_", "QUEUE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        environment = {**kept, "PATH": programs, "REDIS_URL": self.url, "COLUMNS": "100", "NO_COLOR": "1"}
        # The shell gives way to the command, so that a signal reaches it.
        return subprocess.Popen(
            ["sh", "-c", text if "|" in text else f"exec {text}"],
            cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def _start(self, text: str, shown: str) -> None:
        """Start a command and wait until it has said something, as a person would."""
        output = self.folder.parent / f"{len(self.working)}.out"
        with output.open("wb") as file:
            process = self._open(text, file)
        self.working[text] = Working(process, output, shown)
        deadline = time.monotonic() + TIMEOUT
        while not output.stat().st_size and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)

    def _restart(self) -> Iterator[str]:
        for text, working in list(self.working.items()):
            yield from self._stop(text)
            self._start(text, working.shown)

    def _stop(self, text: str) -> Iterator[str]:
        """Stop a command as Ctrl+C does; every line that the page shows of it must have been printed."""
        working = self.working.pop(text)
        working.process.send_signal(signal.SIGINT)
        _, code = self._wait(working.process)
        printed = working.output.read_text()
        lines = "\n".join(_plain(printed, exact=False))
        shown = working.shown.splitlines()
        missing = [line for line in shown if not re.search(f"^{_pattern(mask(line))}$", lines, re.MULTILINE)]
        if code or missing:
            yield f"$ {text}\nexit code {code}; not printed: {missing}; printed:\n{printed}"
