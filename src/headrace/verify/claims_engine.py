"""Claims about the engine in one worker: timers, idling, throughput, errors, warnings, loop, history, end."""

from __future__ import annotations

from typing import Final

from headrace.verify.claim import GUIDE, OWN, PROMISE, Claim, milliseconds, spread
from headrace.verify.evidence import LoadEvidence
from headrace.verify.outcome import Grade, Outcome, grade_below, grade_low, worst

#: Timers of a worker process at rest; the incident had 50 and more.
TIMERS_GOOD: Final = 3
TIMERS_FAIR: Final = 10
#: Round trips a second of a worker at rest.
IDLE_GOOD: Final = 1.0
IDLE_FAIR: Final = 5.0
#: Jobs a minute; the incident had 100.
JOBS_A_MINUTE: Final = 500
#: Round trips that a queue needs for each job when it batches nothing: take it, and settle it.
TRIPS_A_JOB: Final = 2
#: Share of attempts that fail, and twice that.
ERRORS_GOOD: Final = 0.01
ERRORS_FAIR: Final = 0.02
#: Blocks of the interpreter that a job may leave behind. What is bounded leaves none once it is full.
BLOCKS_GOOD: Final = 0.25
BLOCKS_FAIR: Final = 1.0
#: Bytes that the server may keep of a job, and that do not count in all: minutes of the statistics, times of workers.
STORED_GOOD: Final = 1.0
STORED_FAIR: Final = 16.0
STORED_LEAST: Final = 32 * 1024
#: Keys a job that come to the server beside those of the run; others may write there too.
OTHERS_GOOD: Final = 0.1
#: Fewer jobs than this say nothing about what each of them leaves behind.
ENOUGH_JOBS: Final = 200
#: Things that are named.
NAMED: Final = 5


