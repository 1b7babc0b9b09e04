"""The claims of the incident's verification guide that need load; its first one is in `claims_server`.

Where the guide names only what is partial and what fails, what lies between counts as failed: it is neither of the
better two.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from headrace.fleet.snapshot import Snapshot
from headrace.memory.steps import Thresholds
from headrace.verify.claim import GUIDE, OWN, Claim, megabytes, milliseconds, spread
from headrace.verify.claims_server import LATENCY_FAIR, LATENCY_GOOD
from headrace.verify.evidence import LoadEvidence
from headrace.verify.outcome import Grade, Outcome, grade_below, grade_low, worst
from headrace.verify.tasks import CALLS, HOLD

#: Callers that wait for a connection.
WAITING_GOOD: Final = 5
WAITING_FAIR: Final = 9
#: Mean seconds from asking for a connection to the first reply on it; up to twice that is partial, as with latency.
RESPONSE_GOOD: Final = 0.05
RESPONSE_FAIR: Final = 0.1
#: Seconds between two memory optimisations.
RELIEF_GOOD: Final = 300.0
RELIEF_FAIR: Final = 120.0
#: So far back the optimisations of running processes are looked at, seconds: long enough to see two that are rare.
RECENT: Final = 900.0
#: Processes that are named.
MOST_NAMED: Final = 3
#: Share of the garbage that a collection must free, and of it that must go back to the system.
FREED_GOOD: Final = 0.8
FREED_FAIR: Final = 0.4
#: Share of the memory limit in use.
USED_GOOD: Final = 0.8
USED_FAIR: Final = Thresholds.of(80).high
#: How far above its start memory may be after the load: a share of it, and a least number of bytes.
BACK_GOOD: Final = 0.10
BACK_FAIR: Final = 0.25
BACK_LEAST: Final = 16 * 2**20


class PoolUnderLoad(Claim[LoadEvidence]):
    """The pool has connections left while every slot calls the server."""

    name = "pool under load"
    threshold = (
        f"0-{WAITING_GOOD} waiting (partial below {WAITING_FAIR + 1}), active below the maximum, idle left, mean "
        f"response under {RESPONSE_GOOD * 1000:.0f} ms (partial under {RESPONSE_FAIR * 1000:.0f} ms)"
    )
    source = f"{GUIDE}, check 2; the partial response is {OWN}"
    remedy = (
        "Raise REDIS_MAX_CONNECTIONS (`headrace pool size` recommends one) or set it to auto, lower QUEUE_CONCURRENCY, "
        "or hold connections for less time."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge 95 of 100 looks at the pool, so that the moment in which it fills does not count."""
        look = evidence.under
        if look is None or not look.samples:
            return self.skipped("the worker did not get under load")
        waiting, active = _at_95([one.waiting for one in look.samples]), _at_95([one.active for one in look.samples])
        idle = -_at_95([-one.idle for one in look.samples])
        # A pool that has room for more needs none idle.
        room = look.maximum - _at_95([one.total for one in look.samples])
        response = look.response.mean
        grades = [
            grade_low(waiting, WAITING_GOOD, WAITING_FAIR),
            Grade.PASS if active < look.maximum else Grade.FAIL,
            Grade.PASS if idle > 0 or room > 0 else Grade.PARTIAL,
            grade_below(response, RESPONSE_GOOD, RESPONSE_FAIR),
        ]
        most = max(one.waiting for one in look.samples)
        timeouts = int(look.pool["timeouts_total"])
        return self.found(
            worst(grades),
            f"{waiting} waiting, {active} of {look.maximum} active, {idle} idle, mean response "
            f"{milliseconds(response)}",
            f"95 of 100 of {len(look.samples)} looks, one each 50 ms; {evidence.slots} slots, {evidence.callers} jobs "
            f"that take a connection {CALLS} times for {HOLD * 1000:.0f} ms; at most {most} wait, {timeouts} gave up",
            figures={
                "waiting": waiting,
                "waiting_most": most,
                "active": active,
                "maximum": look.maximum,
                "idle": idle,
                "response_seconds": response,
                "timeouts": timeouts,
            },
        )


