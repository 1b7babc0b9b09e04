"""`headrace worker` in a process of its own, and what it logs as events that a test can wait for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import psutil

from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

#: Nothing in these tests takes longer, seconds.
DEADLINE = 40.0
SHOP = "tests.apps.shop:app"


class WorkerCommand:
    """The command with its log lines; on leaving the block, it and its children are gone."""

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str],
        cwd: Path = ROOT,
        program: tuple[str, ...] = ("-m", "headrace"),
        **popen: Any,
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *program, "worker", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, "HEADRACE_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1", **environment},
            **{"stdin": subprocess.DEVNULL, **popen},
        )
        self._seen: set[int] = set()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = [child.pid for child in self.children()] + [line["child"] for line in self.lines if "child" in line]
        self.process.kill()
        self.process.communicate(timeout=DEADLINE)
        self._reading.join(DEADLINE)
        for pid in family:
            try:
                psutil.Process(pid).kill()
            except psutil.NoSuchProcess:
                continue
        if error is not None:
            sys.stderr.write("".join(self.text))

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        try:
            return [child for child in psutil.Process(self.pid).children() if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def find(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        wanted = {"message": message, **fields}
        return [line for line in self.lines if wanted.items() <= line.items()]

    def wait_line(self, message: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until a line with these fields was logged `count` times; returns the last of them."""
        deadline = time.monotonic() + DEADLINE
        with self._news:
            while len(found := self.find(message, **fields)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"never logged {count} times: {message} {fields}"
                assert self.process.poll() is None or self._reading.is_alive(), f"ended without: {message} {fields}"
                self._news.wait(min(left, 1.0))
        return found[count - 1]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def terminate(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(DEADLINE)
        self._reading.join(DEADLINE)
        return code

    def summary(self) -> dict[str, dict[str, str]]:
        """Return the rows of the summary by what stands in their first column; call it once, after the end."""
        assert self.process.stdout is not None
        head, *rows = [line.split() for line in self.process.stdout.read().splitlines()]
        return {row[0]: dict(zip(head, row, strict=True)) for row in rows}

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            with self._news:
                self.text.append(text)
                if text.startswith("{"):
                    self.lines.append(json.loads(text))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()
