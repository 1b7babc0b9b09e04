"""The census: every live timer, task, subscription, connection, thread, process and file of an app, with its owner.

Whatever can outlive the code that made it is entered here when it is made and leaves when it ends, so that "what is
still open, and whose is it?" has an answer at any time, and an app can show that it closed to nothing. The census only
keeps the book: it closes nothing, runs nothing by itself, and has no periodic work.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headrace.errors import OptionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType

logger = logging.getLogger(__name__)

T = TypeVar("T")

PACKAGE: Final = __file__.removesuffix("census.py")
#: Most entries that a report names one by one.
NAMED: Final = 20


class Kind(StrEnum):
    """What an entry of the census stands for."""

    TIMER = "timer"
    TASK = "task"
    SUBSCRIPTION = "subscription"
    CONNECTION = "connection"
    THREAD = "thread"
    PROCESS = "process"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class CensusRow:
    """One live thing as people see it.

    Attributes:
        kind: What it is.
        name: What it does, unique enough to be found in the code.
        owner: The part that made it and has to end it.
        age: Seconds since it was entered.
        place: Where in the code it was entered: `worker/running.py:114`.
    """

    kind: Kind
    name: str
    owner: str
    age: float
    place: str = ""

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.kind} '{self.name}' of {self.owner}, made at {self.place} {self.age:.1f} s ago"


class Entry:
    """One live thing in the census; `close` takes it out.

    Attributes:
        kind: What it is.
        name: What it does.
        owner: The part that made it.
        resource: The thing itself, kept alive by its entry, or None.
    """

    __slots__ = ("_census", "_file", "_line", "_opened", "kind", "name", "owner", "resource")

    def __init__(
        self, census: Census, kind: Kind, name: str, owner: str, resource: object | None, maker: FrameType
    ) -> None:
        self._census = census
        self._opened = time.monotonic()
        # Why not the frame: it would keep alive whatever its function had at hand.
        self._file, self._line = maker.f_code.co_filename, maker.f_lineno
        self.kind = kind
        self.name = name
        self.owner = owner
        self.resource = resource

    def __repr__(self) -> str:
        """Show what it is and whose."""
        return f"Entry({self.kind} {self.name!r} of {self.owner!r})"

    def close(self) -> None:
        """Take the entry out of the census; a second call does nothing."""
        self._census._entries.pop(self, None)  # noqa: SLF001  # An entry and its census are one structure.

    def row(self) -> CensusRow:
        """Give the entry as people see it."""
        place = name_line(self._file, self._line)
        return CensusRow(self.kind, self.name, self.owner, time.monotonic() - self._opened, place)


class Census:
    """The book of everything live in one app.

    Adding and closing are single dictionary operations, so threads may do either at any time.

    Example:
        >>> census = Census()
        >>> entry = census.add(Kind.FILE, "journal", owner="server")
        >>> census.counts(), census.is_empty()
        ({<Kind.FILE: 'file'>: 1}, False)
        >>> entry.close()
        >>> census.is_empty()
        True
    """

    def __init__(self) -> None:
        # Bounded by what is alive: each entry leaves with the thing it stands for.
        self._entries: dict[Entry, None] = {}
        _censuses.add(self)

    def add(self, kind: Kind, name: str, owner: str, resource: object | None = None, *, outside: bool = False) -> Entry:
        """Enter a live thing.

        Args:
            kind: What it is.
            name: What it does.
            owner: The part that made it and will end it.
            resource: The thing itself, for whoever looks at the entry; it stays alive as long as its entry.
            outside: Somebody outside of this package has it made, whose line is the place to look at.

        Returns:
            The entry; whoever ends the thing calls `close` on it.

        Raises:
            OptionError: `kind` is no `Kind`, or `name` or `owner` is empty.
        """
        maker = sys._getframe(1)  # noqa: SLF001 - `inspect.stack` costs much more
        while outside and maker.f_back is not None and maker.f_code.co_filename.startswith(PACKAGE):
            maker = maker.f_back
        return self._enter(kind, name, owner, resource, maker)

    def _enter(self, kind: Kind, name: str, owner: str, resource: object | None, maker: FrameType) -> Entry:
        if not name or not owner or not isinstance(kind, Kind):
            raise OptionError(
                f"Census.add(kind={kind!r:.40}, name={name!r:.80}, owner={owner!r:.80}): expected a Kind and two "
                "texts that are not empty. Say what is entered and which part will end it."
            )
        entry = Entry(self, kind, name, owner, resource, maker)
        self._entries[entry] = None
        return entry

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str,
        owner: str,
        expected: tuple[type[BaseException], ...] = (),
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        """Run a coroutine as a task that is in the census until it is done.

        A task that ends with an exception is reported in the log as an ERROR with its name, once, whether or not
        anybody awaits it; the exception is still raised in whoever does. A cancelled task is no failure.

        Args:
            coro: The coroutine to run.
            name: What the task does; also the name of the asyncio task.
            owner: The part that made it and will await or cancel it.
            expected: Exceptions that are an answer to the owner, and no failure to be logged.
            context: Context variables to run with, instead of a copy of the caller's.

        Returns:
            The task; the census keeps it alive until it is done.

        Raises:
            UsageError: No event loop runs in this thread.
            OptionError: `name` or `owner` is empty.
        """
        try:
            loop = asyncio.get_running_loop()
            entry = self._enter(Kind.TASK, name, owner, None, sys._getframe(1))  # noqa: SLF001 - as in `add`
        except RuntimeError as error:
            coro.close()
            raise UsageError(
                f"task {name!r} of {owner!r} cannot start: no event loop runs in this thread. "
                "Start it from a coroutine, or hand it to the loop with asyncio.run_coroutine_threadsafe."
            ) from error
        except OptionError:
            coro.close()
            raise
        task = loop.create_task(coro, name=name, context=context)
        entry.resource = task

        def leave(done: asyncio.Task[T]) -> None:
            entry.close()
            if done.cancelled():
                return
            error = done.exception()
            if error is not None and not isinstance(error, expected):
                logger.error("task failed", exc_info=error, extra={"task": name, "owner": owner})

        task.add_done_callback(leave)
        return task

    async def in_thread(self, function: Callable[..., T], *arguments: object, name: str, owner: str) -> T:
        """Call a function that blocks in a thread of its own, which ends with the call, and return its result.

        Unlike `asyncio.to_thread`, which leaves the thread to the loop, nothing is left when it returns.

        Args:
            function: What to call.
            *arguments: What to call it with.
            name: What the call does; also the name of the thread.
            owner: The part that waits for it.

        Raises:
            Exception: Whatever the function raises.

        Cancelling gives up the wait; the call goes on, and is in the census until its end.
        """
        maker = sys._getframe(0)  # noqa: SLF001 - as in `add`
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        call = _Call(function, arguments, future)
        thread = threading.Thread(target=call.run, name=name, daemon=True)
        call.entry = self._enter(Kind.THREAD, name, owner, thread, maker.f_back or maker)
        try:
            thread.start()
        except RuntimeError:
            call.entry.close()
            raise
        try:
            return await future
        finally:
            if call.has_ended:
                # The thread has nothing left to do, so this takes some microseconds.
                thread.join()

    def entries(self) -> list[CensusRow]:
        """List everything live, in the order it was entered."""
        return [entry.row() for entry in list(self._entries)]

    def live(self) -> list[Entry]:
        """List the entries themselves, for whoever compares two moments."""
        return list(self._entries)

    def counts(self) -> dict[Kind, int]:
        """Count what is live by kind; a kind with nothing live is left out."""
        counts: dict[Kind, int] = {}
        for entry in list(self._entries):
            counts[entry.kind] = counts.get(entry.kind, 0) + 1
        return counts

    def check_closed(self, what: str) -> bool:
        """Report in the log what is still live of something that has closed; returns whether that is nothing.

        Why no error is raised: what closed has done its work, and an error would hide what ended the block around it.

        Args:
            what: What has closed: `app`.
        """
        rows = self.entries()
        if rows:
            logger.error(
                f"{what} closed, but something of it is left; end it where it was made",  # noqa: G004 - one of few words
                extra={"count": len(rows), "left": report(rows)},
            )
        return not rows

    def is_empty(self) -> bool:
        """Tell whether nothing is live."""
        return not self._entries


class _Call:
    """One call in a thread of its own, and the way back to the loop that waits for it."""

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[object, ...], future: asyncio.Future[Any]
    ) -> None:
        self.entry: Entry | None = None
        self.has_ended = False
        self._function = function
        self._arguments = arguments
        self._future = future
        self._context = contextvars.copy_context()

    def run(self) -> None:
        result, raised = None, None
        try:
            result = self._context.run(self._function, *self._arguments)
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: whatever it raises belongs to who waits
            raised = error
        if self.entry is not None:
            self.entry.close()
        try:
            self._future.get_loop().call_soon_threadsafe(self._tell, result, raised)
        except RuntimeError:
            # The loop has closed meanwhile, and with it whoever waited.
            logger.warning("a call in a thread ended after its loop", extra={"call": threading.current_thread().name})

    def _tell(self, result: object, raised: BaseException | None) -> None:
        self.has_ended = True
        if self._future.done():
            return
        if raised is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(raised)


_censuses: weakref.WeakSet[Census] = weakref.WeakSet()


def all_censuses() -> list[Census]:
    """Return every census of this process that somebody still holds."""
    return list(_censuses)


def name_line(file: str, line: int) -> str:
    """Name a line of code by the last two parts of its path: enough to find it, and site-packages may be deep.

    Example:
        >>> name_line("/usr/lib/headrace/worker/running.py", 114)
        'worker/running.py:114'
    """
    short = "/".join(file.replace("\\", "/").split("/")[-2:])
    return f"{short}:{line}"


def report(rows: list[CensusRow]) -> str:
    """Say what is live, whose it is and where it was made; the first 20 one by one.

    Example:
        >>> report([CensusRow(Kind.THREAD, "reader", "health", 2.04, "health/probe.py:7")])
        "thread 'reader' of health, made at health/probe.py:7 2.0 s ago"
    """
    more = f"; and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return "; ".join(map(str, rows[:NAMED])) + more
