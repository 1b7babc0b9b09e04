"""The jobs and the recount share no code; on any source they must find the same, and what a hand count finds."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.demo.app import LONGEST, Function, count_file
from headrace.demo.recount import FileFacts, recount_file

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.demo.app import Count

NESTED = textwrap.dedent(
    '''
    import a, b
    from c import d

    @decorated
    def outer():
        """Holds others."""
        import e

        async def inner():
            return lambda: 1

        class Local:
            def method(self):
                from f import g

    if True:
        class Chosen: ...
    else:
        def chosen(): ...
    for x in y:
        def looped(): ...
    else:
        import h
    while x:
        def whiled(): ...
    with x:
        import i
    try:
        import j
    except E:
        def caught(): ...
    else:
        import k
    finally:
        def finished(): ...
    try:
        pass
    except* E:
        def grouped(): ...
    match x:
        case 1:
            def matched(): ...
    '''
).lstrip()


def facts_of(count: Count) -> FileFacts:
    functions = [(each.lines, each.name, each.line) for each in count.longest]
    return FileFacts(count.lines, count.definitions, count.imports, count.reasons.get(count.name, ""), functions)


def both(folder: Path, source: bytes) -> tuple[FileFacts, FileFacts]:
    """Return what the task and what the recount find, both with the longest functions only."""
    (folder / "sample.py").write_bytes(source)
    recounted = recount_file(folder / "sample.py", "sample.py")
    longest = sorted(recounted.functions, key=lambda each: (-each[0], each[2]))[:LONGEST]
    shortened = FileFacts(recounted.lines, recounted.definitions, recounted.imports, recounted.reason, longest)
    return facts_of(count_file(str(folder), "sample.py")), shortened


def test_both_count_what_a_hand_counts(tmp_path: Path) -> None:
    counted, recounted = both(tmp_path, NESTED.encode())

    assert counted == recounted
    assert (counted.lines, counted.definitions, counted.imports, counted.reason) == (42, 12, 8, "")
    assert counted.functions[:2] == [(10, "outer", 5), (2, "outer.inner", 9)]


@pytest.mark.parametrize(
    ("source", "lines", "reason"),
    [
        (b"", 0, ""),
        (b"\n", 1, ""),
        (b"x = 1", 1, ""),
        (b"x = 1\r\ny = 2\rz = 3\n", 3, ""),
        (b"x = 1\x0c\x0b\n", 1, "SyntaxError: invalid non-printable character U+000B"),
        (b"# coding: latin-1\nx = '\xe4'\n", 2, ""),
        (b"x = '\xe4'\n", 1, "SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xe4"),
        (b"# coding: no-such\n", 1, "SyntaxError: unknown encoding: no-such"),
        (b"print 'two'\n", 1, "SyntaxError: Missing parentheses in call to 'print'"),
        (b"x = 1\x00\n", 1, "null bytes"),
        (b"(" * 1000 + b"\n", 1, "SyntaxError: too many nested parentheses"),
    ],
)
def test_a_file_that_does_not_parse_has_its_lines_and_a_reason(
    tmp_path: Path, source: bytes, lines: int, reason: str
) -> None:
    counted, recounted = both(tmp_path, source)

    assert counted == recounted
    assert counted.lines == lines
    assert reason in counted.reason
    assert bool(reason) == bool(counted.reason)


def test_a_file_that_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    counted = count_file(str(tmp_path), "gone.py")
    recounted = recount_file(tmp_path / "gone.py", "gone.py")

    assert (counted.files, counted.not_parsed, counted.lines) == (1, 1, 0)
    assert counted.reasons["gone.py"] == recounted.reason
    assert "No such file" in recounted.reason


def test_the_longest_functions_are_kept_each_once(tmp_path: Path) -> None:
    source = "".join(f"def f{n}():\n" + "    pass\n" * n for n in range(1, LONGEST + 5))
    (tmp_path / "sample.py").write_text(source)

    count = count_file(str(tmp_path), "sample.py")

    assert [each.lines for each in count.longest] == list(range(LONGEST + 5, 5, -1))
    assert count.longest[0] == Function(LONGEST + 5, f"f{LONGEST + 4}", "sample.py", len(source.splitlines()) - 14)


LINES = st.sampled_from(
    [
        *("import a", "from b import c", "def f(): ...", "async def g(): ...", "class C: ...", "x = 1", "", "\f", "'"),
        *("if x:", "    pass", "else:", "    import d", "    def h(): ...", "try:", "finally:"),
    ]
)


@given(lines=st.lists(LINES, max_size=30), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_both_find_the_same_in_anything(tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str) -> None:
    counted, recounted = both(tmp_path_factory.getbasetemp(), end.join(lines).encode())

    assert counted == recounted
