"""A check that is switched off for a line names its code, and says why after it."""

from __future__ import annotations

import io
import re
import tokenize

import pytest

from tests.tidy.tree import name_of, tracked

SWITCH = re.compile(r"#\s*(?:ruff:\s*)?noqa\b|#\s*type:\s*ignore\b|#\s*mypy:|#\s*pragma:", re.IGNORECASE)
WITH_CODE = re.compile(
    r"#\s*(?:(?:ruff:\s*)?noqa:\s*[A-Z]+[0-9]+(?:\s*,\s*[A-Z]+[0-9]+)*"
    r"|type:\s*ignore\[[\w, -]+\]"
    r"|mypy:\s*[\w-]+=\S+"
    r"|pragma:\s*no \w+)"
)


def has_code_and_reason(comment: str) -> bool:
    if len(SWITCH.findall(comment)) != len(WITH_CODE.findall(comment)):
        return False
    reason = WITH_CODE.sub("", comment)
    return len(re.findall(r"\w+", reason)) > 1


def problems(name: str, text: str) -> list[str]:
    return [
        f"{name}:{token.start[0]}: {token.string}"
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and SWITCH.search(token.string) and not has_code_and_reason(token.string)
    ]


def test_every_switched_off_check_has_its_reason() -> None:
    found = [line for path in tracked(".py") for line in problems(name_of(path), path.read_text())]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa",
        "# noqa because of this",
        "# noqa: S311",
        "# noqa: S311, S312",
        "# noqa: S311 why",
        "# type: ignore",
        "# type: ignore because of this",
        "# type: ignore[arg-type]",
        "# type: ignore[arg-type]  # noqa: S311",
        "# pragma: no cover",
    ],
)
def test_a_missing_reason_is_found(comment: str) -> None:
    assert problems("a.py", f"x = 1  {comment}\n") == [f"a.py:1: {comment}"]


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: S311 jitter needs no secret",
        "# noqa: S311, S312 - jitter needs no secret",
        "# type: ignore[arg-type]  # the stub lacks it",
        "# type: ignore[arg-type]  # noqa: S311 the stub lacks it",
        "# What `noqa` means is told elsewhere",
    ],
)
def test_a_reason_passes(comment: str) -> None:
    assert problems("a.py", f"x = 1  {comment}\n") == []


def test_a_switch_inside_a_string_passes() -> None:
    assert problems("a.py", 'x = "# noqa"\n') == []
