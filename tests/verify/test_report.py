"""The evidence of a run: what is in it, what is not, and what two of them say together."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest

from headrace.cli.commands import make_group
from headrace.errors import OptionError
from headrace.fleet.snapshot import MemoryFigures, Snapshot
from headrace.histogram import Quantiles
from headrace.settings import load_settings
from headrace.verify.ci import append_summary, save_junit, write_junit
from headrace.verify.claims import ReliefOfRunning
from headrace.verify.claims_workers import Dead, WorkersLive, WorkersSeen
from headrace.verify.compare import compare
from headrace.verify.course import QUICK
from headrace.verify.evidence import DrillEvidence, Ended, LoadEvidence, LogLine, Look, Sample, Stored
from headrace.verify.outcome import Grade, Outcome, Verdict, conclude
from headrace.verify.report import build_report, read_report, write_bundle
from headrace.verify.run import DRILL_CLAIMS, LOAD_CLAIMS, Found
from tests.cli.command import Done
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace.server import PrivateServer
    from headrace.verify.report import Report
    from tests.support.raw import Raw

SECRET = "hunter2"


def outcome(name: str, grade: Grade = Grade.PASS, **figures: float) -> Outcome:
    remedy = "" if grade is Grade.PASS else "Do <this> & that."
    return Outcome(
        name=name, grade=grade, measured="1 | 2", threshold="under 3", source="a guide", evidence="seen", remedy=remedy,
        figures=figures,
    )  # fmt: skip


def make_look(**changes: Any) -> Look:
    fields: dict[str, Any] = {
        "at": 1_000.0, "resident": 50 * 2**20, "blocks": 1_000, "timers": 1, "census": {"timer": 1}, "minimum": 20,
        "maximum": 100, "pool": {"calls_total": 5, "response": {"mean": 0.001}, "timeouts_total": 0}, "worker": {},
        "memory_used": 50 * 2**20, "memory_limit": 2**30, "memory_share": 0.05, "relieved": [],
        "samples": [Sample(0.0, 1, 19, 20, 0), Sample(0.05, 2, 18, 20, 0)], "lag": Quantiles(),
    }  # fmt: skip
    return Look(**{**fields, **changes})


def stored(grown: int, others: int) -> list[Stored]:
    """What the server held before and after a load."""
    return [Stored(keys=5, size=1_000, others=10), Stored(keys=6, size=1_000 + grown, others=10 + others)]


def make_report(outcomes: list[Outcome], **load: Any) -> Report:
    settings = load_settings({"redis_url": f"redis://app:{SECRET}@127.0.0.1:1/0"}, environ={}, dotenv=None)
    evidence = LoadEvidence(under=make_look(), series=[(0.0, 5), (1.0, 6)], rates=[10.0, 20.0], **load)
    found = Found(outcomes, QUICK, settings, "Valkey 8", evidence, DrillEvidence())
    found.errors = [f"cannot reach redis://app:{SECRET}@127.0.0.1:1/0"]
    found.start_log = ["<script>alert(1)</script>", f"using redis://:{SECRET}@cache/0"]
    return build_report(found)


def test_a_bundle_has_every_part_without_secrets_and_its_hashes_are_right(tmp_path: Path) -> None:
    digest = write_bundle(make_report([outcome("pool", Grade.FAIL)]), tmp_path / "out")

    manifest = (tmp_path / "out" / "manifest.sha256").read_text()
    assert digest == hashlib.sha256(manifest.encode()).hexdigest()
    listed = {line[66:]: line[:64] for line in manifest.splitlines()}
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != "manifest.sha256"}
    assert listed == {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    assert files.keys() >= {"report.json", "report.html", "start.log", "pool.json", "memory.json", "settings.json"}
    assert not [name for name, body in files.items() if SECRET.encode() in body]
    report = read_report(tmp_path / "out" / "report.json")
    assert (report.schema, report.verdict) == (1, Verdict.FAILED)
    assert report.versions["python"]
    assert report.machine["processors"]


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    with pytest.raises(SystemExit) as end:
        make_group().main([*arguments], prog_name="headrace")
    return Done(int(end.value.code or 0), *capsys.readouterr())


def test_a_bundle_is_checked_by_its_hashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = write_bundle(make_report([outcome("pool")]), tmp_path)
    command = functools.partial(run_command, capsys)

    whole = command("verify", "--check", str(tmp_path))
    (tmp_path / "start.log").write_text("another\n")
    (tmp_path / "pool.json").unlink()
    changed = command("verify", "--check", str(tmp_path))
    (tmp_path / "manifest.sha256").write_text("")
    empty = command("verify", "--check", str(tmp_path))

    assert (whole.code, whole.out) == (0, f"every file is as it was written\nSHA-256 of the manifest {digest}\n")
    assert changed.code == 2
    assert changed.out.splitlines()[:2] == [
        "pool.json: No such file or directory", "start.log: changed since it was written",
    ]  # fmt: skip
    assert empty.code != 0
    assert "no manifest of this command" in empty.err


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path: Path) -> None:
    write_bundle(make_report([outcome("pool", Grade.FAIL)]), tmp_path)

    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"(src|href|url)\s*[=(]|https?://|<script|@import", page)
    assert "&lt;script&gt;" in page
    assert "Do &lt;this&gt; &amp; that." in page


def test_what_is_no_report_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for body, expected in ((b"{}", "other.json: "), (b"no", "other.json: ")):
        path.write_bytes(body)
        with pytest.raises(OptionError, match=expected):
            read_report(path)
    path.write_bytes(msgspec.json.encode(make_report([])).replace(b'"schema":1', b'"schema":99'))
    with pytest.raises(OptionError, match="newer Headrace"):
        read_report(path)


def test_a_comparison_says_which_changes_exceed_what_was_measured_as_noise() -> None:
    steady = Outcome(
        name="throughput", grade=Grade.PASS, measured="", threshold="", source="",
        figures={"jobs_per_second": 1_000.0}, noise={"jobs_per_second": 300.0},
    )  # fmt: skip
    faster = msgspec.structs.replace(steady, figures={"jobs_per_second": 1_250.0})
    far = msgspec.structs.replace(steady, figures={"jobs_per_second": 5_000.0})
    before = make_report([steady, outcome("pool", Grade.FAIL, waiting=282.0), outcome("timers", timers=52.0)])

    near = compare(before, make_report([faster, outcome("pool", waiting=0.0), outcome("timers", timers=52.0)]))
    wide = compare(before, make_report([far]))

    assert {change.figure: change.verdict for change in near.changes} == {
        "jobs_per_second": "same",
        "waiting": "better",
        "timers": "same",
    }
    assert [(grades.check, grades.before, grades.after) for grades in near.grades] == [("pool", "fail", "pass")]
    assert {change.figure: change.verdict for change in wide.changes} == {
        "jobs_per_second": "better",
        "waiting": "gone",
        "timers": "gone",
    }


def test_junit_counts_what_did_not_pass_and_holds_the_remedy() -> None:
    outcomes = [
        outcome("good"),
        outcome("bad \x00<", Grade.FAIL),
        outcome("fair", Grade.PARTIAL),
        outcome("none", Grade.SKIPPED),
    ]

    suite = ET.fromstring(write_junit(outcomes, 1.0).encode())[0]

    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "2", "1")
    assert [failure.get("type") for failure in suite.iter("failure")] == ["fail", "partial"]
    assert all("Do <this> & that." in (failure.text or "") for failure in suite.iter("failure"))


def test_junit_makes_its_folder_and_names_what_cannot_be_written(tmp_path: Path) -> None:
    save_junit(tmp_path / "results" / "verify.xml", [outcome("good")], 1.0)

    assert ET.parse(tmp_path / "results" / "verify.xml").getroot()[0].get("tests") == "1"
    with pytest.raises(OptionError, match=r"--junit .*/verify\.xml/a\.xml: .*\. Name a file that can be written\."):
        save_junit(tmp_path / "results" / "verify.xml" / "a.xml", [outcome("good")], 1.0)


def test_the_summary_of_a_job_begins_with_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    outcomes = [outcome("good"), outcome("bad", Grade.FAIL)]

    assert append_summary({"GITHUB_STEP_SUMMARY": str(path)}, outcomes, Verdict.FAILED)
    assert not append_summary({}, outcomes, Verdict.FAILED)

    lines = path.read_text().splitlines()
    assert lines[0] == "## headrace verify: failed"
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| bad", "| good"]
    assert "1 \\| 2" in lines[4]


def test_a_verdict_is_as_good_as_its_worst_check_and_needs_one() -> None:
    assert conclude([outcome("a"), outcome("b", Grade.SKIPPED)]) is Verdict.FULL
    assert conclude([outcome("a"), outcome("b", Grade.PARTIAL)]) is Verdict.PARTIAL
    assert conclude([outcome("a", Grade.PARTIAL), outcome("b", Grade.FAIL)]) is Verdict.FAILED
    assert conclude([outcome("a", Grade.SKIPPED)]) is Verdict.PARTIAL
    assert [verdict.exit_code for verdict in Verdict] == [0, 1, 2]


def test_what_was_not_measured_passes_no_claim() -> None:
    outcomes = [claim.judge(LoadEvidence()) for claim in LOAD_CLAIMS]
    outcomes += [claim.judge(DrillEvidence()) for claim in DRILL_CLAIMS]

    assert {one.grade for one in outcomes} == {Grade.SKIPPED}


@pytest.mark.parametrize(
    ("name", "evidence", "grade"),
    [
        ("memory optimisations", {"idle": [make_look(relieved=[100.0, 130.0])]}, Grade.FAIL),
        ("memory optimisations", {"idle": [make_look(relieved=[100.0, 280.0])]}, Grade.PARTIAL),
        ("memory optimisations", {"idle": [make_look(relieved=[100.0, 500.0])]}, Grade.PASS),
        ("throughput", {"jobs": 99, "jobs_seconds": 12.0, "roundtrips": 1.0}, Grade.FAIL),
        ("throughput", {"jobs": 100, "jobs_seconds": 1.0, "roundtrips": 1_000.0}, Grade.PARTIAL),
        ("throughput", {"jobs": 1_000, "jobs_seconds": 1.0, "roundtrips": 1_000.0}, Grade.PASS),
        ("redis latency under load", {"latency": Quantiles(9, p99=0.15)}, Grade.PARTIAL),
        ("redis latency under load", {"latency": Quantiles(9, p99=0.5)}, Grade.FAIL),
        ("warnings", {"log": [LogLine(level="WARNING", message="pool cannot grow")]}, Grade.PARTIAL),
        ("warnings", {"log": [LogLine(level="ERROR", message="task failed")]}, Grade.FAIL),
        ("idle commands", {"idle": [make_look(), make_look(at=1_001.0, pool={"calls_total": 305})]}, Grade.FAIL),
        ("nothing left", {"ended": Ended(worker={}, census=[], threads=[], children=1)}, Grade.FAIL),
        ("history in the server", {"jobs": 50_000, "stored": stored(9_000, 4_000)}, Grade.PASS),
        ("history in the server", {"jobs": 50_000, "stored": stored(500_000, 0)}, Grade.PARTIAL),
        ("history in the server", {"jobs": 50_000, "stored": stored(0, 6_000)}, Grade.PARTIAL),
        ("history in the server", {"jobs": 50_000, "stored": stored(900_000, 0)}, Grade.FAIL),
        ("pool under load", {"under": make_look(samples=[Sample(0.0, 9, 1, 10, 7)])}, Grade.PARTIAL),
        ("pool under load", {"under": make_look(samples=[Sample(0.0, 9, 1, 10, 30)])}, Grade.FAIL),
    ],
)
def test_each_threshold_has_two_sides(name: str, evidence: dict[str, Any], grade: Grade) -> None:
    claim = next(claim for claim in LOAD_CLAIMS if claim.name == name)

    assert claim.judge(LoadEvidence(**evidence)).grade is grade


@pytest.mark.parametrize(
    ("times", "grade", "measured"),
    [
        ([[]], Grade.PASS, "0 in all (processes: 1)"),
        ([[100.0, 500.0], [130.0]], Grade.PASS, "3 in all (processes: 2)"),
        ([[], [100.0, 280.0]], Grade.PARTIAL, "2, the closest 180 s apart, in process 1"),
        ([[100.0, 280.0], [100.0, 500.0, 530.0]], Grade.FAIL, "3, the closest 30 s apart, in process 1"),
        ([[-130.0, -100.0, 150.0, 700.0]], Grade.PASS, "2 in all (processes: 1)"),
        ([], Grade.SKIPPED, "not measured"),
    ],
)
def test_processes_that_optimise_their_memory_again_and_again_are_named(
    times: list[list[float]], grade: Grade, measured: str
) -> None:
    fleet = [
        Snapshot("app", "host", number, at=900.0, memory=MemoryFigures("high", optimizations=each))
        for number, each in enumerate(times)
    ]

    found = ReliefOfRunning().judge(fleet)

    assert (found.grade, found.measured.partition(";")[0]) == (grade, measured)


@pytest.mark.parametrize(("used", "grade"), [(79, Grade.PASS), (80, Grade.PARTIAL), (95, Grade.FAIL)])
def test_a_running_process_that_is_nearly_full_is_found(used: int, grade: Grade) -> None:
    fleet = [
        Snapshot("app", "host", number, memory=MemoryFigures(used_bytes=each, budget_bytes=100))
        for number, each in enumerate((50, used))
    ]

    found = ReliefOfRunning().judge(fleet)

    assert (found.grade, found.figures["share"]) == (grade, used / 100)


@pytest.mark.parametrize(
    ("ago", "held", "replaced", "grade"),
    [
        (20.0, 3, True, Grade.FAIL),
        (5_000.0, 0, False, Grade.FAIL),
        (20.0, 0, True, Grade.PARTIAL),
        (5_000.0, 0, True, Grade.PASS),
    ],
)
def test_a_dead_worker_counts_until_others_do_its_work_and_for_a_while(
    ago: float,
    held: int,
    replaced: bool,  # noqa: FBT001 - columns of the table above
    grade: Grade,
) -> None:
    found = WorkersLive().judge(WorkersSeen(1, [Dead("a1", "host", 7, ago, held, replaced)]))

    assert found.grade is grade
    assert ("pid 7 on host" in found.measured) is (grade is not Grade.PASS)


def test_a_lost_or_doubled_job_fails_the_drill() -> None:
    lost, doubled = DRILL_CLAIMS[:2]
    good = DrillEvidence(accepted=100, completed=100, twice=5)

    assert [claim.judge(good).grade for claim in (lost, doubled)] == [Grade.PASS, Grade.PASS]
    assert lost.judge(DrillEvidence(accepted=100, lost=1)).grade is Grade.FAIL
    assert lost.judge(DrillEvidence(accepted=100, lost=2, allowed=1)).grade is Grade.FAIL
    assert lost.judge(DrillEvidence(accepted=100, lost=2, allowed=2)).grade is Grade.PARTIAL
    assert doubled.judge(DrillEvidence(accepted=100, completed=101)).grade is Grade.FAIL
    assert doubled.judge(DrillEvidence(accepted=100, completed=100, unexplained=1)).grade is Grade.FAIL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "number"), [("jobs without content", signal.SIGINT), ("calls of the server", signal.SIGHUP)]
)
def test_the_command_shows_progress_and_an_interrupt_leaves_nothing_behind(
    part: str, number: signal.Signals, server: PrivateServer, raw: Raw, tmp_path: Path
) -> None:
    before = set(raw.keys("headrace:verify-"))
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "verify", "--quick", "--url", server.url, "--report", str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "REDIS_URL": ""},
    )  # fmt: skip
    assert process.stderr is not None
    read_until(process.stderr.readline, part)
    if part.startswith("calls"):
        # The jobs of this part write keys of their own, and go on doing so until their worker has ended.
        wait_for_new_key(raw)
    children = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(number)
    _, errors = process.communicate(timeout=20.0)

    assert children
    assert process.returncode == 130
    assert errors.rstrip().endswith("Interrupted. No process, key or file of the verification is left.")
    assert psutil.wait_procs(children, timeout=5.0)[1] == []
    assert set(raw.keys("headrace:verify-")) == before
    assert not (tmp_path / "out").exists()


def wait_for_new_key(raw: Raw) -> None:
    """Wait until a job writes its key once more; the test's own deadline ends the wait."""
    old = [key for key in raw.keys("headrace:verify-") if ":verify:" in key]
    raw("DEL", "none", *old)
    while not any(":verify:" in key for key in raw.keys("headrace:verify-")):
        time.sleep(0.02)


def read_until(readline: Callable[[], str], text: str) -> None:
    """Read lines until one holds the text; the test's own deadline ends the wait."""
    while text not in (line := readline()):
        assert line, "the command ended before"
