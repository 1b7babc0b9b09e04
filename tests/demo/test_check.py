"""Every number is compared: whatever is off by one is named."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from headrace.demo.app import Run, count_file, count_package, make_report
from headrace.demo.check import KILLED, OTHER, Evidence, count_twice, find_differences
from headrace.demo.input import SourceFile
from headrace.demo.recount import recount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace.demo.recount import FileFacts

VICTIM, OTHER_PID = 71, 72
SOURCES = {
    "a/one.py": "import x\n\n\ndef one():\n    return 1\n",
    "a/two.py": "class Two: ...\n",
    "three.py": "print 3\n",
}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Evidence, dict[str, FileFacts]]:
    """Four file jobs on three files, two packages and a report; one job ran twice since its worker was killed."""
    for name, source in SOURCES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    files = [SourceFile(str(tmp_path), name) for name in SOURCES]
    work = [*files, files[0]]
    counts = {file.name: count_file(file.root, file.name) for file in files}
    for count in counts.values():
        count.pid = 0
    parts = [count_package("a", [counts["a/one.py"], counts["a/two.py"], counts["a/one.py"]])]
    parts.append(count_package("(modules)", [counts["three.py"]]))
    ids = [f"job{number}" for number in range(7)]
    runs = [Run(job, "t", 1, OTHER_PID, float(at)) for at, job in enumerate(ids, 1)]
    evidence = Evidence(
        work=work,
        counts={name: [count] for name, count in counts.items()},
        report=make_report(parts),
        enqueued=set(ids),
        lost=set(),
        runs=[Run("job3", "t", 1, VICTIM, 0.0), *runs],
        completed=7,
        left=0,
        victim=VICTIM,
        victim_held=1,
        stalled=1,
        retried=0,
    )
    return evidence, dict(recount(files))


def test_numbers_that_agree_have_no_difference(made: tuple[Evidence, dict[str, FileFacts]]) -> None:
    evidence, facts = made

    differences = find_differences(evidence, facts)

    assert differences == []
    assert (evidence.report.total.files, evidence.report.total.lines) == (4, 5 + 1 + 1 + 5)
    assert count_twice(evidence) == {KILLED: 1}


def change(evidence: Evidence, **facts: object) -> Evidence:
    return dataclasses.replace(evidence, **facts)  # type: ignore[arg-type]  # a table of changes


def wrong_file(evidence: Evidence) -> Evidence:
    evidence.counts["a/two.py"][0].definitions += 1
    return evidence


def second_opinion(evidence: Evidence) -> Evidence:
    evidence.counts["a/one.py"].append(evidence.counts["a/two.py"][0])
    return evidence


def wrong_total(evidence: Evidence) -> Evidence:
    evidence.report.total.imports -= 1
    return evidence


def wrong_package(evidence: Evidence) -> Evidence:
    evidence.report.packages[1].lines += 1
    return evidence


def no_package(evidence: Evidence) -> Evidence:
    evidence.report.packages.pop()
    return evidence


def wrong_function(evidence: Evidence) -> Evidence:
    first = evidence.report.total.longest[0]
    evidence.report.total.longest[0] = type(first)(first.lines, first.name, first.path, first.line + 1)
    return evidence


def no_function(evidence: Evidence) -> Evidence:
    evidence.report.total.longest.clear()
    return evidence


@pytest.mark.parametrize(
    ("sabotage", "sentence"),
    [
        (wrong_file, "a/two.py: its job counted 1 lines, 2 definitions, 0 imports"),
        (second_opinion, "a/one.py: its job counted 1 lines"),
        (wrong_total, "all files: the jobs counted 1 imports, the recount 2"),
        (wrong_package, "package a: the jobs counted 12 lines, the recount 11"),
        (no_package, "package a: only one of report and input has it"),
        (wrong_function, "found one in a/one.py:5 with 2 lines, the recount one in a/one.py:4"),
        (no_function, "longest functions: the jobs found 0 of them"),
        (lambda each: change(each, lost={"job2"}), "1 of 7 jobs have no result, such as job2"),
        (lambda each: change(each, completed=8), "7 jobs were enqueued, the server completed 8"),
        (lambda each: change(each, left=2), "2 jobs are left in the queues"),
        (lambda each: change(each, victim=0), "no worker was killed"),
        (lambda each: change(each, runs=each.runs[2:]), "1 jobs have a result and no run in the log, such as job0"),
        (lambda each: change(each, enqueued=each.enqueued - {"job1"}), "1 jobs ran that nobody enqueued, such as job1"),
        (
            lambda each: change(each, runs=[*each.runs, Run("job5", "t", 1, OTHER_PID, 9.0)]),
            "1 jobs ran twice, and the server knows a reason for 0 of them",
        ),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_named(
    made: tuple[Evidence, dict[str, FileFacts]], sabotage: Callable[[Evidence], Evidence], sentence: str
) -> None:
    evidence, facts = made

    differences = find_differences(sabotage(evidence), facts)

    assert sentence in "\n".join(differences)


def test_a_second_run_that_the_server_can_explain_is_no_difference(
    made: tuple[Evidence, dict[str, FileFacts]],
) -> None:
    evidence, facts = made
    evidence = change(evidence, runs=[*evidence.runs, Run("job5", "t", 2, OTHER_PID, 9.0)], stalled=2)

    differences = find_differences(evidence, facts)

    assert differences == []
    assert count_twice(evidence) == {KILLED: 1, OTHER: 1}


def test_many_differences_are_counted(made: tuple[Evidence, dict[str, FileFacts]]) -> None:
    evidence, facts = made
    for index in range(6):
        evidence.counts[f"more{index}.py"] = evidence.counts["three.py"]
        facts[f"more{index}.py"] = facts["a/one.py"]

    differences = find_differences(evidence, facts)

    assert "3 more files differ" in differences
