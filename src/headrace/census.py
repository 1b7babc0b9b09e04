"""The census: every live timer, task, subscription, connection, thread, process and file of an app, with its owner.

Whatever can outlive the code that made it is entered here when it is made and leaves when it ends, so that "what is
still open, and whose is it?" has an answer at any time, and an app can show that it closed to nothing. The census only
keeps the book: it closes nothing, runs nothing by itself, and has no periodic work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.errors import OptionError, UsageError

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Coroutine

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
    """

    kind: Kind
    name: str
    owner: str
    age: float


class Entry:
    """One live thing in the census; `close` takes it out.

    Attributes:
        kind: What it is.
        name: What it does.
        owner: The part that made it.
        resource: The thing itself, kept alive by its entry, or None.
    """

    __slots__ = ("_census", "_opened", "kind", "name", "owner", "resource")

    def __init__(self, census: Census, kind: Kind, name: str, owner: str, resource: object | None) -> None:
        self._census = census
        self._opened = time.monotonic()
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
        return CensusRow(self.kind, self.name, self.owner, time.monotonic() - self._opened)


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

    def add(self, kind: Kind, name: str, owner: str, resource: object | None = None) -> Entry:
        """Enter a live thing.

        Args:
            kind: What it is.
            name: What it does.
            owner: The part that made it and will end it.
            resource: The thing itself, for whoever looks at the entry; it stays alive as long as its entry.

        Returns:
            The entry; whoever ends the thing calls `close` on it.

        Raises:
            OptionError: `kind` is no `Kind`, or `name` or `owner` is empty.
        """
        if not name or not owner or not isinstance(kind, Kind):
            raise OptionError(
                f"Census.add(kind={kind!r:.40}, name={name!r:.80}, owner={owner!r:.80}): expected a Kind and two "
                "texts that are not empty. Say what is entered and which part will end it."
            )
        entry = Entry(self, kind, name, owner, resource)
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
            entry = self.add(Kind.TASK, name, owner)
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

    def entries(self) -> list[CensusRow]:
        """List everything live, in the order it was entered."""
        return [entry.row() for entry in list(self._entries)]

    def counts(self) -> dict[Kind, int]:
        """Count what is live by kind; a kind with nothing live is left out."""
        counts: dict[Kind, int] = {}
        for entry in list(self._entries):
            counts[entry.kind] = counts.get(entry.kind, 0) + 1
        return counts

    def is_empty(self) -> bool:
        """Tell whether nothing is live."""
        return not self._entries
