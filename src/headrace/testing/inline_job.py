"""One job of an app that runs its jobs inline, as a test looks at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.record import FRESH, State, read_outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from headrace.arguments import Signature
    from headrace.job import JobStatus


@dataclass(slots=True, eq=False, kw_only=True)
class InlineJob:
    """One job that was enqueued while an app ran its jobs inline.

    Attributes:
        id: Its id.
        task: Name of its task.
        queue: Name of its queue.
        priority: 1..20.
        key: Its unique key, empty without one.
        delay: Delay that it was enqueued with, seconds; nobody waited for it.
        arguments: Positional arguments as the task got them.
        keywords: Keyword arguments as the task got them.
        status: Where it stands.
        attempts: Attempts so far.
        retry_delays: Seconds that a worker would have waited before each further attempt; nobody did.
        error: What the last attempt raised, None when it returned.
        progress: Everything that `current_job().progress` reported: percentage and text.
        log: Lines of `current_job().log`.
    """

    id: str
    task: str
    queue: str
    priority: int
    key: str
    delay: float
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    status: JobStatus
    attempts: int = 0
    retry_delays: list[float] = field(default_factory=list)
    error: BaseException | None = None
    progress: list[tuple[float, str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    record: bytes = field(repr=False)
    signature: Signature | None = field(repr=False)
    place: str = field(repr=False)
    hold: bytes = field(default=b"", repr=False)
    state: State = field(default=FRESH, repr=False)
    errors: bytes = field(default=b"", repr=False)
    outcome: bytes = field(default=b"", repr=False)
    at_ms: int = field(default=0, repr=False)
    stop: Callable[[], None] | None = field(default=None, repr=False)
    cancel_asked: bool = field(default=False, repr=False)
    watchers: list[Future[None]] = field(default_factory=list, repr=False)

    @property
    def result(self) -> Any:
        """What the task returned, encoded and decoded as between two processes; None unless it completed."""
        if not self.outcome or self.signature is None:
            return None
        return self.signature.decode_result(read_outcome(self.outcome).result)
