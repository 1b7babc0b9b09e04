"""What a test leaves behind: entries of a census, tasks, threads, child processes, open files and sockets.

A `Watch` knows what was there before a test, and tells afterwards what is new and who made it. What fixtures of a wider
scope make belongs to them, and is left out; so is everything of an app that they hold open.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import sysconfig
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from headrace.census import PACKAGE, Census, Entry, Kind, all_censuses, name_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

#: What is looked for.
KINDS: Final = ("census", "task", "thread", "process", "file", "socket")
#: So long what is about to end anyway may take to do so, seconds.
GRACE: Final = 1.0
#: Between two looks in that time, seconds: threads and processes of anybody announce their end to nobody.
LOOK: Final = 0.05
#: Notes of who made what that are kept in one test; the oldest go first.
NOTES: Final = 10_000
#: Threads that belong to a loop, which ends them when it is closed.
LOOP_THREADS: Final = "asyncio_"
#: What a loop or the interpreter opens for itself.
INNER_FILES: Final = ("anon_inode:[eventpoll]", "/dev/urandom", "/dev/random", "/dev/null")
_STANDARD: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})


@dataclass(frozen=True, slots=True)
class Leak:
    """One thing that a test left behind.

    Attributes:
        kind: One of `KINDS`.
        text: What it is and who made it.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        """Name it."""
        return self.text if self.text.startswith(self.kind) else f"{self.kind}: {self.text}"


@dataclass(slots=True)
class Things:
    """What there is at one moment."""

    entries: set[Entry] = field(default_factory=set)
    #: Censuses of apps that were open then: what is in them comes and goes.
    busy: set[Census] = field(default_factory=set)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    threads: set[threading.Thread] = field(default_factory=set)
    processes: dict[int, float] = field(default_factory=dict)
    files: set[tuple[int, str]] = field(default_factory=set)

    def add(self, other: Things) -> None:
        """Take what another one holds."""
        for name in ("entries", "busy", "tasks", "threads", "files"):
            getattr(self, name).update(getattr(other, name))
        self.processes.update(other.processes)


class Watch:
    """Tell what a test leaves behind."""

    def __init__(self) -> None:
        self._before = look()
        self._suspects: set[asyncio.Task[Any]] = set()
        makers.start()

    def belongs_to_fixture(self, before: Things) -> None:
        """Leave out what was made since another look: a fixture of a wider scope made it."""
        now = look()
        for name in ("entries", "tasks", "threads", "files"):
            setattr(now, name, getattr(now, name) - getattr(before, name))
        now.processes = {pid: at for pid, at in now.processes.items() if pid not in before.processes}
        now.busy -= before.busy
        self._before.add(now)

    def call_begins(self) -> None:
        """Leave out the tasks that fixtures have made by now; they end with them."""
        self._before.tasks |= _tasks()

    def call_ended(self) -> None:
        """Note the tasks that are left by the test itself, before its loop is closed, which cancels them silently."""
        watched = {entry.resource for census in all_censuses() for entry in census.live()}
        self._suspects |= {task for task in _tasks() - self._before.tasks if task not in watched}

    def end(self) -> list[Leak]:
        """Return what is left, once what was about to end has had time to."""
        deadline = time.monotonic() + GRACE
        try:
            leaks = self._find()
            if leaks:
                # Why: what only the collector would close is no leak of the test, and warns of itself.
                gc.collect()
                leaks = self._find()
            while any(leak.kind != "task" for leak in leaks) and time.monotonic() < deadline:
                time.sleep(LOOK)
                leaks = self._find()
        finally:
            makers.stop()
        return leaks

    def _find(self) -> list[Leak]:
        now, before = look(), self._before
        entries = [
            entry
            for census in all_censuses()
            if census not in before.busy
            for entry in census.live()
            if entry not in before.entries
        ]
        leaks = [Leak("census", f"census: {entry.row()}") for entry in entries]
        leaks += [Leak("task", _describe_task(task)) for task in self._suspects]
        # Why by name: a thread of an app that a wider fixture holds open is the app's.
        names = {entry.name for census in before.busy for entry in census.live() if entry.kind is Kind.THREAD}
        leaks += [
            Leak("thread", _describe_thread(thread))
            for thread in now.threads - before.threads
            if not thread.name.startswith(LOOP_THREADS) and thread.name not in names
        ]
        new = [pid for pid, at in now.processes.items() if before.processes.get(pid) != at]
        held = {int(word) for entry in _busy_entries(before) for word in entry.name.split() if word.isdigit()}
        leaks += [Leak("process", _describe_process(pid)) for pid in new if pid not in held]
        for number, target in sorted(now.files - before.files):
            kind = "socket" if target.startswith("socket:") else "file"
            if target not in INNER_FILES and not (kind == "socket" and _has_open_app(before)):
                leaks.append(Leak(kind, _describe_file(kind, number, target)))
        return leaks