class FewTimers(Claim[LoadEvidence]):
    """A worker with nothing to do has at most three timers."""

    name = "timers"
    threshold = f"at most {TIMERS_GOOD} in a worker process at rest (partial {TIMERS_FAIR})"
    source = "the incident: 50 and more timers before, 3 or fewer after"
    remedy = (
        "Timers of your own run in this process: loop.call_later, asyncio.sleep in endless tasks, one poller a thing. "
        "Make them duties of one clock, end them with what started them, or wait for an event instead."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge the larger of two looks at rest."""
        if not evidence.idle:
            return self.skipped("the worker was not looked at at rest")
        most = max(evidence.idle, key=lambda look: look.timers)
        census = ", ".join(f"{count} {kind}" for kind, count in sorted(most.census.items()))
        own = most.census.get("timer", 0)
        return self.found(
            grade_low(most.timers, TIMERS_GOOD, TIMERS_FAIR),
            f"{most.timers}",
            f"set in the event loop, of which {own} by Headrace; census: {census}",
            figures={"timers": most.timers, "timers_own": own},
        )


class QuietAtRest(Claim[LoadEvidence]):
    """A worker with nothing to do asks nothing."""

    name = "idle commands"
    threshold = f"at most {IDLE_GOOD:.0f} round trip a second at rest (partial {IDLE_FAIR:.0f})"
    source = f"the incident: hundreds of empty polls a second; the figure is {OWN}"
    remedy = "Something polls through app.pool: wait for an event or a blocking call instead, or poll less often."

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge the round trips of the worker's pool between two looks at rest."""
        if len(evidence.idle) < 2:  # noqa: PLR2004 - a rate needs two looks
            return self.skipped("the worker was not looked at at rest")
        first, last = evidence.idle[0], evidence.idle[-1]
        seconds = max(0.001, last.at - first.at)
        rate = (last.calls - first.calls) / seconds
        return self.found(
            grade_low(rate, IDLE_GOOD, IDLE_FAIR),
            f"{rate:.2f} a second",
            f"round trips of all connections of the worker in {seconds:.1f} s",
            figures={"roundtrips_per_second": rate},
            # One more or less in this time says nothing.
            noise={"roundtrips_per_second": 1 / seconds},
        )


class FastEnough(Claim[LoadEvidence]):
    """Jobs go through faster than in the incident, and faster than this machine would do them one by one."""

    name = "throughput"
    threshold = f"over {JOBS_A_MINUTE} jobs/min, and this machine's floor (partial below the floor)"
    source = (
        f"the incident: 100 jobs/min before, {JOBS_A_MINUTE} after; the floor is what one connection does with "
        f"{TRIPS_A_JOB} round trips for each job, measured here"
    )
    remedy = (
        "Look for what takes the time of the loop: middleware and lifespans of the app, a busy machine, a slow way to "
        "the server (each reserve and settle waits for it)."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge jobs without content."""
        if not evidence.jobs_seconds:
            return self.skipped("no jobs were run")
        rate = evidence.jobs / evidence.jobs_seconds
        floor = evidence.roundtrips / TRIPS_A_JOB
        grade = Grade.FAIL if rate * 60 <= JOBS_A_MINUTE else Grade.PASS if rate >= floor else Grade.PARTIAL
        return self.found(
            grade,
            f"{rate * 60:,.0f} jobs/min ({rate:,.0f}/s); floor {floor * 60:,.0f}",
            f"{evidence.jobs} jobs without content in {evidence.jobs_seconds:.1f} s, one worker process; "
            f"{evidence.roundtrips:,.0f} round trips a second on one connection",
            figures={"jobs_per_second": rate, "floor_per_second": floor},
            noise={"jobs_per_second": spread(evidence.rates)} if len(evidence.rates) > 1 else None,
        )


class FewErrors(Claim[LoadEvidence]):
    """Hardly any attempt fails."""

    name = "error rate"
    threshold = f"under {ERRORS_GOOD:.0%} of attempts (partial {ERRORS_FAIR:.0%})"
    source = GUIDE
    remedy = (
        "Repair what raises the errors that the evidence names. The jobs themselves do next to nothing, so it is a "
        "middleware of the app, or the way to the server."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge failed attempts of all jobs under load."""
        attempts = evidence.all_jobs + evidence.failed
        if not attempts:
            return self.skipped("no jobs were run")
        rate = evidence.failed / attempts
        errors = evidence.after.errors if evidence.after is not None else {}
        often = sorted(errors.items(), key=lambda pair: pair[1], reverse=True)[:NAMED]
        seen = ", ".join(f"{name} {count} times" for name, count in often)
        return self.found(
            grade_below(rate, ERRORS_GOOD, ERRORS_FAIR),
            f"{rate:.2%}",
            f"{evidence.failed} of {attempts} attempts failed"
            + (f"; with those of the warm-up: {seen}" if seen else ""),
            figures={"error_rate": rate},
        )


class NoWarnings(Claim[LoadEvidence]):
    """A healthy worker under load has nothing to warn of."""

    name = "warnings"
    threshold = "none; an error fails"
    source = OWN
    remedy = "Each line says what to do about it; `headrace verify --report DIR` keeps the log."

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge the log of the worker from its start to its end."""
        if evidence.ended is None and not evidence.log:
            return self.skipped("the worker did not come to its end")
        errors = [line for line in evidence.log if line.level != "WARNING"]
        kinds: dict[str, int] = {}
        for line in evidence.log:
            kinds[line.message[:120]] = kinds.get(line.message[:120], 0) + 1
        texts = [f"{text} ({count})" if count > 1 else text for text, count in kinds.items()]
        grade = Grade.FAIL if errors else Grade.PARTIAL if evidence.log else Grade.PASS
        return self.found(
            grade,
            f"{len(evidence.log) - len(errors)} warnings, {len(errors)} errors",
            "; ".join(texts[:NAMED]) or "the log of the worker from its start to its end",
            figures={"warnings": len(evidence.log) - len(errors), "errors": len(errors)},
        )


class LoopIsFree(Claim[LoadEvidence]):
    """Nothing blocks the event loop of a worker."""

    name = "event loop"
    threshold = "never blocked longer than HEADRACE_LOOP_LAG_WARN_MS (partial up to twice that)"
    source = "the setting HEADRACE_LOOP_LAG_WARN_MS"
    remedy = "Let it wait with await, or make it a plain function, which gets a thread, or process=True."

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge how late the loop was at the worst."""
        lags = [lag for lag in evidence.lags if lag.count]
        if not lags:
            return self.skipped("the worker did not get under load")
        blockers = [
            f"task '{line.more.get('task', '?')}' {line.more.get('where', '')}".strip()
            for line in evidence.log
            if line.message == "loop stalled by a task"
        ]
        named = "; ".join(list(dict.fromkeys(blockers))[:NAMED])
        worst, p99 = max(lag.maximum for lag in lags), max(lag.p99 for lag in lags)
        return self.found(
            grade_low(worst, evidence.loop_lag_warn, 2 * evidence.loop_lag_warn),
            f"longest {milliseconds(worst)}, p99 {milliseconds(p99)}",
            f"{sum(lag.count for lag in lags)} looks, one each 50 ms" + (f"; the log names {named}" if named else ""),
            figures={"lag_longest_seconds": worst, "lag_p99_seconds": p99},
        )


class HistoryIsBounded(Claim[LoadEvidence]):
    """A job leaves nothing behind in the process that ran it."""

    name = "bounded history"
    threshold = f"at most {BLOCKS_GOOD:g} blocks of memory kept a job (partial {BLOCKS_FAIR:g})"
    source = f"{PROMISE}: all history in memory is bounded; the figure is {OWN}"
    remedy = (
        "Something keeps an entry for each job: lists of events, metrics by job id, caches without a limit. Bound them "
        "(deque(maxlen=...), headrace events are bounded already); `await app.memory.trace()` names the lines."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge blocks of the interpreter's allocator after the load, which a collection cannot free."""
        before, after, jobs = evidence.before, evidence.after, evidence.all_jobs
        if before is None or after is None or jobs < ENOUGH_JOBS:
            return self.skipped(f"{jobs} jobs are too few to tell")
        kept = after.blocks - before.blocks
        each = kept / jobs
        return self.found(
            grade_low(each, BLOCKS_GOOD, BLOCKS_FAIR),
            f"{each:.3f} a job",
            f"{kept:,} blocks more after {jobs:,} jobs and a collection than before them",
            figures={"blocks_per_job": each},
        )


class ServerKeepsNothing(Claim[LoadEvidence]):
    """A job leaves nothing behind in the server once it has ended and nothing of it is kept."""

    name = "history in the server"
    threshold = (
        f"at most {STORED_GOOD:g} byte kept a job (partial {STORED_FAIR:g}), or {STORED_LEAST // 1024} KB in all; "
        f"beside them less than a key for {1 / OTHERS_GOOD:.0f} jobs"
    )
    source = f"{PROMISE}: all history in Redis is bounded; the figures are {OWN}"
    remedy = (
        "Something of yours writes to the server for each job and takes nothing back: trim lists and streams when you "
        "add to them, let keys expire. `redis-cli --bigkeys` names the largest; other programs may write there too."
    )

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge what the server held after the load and before it, with nothing waiting at both times."""
        jobs = evidence.all_jobs
        if len(evidence.stored) < 2 or jobs < ENOUGH_JOBS:  # noqa: PLR2004 - a difference needs two looks
            return self.skipped(
                f"{jobs} jobs are too few to tell" if evidence.stored else "the server was not looked at"
            )
        before, after = evidence.stored[0], evidence.stored[-1]
        grown, others = after.size - before.size, after.others - before.others
        own = Grade.PASS if grown <= STORED_LEAST else grade_low(grown / jobs, STORED_GOOD, STORED_FAIR)
        return self.found(
            worst([own, Grade.PASS if others < OTHERS_GOOD * jobs else Grade.PARTIAL]),
            f"{max(0.0, grown / jobs):.2f} bytes a job, {max(0, others):,} keys beside them",
            f"{after.size / 1024:.1f} KB in {after.keys} keys of this run after {jobs:,} jobs, "
            f"{before.size / 1024:.1f} KB before; {after.others:,} other keys, {before.others:,} before",
            figures={"bytes_per_job": grown / jobs, "other_keys": others},
        )


class NothingIsLeft(Claim[LoadEvidence]):
    """Closing leaves nothing: not in the worker, not here, not on the server."""

    name = "nothing left"
    threshold = "empty census, no thread, no child process, no key"
    source = PROMISE
    remedy = "Each entry names who made it and where: end it in a lifespan or with the app that started it."

    def judge(self, evidence: LoadEvidence) -> Outcome:
        """Judge the end of the worker, of the app in this process, and the clean-up."""
        ended = evidence.ended
        if ended is None:
            return self.skipped("the worker did not come to its end")
        left = [*ended.census, *evidence.left_here, *(f"key {key}" for key in evidence.left_keys)]
        left += [f"thread {name}" for name in ended.threads]
        left += [f"{ended.children} child processes"] if ended.children else []
        return self.found(
            Grade.FAIL if left else Grade.PASS,
            f"{len(left)} left" if left else "nothing",
            "; ".join(left[:NAMED]) or "census, threads and children of the worker at its end; keys below the prefix",
            figures={"left": len(left)},
        )
