"""What continuous integration reads: JUnit XML, and the summary of a GitHub job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from headrace.errors import OptionError
from headrace.verify.outcome import Grade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.verify.outcome import Outcome, Verdict

#: Characters that XML 1.0 cannot hold, in whatever spelling.
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
SUMMARY_VARIABLE: Final = "GITHUB_STEP_SUMMARY"


def write_junit(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Write one test case for each check; a partial one is a failure too, of the type `partial`."""
    bad = sum(1 for one in outcomes if one.grade in {Grade.FAIL, Grade.PARTIAL})
    skipped = sum(1 for one in outcomes if one.grade is Grade.SKIPPED)
    counts = f'tests="{len(outcomes)}" failures="{bad}" errors="0" skipped="{skipped}" time="{seconds:.1f}"'
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f'<testsuites><testsuite name="headrace verify" {counts}>']
    for one in outcomes:
        text = f"measured: {one.measured}\nthreshold: {one.threshold} ({one.source})\nevidence: {one.evidence}"
        lines.append(f'<testcase classname="headrace.verify" name={_quoted(one.name)}>')
        if one.grade is Grade.SKIPPED:
            lines.append(f"<skipped message={_quoted(one.evidence)}/>")
        elif one.grade is not Grade.PASS:
            body = _escaped(f"{text}\nremedy: {one.remedy}")
            lines.append(f'<failure type="{one.grade}" message={_quoted(one.measured)}>{body}</failure>')
        else:
            lines.append(f"<system-out>{_escaped(text)}</system-out>")
        lines.append("</testcase>")
    return "\n".join([*lines, "</testsuite></testsuites>"]) + "\n"


def write_summary(outcomes: Sequence[Outcome], verdict: Verdict) -> str:
    """Write a table of Markdown: what did not pass first, with what to do."""
    order = [Grade.FAIL, Grade.PARTIAL, Grade.PASS, Grade.SKIPPED]
    ordered = sorted(outcomes, key=lambda one: order.index(one.grade))
    rows = [(one.name, str(one.grade), one.measured, one.threshold, one.remedy.strip()) for one in ordered]
    lines = [f"## headrace verify: {verdict}", "", "| check | grade | measured | threshold | what to do |"]
    lines.append("| --- | --- | --- | --- | --- |")
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def save_junit(path: Path, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Write the file, and make its folder when missing, as `--report` does.

    Raises:
        OptionError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(write_junit(outcomes, seconds), encoding="utf-8")
    except OSError as error:
        raise OptionError(f"--junit {path}: {error.strerror}. Name a file that can be written.") from error


def append_summary(environ: Mapping[str, str], outcomes: Sequence[Outcome], verdict: Verdict) -> bool:
    """Append to the file that GITHUB_STEP_SUMMARY names; returns whether there was one.

    Raises:
        OptionError: It cannot be written.
    """
    name = environ.get(SUMMARY_VARIABLE, "").strip()
    if not name:
        return False
    try:
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(write_summary(outcomes, verdict))
    except OSError as error:
        raise OptionError(f"{SUMMARY_VARIABLE}={name}: {error.strerror}. Unset it, or name a file.") from error
    return True


def _cell(text: str) -> str:
    r"""Make a text fit into one cell of Markdown.

    Example:
        >>> _cell("a|b\nc")
        'a\\|b c'
    """
    return " ".join(escape(text).split()).replace("|", "\\|")


def _quoted(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("?", text))


def _escaped(text: str) -> str:
    return escape(_FORBIDDEN.sub("?", text))