class LatencyUnderLoad(Claim[LoadEvidence]):
    """The server answers in time while there is load."""

    name = "redis latency under load"
    threshold = f"p99 under {LATENCY_GOOD * 1000:.0f} ms; partial under {LATENCY_FAIR * 1000:.0f} ms"
    source = f"{GUIDE}, check 3"
    remedy = (
        "Look at the way to the server (distance, proxy, packet loss) and at what keeps it busy: SLOWLOG GET, its "
        "processor, swapping. `headrace health` tells the two apart."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge the 99th of 100 round trips."""
        times = evidence.latency
        if not times.count:
            return self.skipped("no round trip was measured")
        return self.found(
            grade_below(times.p99, LATENCY_GOOD, LATENCY_FAIR),
            f"p99 {milliseconds(times.p99)}, p50 {milliseconds(times.p50)}, longest {milliseconds(times.maximum)}",
            f"{times.count} PINGs of another process beside the load",
            figures={"p50_seconds": times.p50, "p99_seconds": times.p99, "longest_seconds": times.maximum},
            noise={
                "p50_seconds": spread([each.p50 for each in evidence.latencies]),
                "p99_seconds": spread([each.p99 for each in evidence.latencies]),
                "longest_seconds": spread([each.maximum for each in evidence.latencies]),
            },
        )


class ReliefIsRare(Claim[LoadEvidence]):
    """Memory is not optimised again and again."""

    name = "memory optimisations"
    threshold = f"{RELIEF_GOOD / 60:.0f} minutes apart; partial {RELIEF_FAIR / 60:.0f}"
    source = f"{GUIDE}, check 4"
    remedy = (
        "Find what holds the memory (`app.memory.status().holders`, `app.memory.trace()`), or give it more: "
        "HEADRACE_MEMORY_LIMIT, fewer slots or processes."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge the shortest time between two of them; one alone has no other to be close to."""
        look = evidence.idle[-1] if evidence.idle else evidence.after or evidence.under
        if look is None:
            return self.skipped("the worker was not looked at")
        grade, words = _rarity(look.relieved)
        text = f"those that the governor began by itself; {look.at - evidence.began:.0f} s were looked at"
        return self.found(grade, words, text, figures={"optimisations": len(look.relieved)})


class ReliefOfRunning(Claim[Sequence[Snapshot]]):
    """The processes that run now have not optimised their memory again and again."""

    name = "memory of running processes"
    threshold = f"optimisations {ReliefIsRare.threshold}; under {USED_GOOD:.0%} of the limit (partial {USED_FAIR:.0%})"
    source = f"{GUIDE}, checks 4 and 6"
    remedy = ReliefIsRare.remedy

    def judge(self, evidence: Sequence[Snapshot]) -> Outcome:
        """Judge the process whose optimisations came closest, by what each remembers, and the fullest one."""
        if not evidence:
            return self.skipped("no process below the prefix answered")
        closest = min(evidence, key=lambda one: _closest(_recent(one)))
        grade, words = _rarity(_recent(closest))
        count = sum(len(_recent(one)) for one in evidence)
        share = max(one.memory.used_bytes / max(1, one.memory.budget_bytes) for one in evidence)
        seldom = f"{count} in all (processes: {len(evidence)})"
        rare = seldom if grade is Grade.PASS else f"{words}, in process {closest.pid}"
        return self.found(
            worst([grade, grade_below(share, USED_GOOD, USED_FAIR)]),
            f"{rare}; the fullest uses {share:.0%}",
            f"what each process remembers of the last {RECENT / 60:.0f} minutes; most used: "
            + ", ".join(
                f"process {one.pid} on {one.host} {megabytes(one.memory.used_bytes)} of "
                f"{megabytes(one.memory.budget_bytes)} ({one.memory.step})"
                for one in sorted(evidence, key=lambda one: one.memory.used_bytes, reverse=True)[:MOST_NAMED]
            ),
            figures={"optimisations": count, "share": share},
        )


def _recent(process: Snapshot) -> list[float]:
    """Return when a process optimised its memory of late; what was mended since must not count for ever."""
    return [at for at in process.memory.optimizations if at > process.at - RECENT]


def _closest(times: Sequence[float]) -> float:
    return min((after - before for before, after in itertools.pairwise(times)), default=float("inf"))


def _rarity(times: Sequence[float]) -> tuple[Grade, str]:
    """Grade optimisations at these times, and say how many they are and how close."""
    apart = _closest(times)
    grade = Grade.PASS if apart >= RELIEF_GOOD else Grade.PARTIAL if apart >= RELIEF_FAIR else Grade.FAIL
    return grade, f"{len(times)}" + (f", the closest {apart:.0f} s apart" if len(times) > 1 else "")


class CollectionWorks(Claim[LoadEvidence]):
    """A collection can be asked for, frees garbage, and gives it back to the system without a long pause."""

    name = "collection"
    threshold = (
        f"frees {FREED_GOOD:.0%} of the garbage to the system (partial {FREED_FAIR:.0%}), pause under "
        "HEADRACE_LOOP_LAG_WARN_MS (partial twice that)"
    )
    source = f"{GUIDE}, check 5; the figures are {OWN}"
    remedy = (
        "Something keeps garbage alive, or malloc keeps it: look for gc.disable, gc.freeze and finalizers in your "
        "code, and set MALLOC_ARENA_MAX=2."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge what one collection did to garbage that was made for it."""
        done = evidence.collected
        if done is None:
            return self.skipped("no collection was asked for")
        back = done.before - done.after
        share = back / done.made if done.made > 0 else 0.0
        freed = Grade.PASS if share >= FREED_GOOD else Grade.PARTIAL if share >= FREED_FAIR else Grade.FAIL
        pause = grade_below(done.seconds, evidence.loop_lag_warn, 2 * evidence.loop_lag_warn)
        return self.found(
            worst([freed, pause]),
            f"{megabytes(back)} of {megabytes(done.made)} went back to the system, pause {milliseconds(done.seconds)}",
            "; ".join(done.actions),
            figures={"made_bytes": done.made, "back_bytes": back, "pause_seconds": done.seconds},
        )


class MemoryComesBack(Claim[LoadEvidence]):
    """Memory stays below its limit, and is back near its start after the load."""

    name = "memory of a worker"
    threshold = (
        f"under {USED_GOOD:.0%} of the limit (partial {USED_FAIR:.0%}); after load within {BACK_GOOD:.0%} or "
        f"{megabytes(BACK_LEAST)} of its start (partial {BACK_FAIR:.0%} or {megabytes(2 * BACK_LEAST)})"
    )
    source = f"{GUIDE}, check 6; near its start is {OWN}"
    remedy = (
        "Something in the app keeps what jobs leave behind: `await app.memory.trace()` names the lines, "
        "`app.memory.status().tasks` the tasks. Bound caches and lists, or use a weak reference."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge the share in use at the end of the load, and what is left of it after a collection."""
        before, under, after = evidence.before, evidence.under, evidence.after
        if before is None or under is None or after is None:
            return self.skipped("the worker was not looked at before and after")
        share = max(under.memory_share, after.memory_share)
        grown = after.resident - before.resident
        good = max(BACK_GOOD * before.resident, BACK_LEAST)
        fair = max(BACK_FAIR * before.resident, 2 * BACK_LEAST)
        used = grade_below(share, USED_GOOD, USED_FAIR)
        back = grade_low(grown, good, fair)
        limit_remedy = "Raise the limit of the container or HEADRACE_MEMORY_LIMIT, or run fewer slots and processes."
        most = max((size for _, size in evidence.series), default=under.resident)
        return self.found(
            worst([used, back]),
            f"{share:.0%} of {megabytes(after.memory_limit)}; {megabytes(before.resident)} before the load, "
            f"{megabytes(after.resident)} after",
            f"resident size of the worker, at most {megabytes(most)}; {evidence.all_jobs} jobs in between",
            remedy=limit_remedy if back is Grade.PASS else "",
            figures={
                "share": share,
                "before_bytes": before.resident,
                "after_bytes": after.resident,
                "most_bytes": most,
            },
        )


def _at_95(values: list[int]) -> int:
    """Return the value that 95 of 100 do not pass.

    Example:
        >>> _at_95(list(range(100)))
        95
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
