"""The worker processes of `headrace verify`: started, asked, and ended whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec

from headrace.census import Kind
from headrace.errors import HeadraceError
from headrace.verify.evidence import Ended, LogLine
from headrace.verify.hands import Hand as Process
from headrace.verify.hands import end_hands, start_hand
from headrace.verify.tasks import PLAN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path

    from headrace.census import Census
    from headrace.verify.tasks import VerifyPlan

T = TypeVar("T")

#: Longest wait for a worker to start, and to answer or end, seconds.
START_TIMEOUT: Final = 20.0
ANSWER_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 8.0
#: Lines of a log that are read.
LOG_LINES: Final = 20_000
WARNINGS: Final = ("WARNING", "ERROR", "CRITICAL")


class Hand(Process):
    """One worker process, which answers questions."""

    async def ready(self) -> None:
        """Wait until it reserves jobs.

        Raises:
            HeadraceError: It ended instead, or was not ready in time; the error says why.
        """
        answer = await self._read(START_TIMEOUT, "was not ready")
        if "failed" in answer:
            raise HeadraceError(answer["failed"])
        self.worker_id = answer["id"]

    async def ask(self, question: str, kind: type[T]) -> T:
        """Ask and return the answer.

        Raises:
            HeadraceError: It has ended, or did not answer in time.
        """
        self._write(question)
        return msgspec.convert(await self._read(ANSWER_TIMEOUT, f"did not answer '{question}'"), type=kind)

    async def stop(self) -> Ended:
        """Have it stop, and return how it ended.

        Raises:
            HeadraceError: It did not end in time, or ended otherwise.
        """
        self.expected = True
        self._write("stop")
        ended = msgspec.convert(await self._read(ANSWER_TIMEOUT, "did not stop"), type=Ended)
        async with asyncio.timeout(STOP_TIMEOUT):
            await self.process.wait()
        return ended

    def lines(self) -> list[str]:
        """Return what it logged, at most the first 20,000 lines."""
        try:
            return self.log.read_text(errors="replace").splitlines()[:LOG_LINES]
        except OSError:
            return []

    def warnings(self) -> list[LogLine]:
        """Return the lines of its log at WARNING and above."""
        return [line for line in map(read_line, self.lines()) if line is not None and line.level in WARNINGS]

    def _write(self, question: str) -> None:
        assert self.process.stdin is not None  # noqa: S101 - a pipe
        self.process.stdin.write(question.encode() + b"\n")

    async def _read(self, timeout: float, what: str) -> dict[str, Any]:
        assert self.process.stdout is not None  # noqa: S101 - a pipe
        try:
            async with asyncio.timeout(timeout):
                line = await self.process.stdout.readline()
        except TimeoutError as error:
            raise HeadraceError(f"{self.name} (pid {self.pid}) {what} within {timeout:g} s.{self.tail()}") from error
        if not line:
            await self.process.wait()
            raise HeadraceError(self.describe_end())
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer


class Crew:
    """Start and end worker processes; as a block it leaves none behind.

    Args:
        census: Where they are entered.
        environment: Variables for them, beside those of this process.
        folder: Where their logs go.
    """

    def __init__(self, census: Census, environment: Mapping[str, str], folder: Path) -> None:
        self.hands: list[Hand] = []
        self._census = census
        self._broken = asyncio.Event()
        self._environment = environment
        self._folder = folder

    async def start(self, plan: VerifyPlan) -> Hand:
        """Start one; it may not reserve jobs yet."""
        name = f"worker-{len(self.hands) + 1}"
        environment = {**self._environment, PLAN_VARIABLE: msgspec.json.encode(plan).decode()}
        files = () if plan.journal < 0 else (plan.journal,)
        hand = await start_hand(Hand, name, "headrace.verify.work", self._folder, environment, files=files)
        self.hands.append(hand)
        entry = self._census.add(Kind.PROCESS, name, "verify", hand.process)
        watch = self._census.create_task(hand.process.wait(), name=f"watch {name}", owner="verify")

        def ended(_: object) -> None:
            entry.close()
            if not hand.expected:
                self._broken.set()

        watch.add_done_callback(ended)
        return hand

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work as long as no worker ends that should not.

        Raises:
            HeadraceError: One did; the work was cancelled.
        """
        main = self._census.create_task(work, name="work", owner="verify", expected=(HeadraceError, TimeoutError))
        broken = self._census.create_task(self._broken.wait(), name="watch workers", owner="verify")
        try:
            await asyncio.wait([main, broken], return_when=asyncio.FIRST_COMPLETED)
            if main.done():
                return main.result()
            dead = next(hand for hand in self.hands if not hand.alive and not hand.expected)
            raise HeadraceError(dead.describe_end())
        finally:
            for task in (main, broken):
                task.cancel()
            await asyncio.gather(main, broken, return_exceptions=True)

    async def end(self) -> None:
        """End those that run; afterwards none of them writes to the server."""
        await end_hands(self.hands, timeout=STOP_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.end()


def read_line(text: str) -> LogLine | None:
    """Read one line of a log; None when it is none of ours."""
    try:
        found = msgspec.json.decode(text)
        line = {name: str(found.pop(name, "")) for name in ("level", "logger", "message", "time")}
    except (msgspec.DecodeError, AttributeError):
        return None
    return LogLine(**line, more={name: str(value)[:500] for name, value in found.items()})
