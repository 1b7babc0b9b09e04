"""One worker process of `headrace worker`: import the app and run a worker under signals, and under a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib.util
import logging
import os
import time
from typing import TYPE_CHECKING

from headrace.census import Census
from headrace.cli.apps import load_app
from headrace.cli.exits import EXIT_FAILED, EXIT_OK, exit_code
from headrace.cli.listen import answer_metrics, listening
from headrace.errors import HeadraceError, UsageError
from headrace.health.answers import METRICS, Report, answer_one, report_worker
from headrace.logs import setup_logs
from headrace.memory.limits import MIB
from headrace.memory.process import governor
from headrace.settings import load_settings
from headrace.worker.place import count_quick, quick_delay
from headrace.worker.report import (
    ASK_FIGURES,
    ASK_HEALTH,
    ASK_LIFE,
    ASK_QUEUES,
    PREDECESSOR_VARIABLE,
    QUICK_VARIABLE,
    Answered,
    Failed,
    Lives,
    Measured,
    Pressed,
    Queues,
    Reporter,
    Started,
    Stopped,
)
from headrace.worker.shutdown import ShutdownSignals

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.app import Headrace
    from headrace.cli.plan import Plan
    from headrace.health.answers import Answer
    from headrace.memory.restraint import Plea
    from headrace.telemetry.samples import Counted, Sample
    from headrace.worker.worker import Worker

logger = logging.getLogger(__name__)


def run_child(plan: Plan) -> int:
    """Run a worker under a supervisor, whose socket the environment names, and return the exit code.

    Args:
        plan: What to run.
    """
    reporter = Reporter.from_environment()
    try:
        setup_logs(load_settings())
        run_worker(plan, reporter)
    except HeadraceError as error:
        # The supervisor says it, once for all of its children.
        if reporter is not None:
            reporter.send(Failed(f"{type(error).__name__}: {error}", exit_code(error)))
        return exit_code(error)
    return EXIT_OK


def run_worker(plan: Plan, reporter: Reporter | None) -> tuple[Stopped, bool]:
    """Run a worker to its end.

    Args:
        plan: What to run.
        reporter: The way to the supervisor, None without one.

    Returns:
        What the worker did, and whether it is to begin anew.

    Raises:
        HeadraceError: The app cannot be imported, an option is wrong, or the server cannot be reached.
        SystemExit: Anything else failed; the log says what.
    """
    app = load_app(plan.app)
    if not app.tasks.names():
        logger.warning(
            "the app has no tasks; import the modules that define them where the app is", extra={"app": plan.app}
        )
    for name in plan.queues:
        close = difflib.get_close_matches(name, app.tasks.queues(), n=1)
        if name not in app.tasks.queues() and close:
            # Why no refusal: `using(queue=...)` may send jobs to any queue.
            logger.warning("no task of the app has this queue", extra={"queue": name, "did_you_mean": close[0]})
    worker = app.worker(plan.queues or None, plan.concurrency, grace=plan.grace, burst=plan.burst)
    with asyncio.Runner(loop_factory=_loop_factory(wanted=plan.uvloop)) as runner:
        try:
            guard = _Guard(app, worker, reporter, plan)
            governor().claim(
                processes=plan.processes,
                replace=guard.replace,
                tell=guard.tell,
                predecessor=os.environ.pop(PREDECESSOR_VARIABLE, ""),
                quick=guard.quick,
            )
            return runner.run(guard.run())
        except HeadraceError:
            raise
        # The edge of a command: what a lifespan or the engine itself raises is recorded.
        except Exception as error:
            logger.critical("worker failed", exc_info=error)
            if isinstance(error, MemoryError) and reporter is not None:
                reporter.send(Failed("MemoryError: the worker itself could get no more memory", EXIT_FAILED))
            raise SystemExit(EXIT_FAILED) from error


class _Guard:
    """A worker under signals, and under a supervisor if there is one."""

    def __init__(self, app: Headrace, worker: Worker, reporter: Reporter | None, plan: Plan) -> None:
        self._app = app
        self._worker = worker
        # Why one of its own: the app closes inside the command, and must be able to say then that nothing is left.
        self._census = Census()
        self._reporter = reporter
        self._plan = plan
        self._restart = False
        self._began = time.monotonic()
        self.quick = int(os.environ.pop(QUICK_VARIABLE, "0"))

    def stop(self, *, hard: bool = False) -> None:
        self._worker.stop(hard=hard)

    def restart(self) -> None:
        """Stop gracefully; whoever runs this starts anew: the command itself, or the supervisor."""
        os.environ.pop(QUICK_VARIABLE, None)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._restart = True
        self._worker.stop()

    def replace(self, plea: Plea) -> None:
        """Have another process take the place of this one, whose memory is used up.

        Under a supervisor it runs before this one ends; one process alone begins anew.
        """
        if self._reporter is not None:
            self._say(plea, replace=True)
        else:
            quick = count_quick(self.quick, time.monotonic() - self._began)
            # The program that begins anew finds it there.
            os.environ[QUICK_VARIABLE] = str(quick)
            delay = quick_delay(quick)
            logger.log(
                logging.ERROR if delay else logging.WARNING,
                "the memory of this process is used up; it begins anew",
                extra={"times": quick, "delay": delay} if delay else {},
            )
            clock = self._app.clock
            clock.alarm("begin anew", self._begin_anew, owner="command").set(clock.now() + delay)

    def tell(self, plea: Plea) -> None:
        """Let the supervisor know how this process stands, in case that is the last that it hears."""
        self._say(plea, replace=False)

    def _say(self, plea: Plea, *, replace: bool) -> None:
        if self._reporter is not None:
            used_mb, budget_mb = plea.used_bytes // MIB, plea.budget_bytes // MIB
            needs_mb = plea.needs_bytes // MIB
            self._reporter.send(Pressed(plea.step.word, used_mb, budget_mb, list(plea.jobs), replace, needs_mb))

    async def run(self) -> tuple[Stopped, bool]:
        began = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            signals = stack.enter_context(ShutdownSignals(self, supervised=self._reporter is not None))
            if self._reporter is not None:
                telling = self._census.create_task(
                    self._tell_start(self._reporter), name="tell the supervisor of the start", owner="command"
                )
                stack.callback(telling.cancel)
                self._reporter.watch(self._supervisor_gone, self._stop_hard, self._asked)
                stack.callback(self._reporter.unwatch)
            else:
                listener = listening(self._plan, self._app.settings, self._answer, self._census)
                await stack.enter_async_context(listener)
            stats = await self._worker.run()
            stopped = Stopped(stats.completed, stats.failed, stats.retried, time.monotonic() - began)
            if self._reporter is not None:
                self._reporter.send(stopped)
            return stopped, self._restart and not signals.count

    async def _tell_start(self, reporter: Reporter) -> None:
        await self._worker.signals.started.wait()
        reporter.send(Started(self._worker.id, self._worker.grace))

    # Health

    async def _report(self) -> Report:
        try:
            health = await self._app.health()
        except UsageError:
            # The app is not open: before the worker has connected, and after its end.
            health = None
        reason = "the worker has ended" if self._worker.signals.stopped.is_set() else "the worker starts"
        return report_worker(health, self._worker.id, os.getpid(), reason)

    async def _answer(self, path: str) -> Answer:
        if path == METRICS:
            return await answer_metrics({"1": self._figures()}, await self._queues(), self._census)
        # Why: whether the loop turns is told by the answer itself, and must not wait for the server.
        report = await self._report() if path != "/livez" else Report(ready=False, pid=os.getpid())
        return answer_one(path, report)

    def _asked(self, word: bytes) -> None:
        """Answer the supervisor."""
        if self._reporter is None:
            return
        if word == ASK_LIFE:
            self._reporter.send(Lives())
        elif word == ASK_HEALTH:
            _ = self._census.create_task(self._tell_health(self._reporter), name="tell health", owner="command")
        elif word == ASK_FIGURES:
            self._reporter.send(Measured(self._figures() or []))
        elif word == ASK_QUEUES:
            _ = self._census.create_task(self._tell_queues(self._reporter), name="tell of queues", owner="command")

    async def _tell_health(self, reporter: Reporter) -> None:
        report = await self._report()
        reporter.send(Answered(report.ready, list(report.reasons), dict(report.health)))

    # Metrics

    def _figures(self) -> list[Sample] | None:
        """Return the figures of this process; None while its app is not open."""
        try:
            return self._app.exporter.process()
        except UsageError:
            return None

    async def _queues(self) -> Counted | None:
        """Return what the server tells of the queues; None while the app is not open."""
        try:
            return await self._app.exporter.queues.read()
        except UsageError:
            return None

    async def _tell_queues(self, reporter: Reporter) -> None:
        reporter.send(Queues(await self._queues()))

    def _stop_hard(self) -> None:
        logger.warning("stopping without grace")
        self._worker.stop(hard=True)

    def _supervisor_gone(self) -> None:
        logger.warning("the supervisor is gone; stopping gracefully")
        self._worker.stop()


def _loop_factory(*, wanted: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not wanted or importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
