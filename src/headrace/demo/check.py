"""Does every number add up? Pure comparison of what the jobs, the server and the recount say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.demo.app import LONGEST, Function
from headrace.demo.scene import Sum

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headrace.demo.app import Count, Report, Run
    from headrace.demo.input import SourceFile
    from headrace.demo.recount import FileFacts

#: Differences of one kind that are named; of more, the number is given.
NAMED: Final = 3
KILLED: Final = "their worker was killed while it ran them"
OTHER: Final = "their worker was too slow to keep its lease, or they failed and were tried again"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the jobs and the server say.

    Attributes:
        work: The file of each file job, in the order in which they were enqueued.
        counts: The result of each file, and further ones where a job says something else of the same file.
        report: The result of the last job.
        enqueued: Ids of all jobs.
        lost: Ids of those without a result.
        runs: The run log.
        completed: Jobs completed, as the server counted them, all queues together.
        left: Jobs that are waiting, delayed, active or dead in the end.
        victim: Process that was killed, 0 for none.
        victim_held: Jobs that it held.
        stalled: Jobs taken back from lost workers, as the server counted them.
        retried: Attempts that failed and were tried again, as the server counted them.
    """

    work: Sequence[SourceFile]
    counts: dict[str, list[Count]]
    report: Report
    enqueued: set[str]
    lost: set[str]
    runs: list[Run]
    completed: int
    left: int
    victim: int
    victim_held: int
    stalled: int
    retried: int


def find_differences(evidence: Evidence, facts: dict[str, FileFacts]) -> list[str]:
    """Compare everything with everything; returns a sentence for each number that does not add up."""
    return [
        *_compare_files(evidence, facts),
        *_compare_sums("all files", evidence.report.total, evidence.work, facts),
        *_compare_packages(evidence, facts),
        *_compare_longest(evidence, facts),
        *_compare_jobs(evidence),
        *_compare_runs(evidence),
    ]


def add_facts(work: Iterable[SourceFile], facts: dict[str, FileFacts]) -> Sum:
    """Add the recount up: a file that several jobs counted counts as often."""
    files = lines = definitions = imports = not_parsed = 0
    for name, times in Counter(file.name for file in work).items():
        fact = facts[name]
        files += times
        lines += times * fact.lines
        definitions += times * fact.definitions
        imports += times * fact.imports
        not_parsed += times * bool(fact.reason)
    return Sum(files, lines, definitions, imports, not_parsed)


def count_twice(evidence: Evidence) -> dict[str, int]:
    """Count the jobs that the run log names more than once, by the reason of the first further run."""
    runs: dict[str, list[Run]] = {}
    for run in evidence.runs:
        runs.setdefault(run.job, []).append(run)
    twice = Counter(
        KILLED if any(run.pid == evidence.victim for run in some[:-1]) else OTHER
        for some in runs.values()
        if len(some) > 1
    )
    return dict(twice)


def sum_of(count: Count) -> Sum:
    """Return the figures of a count."""
    return Sum(count.files, count.lines, count.definitions, count.imports, count.not_parsed)


def _compare_files(evidence: Evidence, facts: dict[str, FileFacts]) -> list[str]:
    found: list[str] = []
    for name, counts in evidence.counts.items():
        fact = facts[name]
        expected = Sum(1, fact.lines, fact.definitions, fact.imports, int(bool(fact.reason)))
        found += (
            f"{name}: its job counted {_shown(sum_of(count))}, the recount {_shown(expected)}"
            for count in counts
            if (sum_of(count), count.reasons.get(name, "")) != (expected, fact.reason)
        )
    return _shorten(found, "files differ")


def _compare_sums(what: str, count: Count, work: Sequence[SourceFile], facts: dict[str, FileFacts]) -> list[str]:
    counted, expected = sum_of(count), add_facts(work, facts)
    return [
        f"{what}: the jobs counted {getattr(counted, name):,} {label}, the recount {getattr(expected, name):,}"
        for name, label in LABELS.items()
        if getattr(counted, name) != getattr(expected, name)
    ]


def _compare_packages(evidence: Evidence, facts: dict[str, FileFacts]) -> list[str]:
    work: dict[str, list[SourceFile]] = {}
    for file in evidence.work:
        work.setdefault(file.package, []).append(file)
    counted = {count.name: count for count in evidence.report.packages}
    found = [f"package {name}: only one of report and input has it" for name in sorted(counted.keys() ^ work.keys())]
    for name in sorted(counted.keys() & work.keys()):
        found += _compare_sums(f"package {name}", counted[name], work[name], facts)
    return _shorten(found, "figures of packages differ")


def _compare_longest(evidence: Evidence, facts: dict[str, FileFacts]) -> list[str]:
    names = {file.name for file in evidence.work}
    functions = [
        Function(lines, function, name, line) for name in names for lines, function, line in facts[name].functions
    ]
    functions.sort(key=lambda each: (-each.lines, each.path, each.line))
    found = [
        f"longest function {rank}: the jobs found {_named(ours)}, the recount {_named(theirs)}"
        for rank, (ours, theirs) in enumerate(zip(evidence.report.total.longest, functions, strict=False), 1)
        if ours != theirs
    ]
    if len(evidence.report.total.longest) != min(LONGEST, len(functions)):
        found.append(f"longest functions: the jobs found {len(evidence.report.total.longest)} of them")
    return _shorten(found, "of the longest functions differ")


def _compare_jobs(evidence: Evidence) -> list[str]:
    found: list[str] = []
    if evidence.lost:
        found.append(
            f"{len(evidence.lost):,} of {len(evidence.enqueued):,} jobs have no result, such as {min(evidence.lost)}"
        )
    if evidence.completed != len(evidence.enqueued):
        found.append(f"{len(evidence.enqueued):,} jobs were enqueued, the server completed {evidence.completed:,}")
    if evidence.left:
        found.append(f"{evidence.left:,} jobs are left in the queues")
    if not evidence.victim:
        found.append("no worker was killed: none was running a job at the time. Give it more to do with --jobs")
    return found


def _compare_runs(evidence: Evidence) -> list[str]:
    found: list[str] = []
    logged = {run.job for run in evidence.runs}
    unlogged, unknown = evidence.enqueued - logged, logged - evidence.enqueued
    if unlogged:
        found.append(f"{len(unlogged):,} jobs have a result and no run in the log, such as {min(unlogged)}")
    if unknown:
        found.append(f"{len(unknown):,} jobs ran that nobody enqueued, such as {min(unknown)}")
    other = count_twice(evidence).get(OTHER, 0)
    explained = evidence.stalled - evidence.victim_held + evidence.retried
    if other > explained:
        found.append(f"{other:,} jobs ran twice, and the server knows a reason for {max(0, explained):,} of them")
    return found


#: The figures of a `Sum` in words.
LABELS: Final = {
    "files": "files",
    "lines": "lines",
    "definitions": "definitions",
    "imports": "imports",
    "not_parsed": "files that do not parse",
}


def _shown(figures: Sum) -> str:
    return ", ".join(f"{getattr(figures, name):,} {label}" for name, label in LABELS.items() if name != "files")


def _named(function: Function) -> str:
    return f"{function.name} in {function.path}:{function.line} with {function.lines:,} lines"


def _shorten(found: list[str], rest: str) -> list[str]:
    if len(found) <= NAMED:
        return found
    return [*found[:NAMED], f"{len(found) - NAMED:,} more {rest}"]