def look() -> Things:
    """See what there is now."""
    censuses = all_censuses()
    return Things(
        entries={entry for census in censuses for entry in census.live()},
        busy={census for census in censuses if not census.is_empty()},
        tasks=_tasks(),
        threads={thread for thread in threading.enumerate() if thread.is_alive()},
        processes=_children(),
        files=set(_files()),
    )


# What there is


def _tasks() -> set[asyncio.Task[Any]]:
    if sys.version_info >= (3, 14):
        # Since then the tasks are in no container that can be read without their loop.
        loops = [one for one in gc.get_objects() if isinstance(one, asyncio.AbstractEventLoop) and not one.is_closed()]
        return {task for loop in loops for task in asyncio.all_tasks(loop)}
    known: Any = getattr(asyncio.tasks, "_all_tasks", None)
    known = getattr(asyncio.tasks, "_scheduled_tasks", ()) if known is None else known
    # Why a list: it is weak, and may lose some meanwhile.
    return {task for task in list(known) if not task.done() and not task.get_loop().is_closed()}


def _children() -> dict[int, float]:
    found = {}
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            found[child.pid] = child.create_time()
    return found


def _files() -> Iterator[tuple[int, str]]:
    folder = "/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"
    for name in os.listdir(folder):  # noqa: PTH208 - the numbers are all that is wanted
        # One of them is the folder itself, which is closed by now.
        with contextlib.suppress(OSError):
            target = str(Path(folder, name).readlink()) if folder.startswith("/proc") else _kind_of(int(name))
            if not target.startswith(f"/proc/{os.getpid()}/fd"):
                yield int(name), target


def _kind_of(number: int) -> str:
    import stat  # noqa: PLC0415 - only where there is no /proc

    mode = os.fstat(number).st_mode
    return f"socket:[{number}]" if stat.S_ISSOCK(mode) else f"file:[{number}]"


def _busy_entries(before: Things) -> list[Entry]:
    return [entry for census in before.busy for entry in census.live()]


def _has_open_app(before: Things) -> bool:
    """Tell whether a wider fixture holds an app open, whose connections come and go."""
    return any(entry.kind is Kind.CONNECTION for entry in _busy_entries(before))


# Who made it


_start_thread: Final = threading.Thread.start


