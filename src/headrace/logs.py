"""Log set-up of the commands: one line a record on the standard error, for people or as JSON, without secrets.

Lines that repeat are folded (`headrace.log_fold`). Passwords in addresses, and fields that are named as secrets or as
the arguments or the result of a job, are masked.

Only commands call this. A program that uses Headrace as a library sets up logging as it likes: every module logs by
`logging.getLogger(__name__)`, a constant phrase with its facts in `extra`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

from headrace.log_fold import Fold
from headrace.settings_env import mask_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.settings import Settings

#: What every record has; any other attribute of a record came with `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET: Final = re.compile(r"passw|secret|token|credential|authori[sz]ation|api_?key", re.IGNORECASE)
#: Fields that would show what a job was called with, or what came of it.
_OF_JOBS: Final = frozenset({"args", "kwargs", "arguments", "keywords", "result", "payload", "body", "record"})
# Why quotes up to an @: a password may hold some. What is masked beyond the address then is the lesser evil.
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^\s/?#]*@)?[^\s'\"]+", re.IGNORECASE)
_QUERY: Final = re.compile(r"([?&][^=&\s]*(?:password|token|secret)[^=&\s]*=)[^&#\s]*", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[^\s\"'=]+")
#: Longest value of one field, in characters.
FIELD_LIMIT: Final = 2_000
_COLOURS: Final = {
    logging.DEBUG: "2",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}


def setup_logs(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send the log lines of this process to the standard error, as the settings log_level and log_format say.

    Args:
        settings: The settings of the command.
        stream: Another place for the lines.

    Earlier handlers of the root logger are replaced; Python's warnings become log lines.
    """
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    console = terminal if settings.log_format == "auto" else settings.log_format == "console"
    handler = FoldingHandler(out, settings.log_fold)
    handler.setFormatter(ConsoleLines(colour=terminal and "NO_COLOR" not in os.environ) if console else JsonLines())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    _set_levels(handler, settings)


def change_logs(settings: Settings) -> None:
    """Take the levels and the interval of other settings, where `setup_logs` was called; else change nothing."""
    handler = find_handler()
    if handler is not None:
        logging.getLogger().setLevel(settings.log_level)
        handler.fold.interval = settings.log_fold
        _set_levels(handler, settings)


def find_handler() -> FoldingHandler | None:
    """Return the handler that `setup_logs` made, None in a program that sets up logging itself."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, FoldingHandler)), None)


def _set_levels(handler: FoldingHandler, settings: Settings) -> None:
    levels = {f"headrace.{part}": level for part, level in settings.log_levels}
    for name in handler.parts - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    handler.parts = frozenset(levels)


class FoldingHandler(logging.StreamHandler[Any]):
    """Write lines, those that repeat once and with their count.

    Args:
        stream: Where to.
        interval: Seconds for which a line stands for those like it; 0 writes every line.

    Attributes:
        fold: Decides which lines are written.
        parts: Loggers that have a level of their own.
        waits: Called when a first line was folded, with the seconds until its report is due; by any thread. Without
            anybody who then calls `report`, the report comes with the next line of whatever kind, or at the end.
    """

    def __init__(self, stream: TextIO, interval: float) -> None:
        super().__init__(stream)
        self.fold = Fold(interval, _fingerprint)
        self.parts: frozenset[str] = frozenset()
        self.waits: Callable[[float], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the reports that are due, and the line unless it repeats one."""
        now = time.monotonic()
        for report in self.fold.ended(now):
            super().emit(report)
        waited = self.fold.due() is not None
        if self.fold.take(record, now):
            super().emit(record)
        elif not waited and self.waits is not None:
            self.waits(self.fold.interval)

    def report(self) -> float | None:
        """Write the reports that are due; returns the seconds until the next one, None when there is none."""
        with self.lock or nullcontext():
            now = time.monotonic()
            for report in self.fold.ended(now):
                super().emit(report)
            due = self.fold.due()
            return None if due is None else max(0.0, due - now)

    def close(self) -> None:
        """Write all reports that are still to come, whether due or not."""
        with self.lock or nullcontext():
            for report in self.fold.ended(float("inf")):
                # Why: whoever replaced the standard error may have closed it since.
                if not self.stream.closed:
                    super().emit(report)
        super().close()


class ConsoleLines(logging.Formatter):
    """Lines for people: time of day, level, process, logger, phrase, and the fields as name=value.

    Args:
        colour: Mark the level with colours of the terminal.
    """

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Write a record, followed by the lines of its exception if it has one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = record.levelname.ljust(7)
        if self._colour and record.levelno in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelno]}m{level}\x1b[0m"
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        text = clean_text(record.getMessage())
        line = f"{clock}.{int(record.msecs):03d} {level} [{record.process}] {record.name}: {text}{fields}"
        trouble = _trouble(self, record)
        return f"{line}\n{trouble}" if trouble else line


class JsonLines(logging.Formatter):
    """Lines for programs: one JSON object a record, with time (UTC), level, logger, pid, message and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": clean_text(record.getMessage()),
        }
        for name, value in _fields(record).items():
            line[f"{name}_" if name in line else name] = value
        trouble = _trouble(self, record)
        if trouble:
            line["exception"] = trouble
        return json.dumps(line, default=str)


def clean_text(text: str) -> str:
    """Replace what may be a secret in the addresses that a text holds.

    Example:
        >>> clean_text("cannot reach redis://app:s3cret@10.0.0.5:6379/0")
        'cannot reach redis://app:***@10.0.0.5:6379/0'
    """
    if "://" not in text:
        return text
    return _URL.sub(lambda found: mask_url(found[0]), _QUERY.sub(r"\1***", text))


def _fingerprint(record: logging.LogRecord) -> str:
    return f"{record.getMessage()}{_fields(record)}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: _clean(name, value) for name, value in vars(record).items() if name not in _OWN}


def _clean(name: str, value: object) -> object:
    if _SECRET.search(name) or name in _OF_JOBS:
        return "***"
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        # Why: JSON has no word for the others.
        return value if abs(value) < float("inf") else str(value)
    return clean_text(str(value)[:FIELD_LIMIT])


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _trouble(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return clean_text("\n".join(parts))
