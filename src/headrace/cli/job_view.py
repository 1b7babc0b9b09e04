"""One job as the command line shows it: as a row, as facts, as JSON. Values are shown as they were written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.errors import RecordCorrupt, RecordTooNew
from headrace.job import describe
from headrace.reason import span

if TYPE_CHECKING:
    from headrace.record import Failure, Record
    from headrace.store.replies import Found

#: Characters of a value that are shown to people; JSON has all of it.
MAX_SHOWN: Final = 2_000


class JobView:
    """Show one job.

    Args:
        job_id: Its id.
        queue: Where it was found.
        found: What the server knows of it.
    """

    def __init__(self, job_id: str, queue: str, found: Found) -> None:
        self.id = job_id
        self.queue = queue
        self.found = found
        self.details = describe(found)
        self.unreadable: str | None = None
        self.record: Record | None = None
        try:
            self.record = found.record()
        except (RecordCorrupt, RecordTooNew) as error:
            self.unreadable = str(error)

    @property
    def when_name(self) -> tuple[str, ...]:
        """Name of the last column of a listing: due, held or ended; none for waiting jobs."""
        names = {"waiting": (), "delayed": ("due",), "active": ("held by",), "failed": ("died", "error")}
        return names.get(self.found.status, ("ended",))

    def row(self) -> tuple[object, ...]:
        """Return the columns of a listing."""
        details = self.details
        head = (
            self.id,
            printable(details.task),
            details.priority or None,
            details.attempts,
            self._ago(details.enqueued_at),
        )
        match self.found.status:
            case "waiting":
                return head
            case "delayed":
                return (*head, self._ago(details.due_at))
            case "active":
                return (*head, details.worker)
            case "failed":
                last = details.failures[-1] if details.failures else None
                error = (
                    printable(f"{last.error}: {last.message}", limit=80).replace("\n", " ") if last else details.reason
                )
                return (*head, self._ago(details.ended_at), error)
        return (*head, self._ago(details.ended_at))

    def as_json(self, *, log: list[str] | None = None, arguments: bool = False) -> dict[str, Any]:
        """Return a JSON object with stable names; times are seconds since 1970 by the server's clock.

        Args:
            log: Log lines; None leaves them out, with failures' tracebacks and the result.
            arguments: Whether to show the arguments.
        """
        details = self.details
        options = self.record.options if self.record else None
        shown: dict[str, Any] = {
            "id": self.id,
            "queue": self.queue,
            "origin": details.origin,
            "task": details.task or None,
            "status": self.found.status,
            "priority": details.priority or None,
            "attempts": details.attempts,
            "stalls": details.stalls,
            "deferrals": self.found.state.deferrals,
            "enqueued_at": details.enqueued_at,
            "due_at": details.due_at,
            "held_at": details.held_at,
            "ended_at": details.ended_at,
            "worker": details.worker,
            "progress": _progress(details.progress),
            "key": options.unique_key if options else None,
            "reason": details.reason or None,
            "unreadable": self.unreadable,
        }
        if log is None:
            last = details.failures[-1] if details.failures else None
            return {**shown, "error": last and {"error": last.error, "message": last.message}}
        shown["failures"] = [_failure(one) for one in details.failures]
        shown["log"] = log
        shown["result"] = _safe_json(self._result())
        if arguments:
            shown["arguments"], shown["keywords"] = (_safe_json(value) for value in self._arguments())
        return shown

    def facts(self, *, log: list[str], arguments: bool) -> list[tuple[str, object]]:
        """Return names and values for people; what is not there is left out."""
        details = self.details
        found: list[tuple[str, object]] = [
            ("job", self.id),
            ("task", printable(details.task)),
            ("queue", self.queue),
            ("came from", details.origin),
            ("status", f"{self.found.status} (dead)" if self.found.status == "failed" else self.found.status),
            ("priority", details.priority or None),
            ("attempts", details.attempts),
            ("stalled", details.stalls or None),
            ("deferred", self.found.state.deferrals or None),
            ("enqueued", self._time(details.enqueued_at)),
            ("due", self._time(details.due_at)),
            ("held since", self._time(details.held_at)),
            ("ended", self._time(details.ended_at)),
            ("worker", details.worker),
            ("progress", _progress_text(details.progress)),
            ("key", printable(self.record.options.unique_key or "") if self.record else None),
            ("reason", details.reason),
            ("unreadable", self.unreadable),
        ]
        if arguments:
            positional, keywords = self._arguments()
            found += [("argument", printable(repr(value))) for value in positional]
            found += [(f"argument {printable(name)}", printable(repr(value))) for name, value in keywords.items()]
        if self.found.status == "completed":
            found.append(("result", printable(repr(self._result()))))
        for failure in details.failures:
            found.append((f"attempt {failure.attempt}", self._failure_text(failure)))
        found += [("log", printable(line)) for line in log]
        return [(name, value) for name, value in found if value not in {None, ""}]

    def _result(self) -> Any:
        outcome = self.found.outcome
        return _decode(bytes(outcome.result)) if outcome is not None else None

    def _arguments(self) -> tuple[list[Any], dict[str, Any]]:
        if self.record is None:
            return [], {}
        keywords = {name: _decode(bytes(raw)) for name, raw in self.record.keywords.items()}
        return list(_decode(self.record.arguments) or ()), keywords

    def _failure_text(self, failure: Failure) -> str:
        head = f"{failure.error}: {failure.message}" if failure.message else failure.error
        at = self._time(failure.at_ms / 1000)
        return printable(f"{head}\n{at}\n{failure.traceback.rstrip()}".rstrip(), limit=None)

    def _ago(self, seconds: float | None) -> str | None:
        if seconds is None:
            return None
        past_ms = self.found.now_ms - round(seconds * 1000)
        return f"{span(past_ms)} ago" if past_ms >= 0 else f"in {span(-past_ms)}"

    def _time(self, seconds: float | None) -> str | None:
        if seconds is None:
            return None
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC, {self._ago(seconds)}"


def printable(text: str, *, limit: int | None = MAX_SHOWN) -> str:
    """Return text that cannot move the cursor or change the colours of a terminal, cut to a length.

    Example:
        >>> printable("red" + chr(7)) == "red" + chr(92) + "x07"
        True
    """
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}… ({len(text):,} characters; --json shows all)"
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def _decode(payload: bytes) -> Any:
    """Read msgpack without knowing the types; what cannot be read is shown as bytes."""
    if not payload:
        return None
    try:
        return msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, TypeError, ValueError):
        return payload


def _safe_json(value: Any) -> Any:
    """Return a value that JSON can hold; what it cannot hold is shown as text."""
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, msgspec.EncodeError):
        return repr(value)
    return value


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "attempt": failure.attempt,
        "at": failure.at_ms / 1000,
        "error": failure.error,
        "message": failure.message,
        "traceback": failure.traceback,
    }


def _progress(progress: tuple[float, str] | None) -> dict[str, Any] | None:
    return None if progress is None else {"percent": progress[0], "text": progress[1]}


def _progress_text(progress: tuple[float, str] | None) -> str | None:
    return None if progress is None else printable(f"{progress[0]:g} % {progress[1]}".strip())
