"""The supervisor of `headrace worker -p N`: it starts worker processes, keeps their number, and ends them.

It runs no jobs, imports no app and has no connection to the server, so nothing that a job does can take it down. It
acts on three kinds of events: signals, the end of a child, and what a child says (see report.py). Nothing polls.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Final

from headrace.census import Census
from headrace.clock import Clock
from headrace.memory.cgroup import find_group
from headrace.memory.limits import MIB
from headrace.retry import Exponential
from headrace.worker.child import Child, describe_end
from headrace.worker.memory_end import describe_memory_end
from headrace.worker.place import Place, count_quick, quick_delay
from headrace.worker.report import PREDECESSOR_VARIABLE, QUICK_VARIABLE
from headrace.worker.shutdown import ShutdownSignals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.memory.cgroup import Group
    from headrace.worker.place import Tally

logger = logging.getLogger(__name__)

#: Wait before a crashed child is replaced, by how often it crashed without having run well.
BACKOFF: Final = Exponential(base=0.1, maximum=30.0, jitter=False)
#: A child that ran for this long ran well: the next wait is the first again, seconds.
RAN_WELL: Final = 30.0
#: Crashes without having run well after which a person must look.
MANY_CRASHES: Final = 5
#: Time that the new child of a rolling restart gets until its worker runs, seconds.
START_TIMEOUT: Final = 60.0
#: A stopping child that is still there this long after its grace is killed, seconds.
STOP_MARGIN: Final = 10.0
#: How much more than a process needs from its start must be free in the control group to have it beside another.
MORE: Final = 1.5
#: Exit code of a child whose command line, app or setting is wrong.
WRONG_USAGE: Final = 2


class Supervisor:
    """Keep some worker processes running.

    Args:
        command: Program and arguments of a child, which finds its socket in the environment.
        processes: How many, 1 or more.
        burst: A child that ends by itself, having said what it did, is not replaced.
        environment: Variables that the children get beside those of this process.
        group: The control group whose kills are counted; that of this process unless given.

    Attributes:
        refusal: Why no worker could be started, with the exit code that the child gave; None when one could.
        kills: Children that did not stop in time at the end and were killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int,
        *,
        burst: bool = False,
        environment: Mapping[str, str] | None = None,
        group: Group | None = None,
    ) -> None:
        self.refusal: tuple[str, int] | None = None
        self.kills = 0
        self._command = list(command)
        self._burst = burst
        self._environment = dict(environment or {})
        self.census = Census()
        self.clock = Clock(self.census)
        self._places = [Place(number + 1, self.clock, self._start, self._want) for number in range(processes)]
        self._children: dict[Child, Place] = {}
        self._stopping = False
        self._ran = False
        self._rolling: asyncio.Task[None] | None = None
        self._again = False
        #: Places whose process asks for another one, and that process; bounded by the places.
        self._wanted: dict[Place, Child] = {}
        self._group = group or find_group()
        self._oom_kills = self._count_oom_kills()
        self._killer = self.clock.alarm("kill what does not stop", self._kill, owner="supervisor")
        self._done = asyncio.Event()

    @property
    def tallies(self) -> list[Tally]:
        """What each place did; complete when `run` has returned."""
        return [place.tally for place in self._places]

    @property
    def children(self) -> list[Child]:
        """The process that fills each place; a place that waits for one has none."""
        return [place.child for place in self._places if place.child is not None]

    @property
    def places(self) -> list[Place]:
        """The places that it keeps filled, in the order of their numbers."""
        return list(self._places)

    @property
    def waiting(self) -> int:
        """Places without a process, which are to get one."""
        return sum(1 for place in self._places if place.child is None and not place.finished)

    async def run(self) -> None:
        """Start the children and look after them until they were stopped by a signal, or ended as they should.

        Cancelling kills the children.
        """
        loop = asyncio.get_running_loop()
        self.clock.start()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        try:
            with ShutdownSignals(self):
                logger.info("supervisor started", extra={"processes": len(self._places)})
                # Why looked at: it may have been told to stop before it began.
                for place in self._places if not self._stopping else ():
                    self._start(place)
                await self._done.wait()
        finally:
            self._cancel_timers()
            for child in self._children:
                child.end()
            loop.remove_signal_handler(signal.SIGCHLD)
            if self._rolling is not None:
                await asyncio.gather(self._rolling, return_exceptions=True)
            await self.clock.close()
        logger.info("supervisor stopped")

    def stop(self, *, hard: bool = False) -> None:
        """Tell all children to stop, and kill what is left some time after their grace; `hard` leaves no grace."""
        self._stopping = True
        self._cancel_timers()
        if self._rolling is not None:
            self._rolling.cancel()
        for child in self._children:
            child.stop(hard=hard)
        grace = 0.0 if hard else max((child.grace for child in self._children), default=0.0)
        self._killer.set(self.clock.now() + grace + STOP_MARGIN)
        self._check_done()

    def restart(self) -> None:
        """Replace all children one after another; each goes only when its successor runs."""
        if self._stopping:
            return
        self._again = True
        self._start_rolling()

    # Children

    def _start(self, place: Place) -> None:
        place.child = self._spawn(place)
        if place.child is None:
            self._replace_later(place)

    def _spawn(self, place: Place) -> Child | None:
        try:
            environment = dict(self._environment)
            if place.quick:
                environment[QUICK_VARIABLE] = str(place.quick)
            if place.predecessor:
                environment[PREDECESSOR_VARIABLE] = place.predecessor
                place.predecessor = ""
            child = Child(self._command, environment, self.census, self._started, self._asked)
        except OSError as error:
            logger.error(  # noqa: TRY400 - the reason says it all
                "worker process cannot be started; see the limits of the system on processes and memory",
                extra={"place": place.number, "reason": str(error)},
            )
            return None
        self._children[child] = place
        place.tally.starts += 1
        place.tally.pid = child.pid
        return child

    def _started(self, child: Child) -> None:
        self._ran = True
        logger.info("worker process started", extra={"place": self._children[child].number, "child": child.pid})

    def _reap(self) -> None:
        # Why all: signals that come close together arrive as one.
        for child in [child for child in self._children if child.reap()]:
            self._ended(child, self._children.pop(child))
        self._check_done()

    def _ended(self, child: Child, place: Place) -> None:
        code = child.code or 0
        finished = self._burst and code == 0 and child.stopped is not None
        expected = child.retiring or child.killed or finished
        place.tally.add(child, crashed=not expected)
        if expected:
            logger.info(
                "worker process stopped", extra={"place": place.number, "child": child.pid, "end": describe_end(code)}
            )
        if child is not place.child:
            return
        place.child = None
        if finished:
            place.finished = True
        elif not expected:
            self._crashed(child, place, code)

    def _crashed(self, child: Child, place: Place, code: int) -> None:
        place.crashes = 1 if child.started_at and child.seconds >= RAN_WELL else place.crashes + 1
        reason = child.failed.reason if child.failed else describe_end(code)
        never = not self._ran and not child.started_at
        if never and child.failed is not None and (child.failed.code == WRONG_USAGE or self._burst):
            if self.refusal is None:
                self.refusal = (reason, child.failed.code)
            self.stop()
            return
        facts = {"place": place.number, "child": child.pid, "end": describe_end(code), "crashes": place.crashes}
        if child.worker:
            facts["worker"] = child.worker
        if child.failed is not None:
            facts["reason"] = reason
        many = place.crashes >= MANY_CRASHES
        text = (
            "worker process ends again and again; see its last log lines" if many else "worker process ended by itself"
        )
        place.predecessor = self._memory_end(child, code)
        if place.predecessor:
            text = "worker process ran out of memory; what kills it again and again is dead after HEADRACE_MAX_STALLED"
            facts["memory"] = place.predecessor
        logger.log(logging.ERROR if many else logging.WARNING, text, extra=facts)
        if place.fresh is None:
            self._replace_later(place)

    def _memory_end(self, child: Child, code: int) -> str:
        """Say how a process ran out of memory; nothing when there is no sign of it."""
        before, self._oom_kills = self._oom_kills, self._count_oom_kills()
        return describe_memory_end(child.pid, code, child.failed, child.pressed, self._oom_kills - before)

    def _count_oom_kills(self) -> int:
        return (self._group.oom_kills() or 0) if self._group is not None else 0

    def _replace_later(self, place: Place) -> None:
        if self._stopping:
            return
        delay = BACKOFF.delay(max(1, place.crashes))
        logger.info("worker process is replaced", extra={"place": place.number, "delay": delay})
        place.alarm.set(self.clock.now() + delay)

    # Rolling restart

    def _asked(self, child: Child) -> None:
        """Replace a process whose memory is used up; the new one runs before it is told to stop."""
        place = self._children[child]
        if self._stopping or place.child is not child or child.retiring:
            return
        place.quick, place.asking = count_quick(place.quick, child.seconds), child
        delay = quick_delay(place.quick)
        facts: dict[str, object] = {"place": place.number, "child": child.pid}
        if child.pressed is not None:
            facts |= {"used_mb": child.pressed.used_mb, "budget_mb": child.pressed.budget_mb}
        if delay:
            logger.error(
                "worker processes use up their memory again and again soon after their start, and are replaced more "
                "slowly; mend what grows, or raise HEADRACE_MEMORY_LIMIT",
                extra={**facts, "times": place.quick, "delay": delay},
            )
            place.renewal.set(self.clock.now() + delay)
            return
        logger.warning("worker process is replaced before its memory runs out", extra=facts)
        self._want(place)

    def _want(self, place: Place) -> None:
        """Renew a place whose process asked for it, and still fills it."""
        child, place.asking = place.asking, None
        if self._stopping or child is None or place.child is not child:
            return
        self._wanted[place] = child
        self._start_rolling()

    def _start_rolling(self) -> None:
        if self._rolling is None:
            self._rolling = self.census.create_task(self._roll(), name="rolling restart", owner="supervisor")

    async def _roll(self) -> None:
        try:
            while self._again or self._wanted:
                if not self._again:
                    place = next(iter(self._wanted))
                    child = self._wanted.pop(place)
                    # Why: a rolling restart may have replaced it meanwhile, or it may have ended.
                    if place.child is child:
                        await self._renew(place, beside=self._has_room(child))
                    continue
                self._again = False
                self._wanted.clear()
                for place in self._places:
                    place.quick = 0
                    if not place.finished and not await self._renew(place):
                        break
                else:
                    logger.info("all worker processes are new")
        finally:
            self._rolling = None

    def _has_room(self, child: Child) -> bool:
        """Tell whether the control group has room for another process beside this one, now."""
        if self._group is None or child.pressed is None:
            return True
        # Why more: the new one works, and takes memory, while the old one lets its jobs end.
        return self._group.room() >= MORE * child.pressed.needs_mb * MIB

    async def _renew(self, place: Place, *, beside: bool = True) -> bool:
        """Start a new child for a place, and then stop the old one; False when the new one does not start.

        Args:
            place: The place.
            beside: Whether there is memory for both; the old one ends first where there is not.
        """
        place.alarm.set(None)
        if not beside and place.child is not None:
            logger.info("no memory for two: the old worker process ends first", extra={"place": place.number})
            await self._retire(place.child)
        fresh = place.fresh = self._spawn(place)
        runs = fresh is not None and await fresh.starts(START_TIMEOUT)
        place.fresh = None
        old = place.child
        if fresh is None or not runs:
            reason = fresh.failed.reason if fresh is not None and fresh.failed is not None else "see the lines before"
            logger.error(
                "new worker process did not start; the restart is given up",
                extra={"place": place.number, "reason": reason, "former_goes_on": old is not None},
            )
            if fresh is not None and not fresh.ended.is_set():
                fresh.kill()
            if old is None:
                self._replace_later(place)
            return False
        place.child = fresh
        place.crashes = 0
        if fresh.pressed is not None and fresh.pressed.replace:
            # It asked together with its start, when it did not fill the place yet.
            self._asked(fresh)
        if old is not None:
            await self._retire(old)
        return True

    async def _retire(self, child: Child) -> None:
        child.stop()
        try:
            await asyncio.wait_for(child.ended.wait(), child.grace + STOP_MARGIN)
        except TimeoutError:
            child.kill()
            await child.ended.wait()

    # End

    def _kill(self) -> None:
        for child in self._children:
            logger.error("worker process did not stop in time and is killed", extra={"child": child.pid})
            self.kills += 1
            child.kill()

    def _cancel_timers(self) -> None:
        for place in self._places:
            place.alarm.set(None)
            place.renewal.set(None)
        self._killer.set(None)

    def _check_done(self) -> None:
        if not self._children and (self._stopping or all(place.finished for place in self._places)):
            self._done.set()