class Makers:
    """Note the line that makes a thread, a child process, a socket or a file, while a test is watched.

    The interpreter tells by audit events (PEP 578), whose hook cannot be taken out again: it is put in with the first
    watched test, and does nothing between tests. Of threads it tells only since Python 3.12, so `Thread.start` is
    wrapped for the length of a watched test.
    """

    def __init__(self) -> None:
        self._on = self._hooked = False
        threads: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

        def start_noted(thread: threading.Thread) -> None:
            threads[thread] = _place(sys._getframe(1))  # noqa: SLF001 - the only cheap way to a frame
            _start_thread(thread)

        self._start_noted = start_noted
        self._threads = threads
        self._sockets: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        # Bounded: NOTES.
        self._files: dict[str, str] = {}
        self._programs: dict[str, str] = {}

    def start(self) -> None:
        """Begin to note."""
        if not self._hooked:
            self._hooked = True
            sys.addaudithook(self._hook)
        self._files.clear()
        self._programs.clear()
        self._on = True
        threading.Thread.start = self._start_noted  # type: ignore[assignment, method-assign]  # taken back in `stop`

    def stop(self) -> None:
        """Note no more."""
        self._on = False
        threading.Thread.start = _start_thread  # type: ignore[method-assign]  # as it was

    def of_thread(self, thread: threading.Thread) -> str:
        """Return the line that started a thread, or nothing."""
        return self._threads.get(thread, "")

    def of_file(self, path: str) -> str:
        """Return the line that opened a file, or nothing."""
        return self._files.get(path, "")

    def of_process(self, command: list[str]) -> str:
        """Return the line that started a program, or nothing."""
        return self._programs.get(" ".join(command), "")

    def of_socket(self, number: int) -> str:
        """Return the line that made the socket with this number, or nothing."""
        for made, place in list(self._sockets.items()):
            with contextlib.suppress(OSError, ValueError):
                if made.fileno() == number:
                    return place
        return ""

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on or event not in ("open", "subprocess.Popen", "socket.__new__"):
            return
        # Why so wide: whatever a hook raises would be raised in the code that is watched.
        with contextlib.suppress(Exception):
            self._note(event, arguments, _place(sys._getframe(1)))  # noqa: SLF001 - the only cheap way to a frame

    def _note(self, event: str, arguments: tuple[Any, ...], place: str) -> None:
        if event == "open":
            if isinstance(arguments[0], (str, bytes, os.PathLike)):
                _keep(self._files, os.path.realpath(os.fsdecode(arguments[0])), place)
        elif event == "subprocess.Popen":
            command = arguments[1]
            words = [command] if isinstance(command, (str, bytes)) else list(command)
            _keep(self._programs, " ".join(os.fsdecode(word) for word in words), place)
        else:
            self._sockets[arguments[0]] = place


def _keep(notes: dict[str, str], key: str, place: str) -> None:
    if len(notes) >= NOTES:
        del notes[next(iter(notes))]
    notes[key] = place


def _place(frame: FrameType | None) -> str:
    """Return the nearest line outside of the standard library, packages and Headrace; else of the standard library."""
    fallback = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((*_STANDARD, "<")):
            line = name_line(name, frame.f_lineno)
            if "site-packages" not in name and not name.startswith(PACKAGE):
                return line
            fallback = fallback or line
        frame = frame.f_back
    return fallback


makers: Final = Makers()


# What it is


def _made(place: str) -> str:
    return f", made at {place}" if place else ""


def _describe_task(task: asyncio.Task[Any]) -> str:
    coro = task.get_coro()
    code = getattr(coro, "cr_code", None)
    where = f" at {name_line(code.co_filename, code.co_firstlineno)}" if code is not None else ""
    return f"task '{task.get_name()}' runs {getattr(coro, '__qualname__', coro)}{where}"


def _describe_thread(thread: threading.Thread) -> str:
    return f"thread '{thread.name}'{' (daemon)' if thread.daemon else ''}{_made(makers.of_thread(thread))}"


def _describe_process(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        command, status = process.cmdline(), process.status()
    except psutil.Error:
        return f"process {pid}"
    if status == psutil.STATUS_ZOMBIE:
        return f"process {pid} has ended, and nobody has waited for it"
    return f"process {pid} runs {' '.join(command)[:200]!r}{_made(makers.of_process(command))}"


def _describe_file(kind: str, number: int, target: str) -> str:
    if kind == "file":
        return f"file {target} (descriptor {number}){_made(makers.of_file(target))}"
    text = f"socket (descriptor {number})"
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
        peer = None
        with contextlib.suppress(OSError):
            peer = copy.getpeername()
        text = f"socket (descriptor {number}) {f'to {peer}' if peer else f'at {copy.getsockname()}'}"
    return f"{text}{_made(makers.of_socket(number))}"
