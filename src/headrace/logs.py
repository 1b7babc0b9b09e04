"""Log set-up of the commands: one line a record on the standard error, for people or as JSON, without secrets.

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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TextIO

from headrace.settings_env import mask_url

if TYPE_CHECKING:
    from headrace.settings import Settings

#: What every record has; any other attribute of a record came with `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET: Final = re.compile(r"passw|secret|token|credential|authori[sz]ation|api_?key", re.IGNORECASE)
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)
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
    handler = logging.StreamHandler(out)
    handler.setFormatter(ConsoleLines(colour=terminal and "NO_COLOR" not in os.environ) if console else JsonLines())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


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
    return _URL.sub(lambda found: mask_url(found[0]), text)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: _clean(name, value) for name, value in vars(record).items() if name not in _OWN}


def _clean(name: str, value: object) -> object:
    if _SECRET.search(name):
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
