"""Every example of the documents runs and prints what the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.server import start_private_server
from tests.docs.examples import Command, Copy, File, Lines, Reader, difference, steps
from tests.tidy.tree import ROOT, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer

DECISIONS = ROOT / "docs" / "decisions"
DOCUMENTS = sorted(path for path in (ROOT / "docs").rglob("*.md") if not path.is_relative_to(DECISIONS))
PAGES = [ROOT / "README.md", *DOCUMENTS]


def is_followed(page: Path) -> bool:
    """Tell whether a page has something to run. One with a block that cannot be read fails when it is followed."""
    try:
        return bool(list(steps(page.read_text())))
    except ValueError:
        return True


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server that only the page uses: its apps have the default prefix."""
    with start_private_server(tmp_path / "server", extra=("--appendonly", "no", "--save", "")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if is_followed(page)], ids=name_of)
def test_the_examples_run(page: Path, tmp_path: Path, own_server: PrivateServer) -> None:
    folder = tmp_path / "page"
    folder.mkdir()

    found = list(Reader(folder, own_server.url).follow(page.read_text()))

    assert not found, "\n\n".join(found)


PAGE = """
```python
# shop.py
x = 1
```
<!-- not run: it needs a network -->

```console
$ pip install x
```

<!-- background -->
```console
$ serve it
ready
```
Text `a` and a <!-- comment -->.

```python
# shop.py, continued
y = 2
```

```python
print(1 + 1)  # 2
await x
```

```console
$ one a
first
second
$ two \\
  three
third
```

<!-- file: deploy/x.yml -->
```yaml
a: 1
```

```yaml
# deploy/my-own.yml
a: 2
```
"""


def test_a_page_is_read_in_order() -> None:
    assert list(steps(PAGE)) == [
        File("shop.py", "# shop.py\nx = 1\n", more=False),
        Command("serve it", "ready", background=True),
        File("shop.py", "# shop.py, continued\ny = 2\n", more=True),
        Lines("print(1 + 1)  # 2\nawait x\n", "2"),
        Command("one a", "first\nsecond", background=False),
        Command("two \\\n  three", "third", background=False),
        Copy("deploy/x.yml", "a: 1\n"),
        File("deploy/my-own.yml", "# deploy/my-own.yml\na: 2\n", more=False),
    ]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```bash\nls\n```\n", "kind 'bash'"),
        ("```yaml\na: 1\n```\n", "kind 'yaml'"),
        ("```mermaid\nflowchart TD\n```\n", "kind 'mermaid'"),
        ("- Do:\n\n  ```console\n  $ ls\n  ```\n", "a fence that is not read: .*console"),
        ("```console title='x'\n$ ls\n```\n", "a fence that is not read: .*title"),
        ("~~~console\n$ ls\n~~~\n", "a fence that is not read: '~~~console'"),
        ("<!-- in the background -->\n```console\n$ ls\n```\n", "a mark that is not known: <!-- in the background"),
        ("<!-- not run: -->\n```console\n$ ls\n```\n", "a mark that is not known: <!-- not run: -->"),
    ],
)
def test_a_block_that_nobody_runs_is_refused(page: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(steps(page))


@pytest.mark.parametrize(
    ("printed", "expected", "exact", "equal"),
    [
        ("a\n", "a", True, True),
        ("a\nb\n", "a", True, False),
        ("a\nb\nc\n", "a\n...", True, True),
        ("a\nb\nc\n", "...\nc", True, True),
        ("a\nc\n", "a\n...\nc", True, True),
        ("a\nb\nb\nc\n", "a\n...\nc", True, True),
        ("a\nb\n", "a\n...\nc", True, False),
        ("took 12 ms\n", "took ...", True, True),
        ("took 12 ms\n", "took 13 ms", True, False),
        ("took 12 ms\n", "took 13 ms", False, True),
        ("took 12 ms\n", "took 1.5 s", False, True),
        ("took 12 ms\n", "took 13 bytes", False, False),
        ("9zm3k1q7w2ab000001   x\n", "0000000000ab00000f x", False, True),
        ("", "", True, True),
        ("a", "", True, False),
    ],
)
def test_what_is_printed_is_compared(printed: str, expected: str, exact: bool, equal: bool) -> None:  # noqa: FBT001 columns of the table above
    assert (difference(printed, expected, exact=exact) is None) is equal


def test_a_wrong_example_is_found(tmp_path: Path) -> None:
    page = "```python\n# app.py\nprint('a')\n```\n```console\n$ python app.py\nb\n$ python gone.py\n```\n"

    found = list(Reader(tmp_path, "").follow(page))

    assert [text.splitlines()[0] for text in found] == ["$ python app.py", "$ python gone.py"]


def test_a_block_that_is_a_file_of_the_repository_is_compared_with_it(tmp_path: Path) -> None:
    text = (ROOT / ".gitignore").read_text()
    blocks = {".gitignore": text, "Makefile": "all:\n", ".venv/pyvenv.cfg": "home = x\n"}
    page = "\n".join(f"<!-- file: {name} -->\n```text\n{body}```\n" for name, body in blocks.items())

    found = list(Reader(tmp_path, "").follow(f"{page}\n```console\n$ cat .gitignore\n{text}```\n"))

    assert found == [
        "<!-- file: Makefile -->: the block and the file are not the same",
        "<!-- file: .venv/pyvenv.cfg -->: the repository has no such file",
    ]


def test_a_command_in_the_background_is_stopped_and_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    command = "sh -c 'echo ready 1; echo at /tmp; exec sleep 60'"
    page = f"<!-- background -->\n```console\n$ {command}\nready 2\nat ...\nsteady\n```\n"

    (found,) = Reader(folder, "").follow(page)

    assert "exit code -2; not printed: ['steady']" in found


def test_an_id_that_the_page_shows_stands_for_the_one_that_was_printed(tmp_path: Path) -> None:
    shown, real = "abcdefghjkmn00000f", "9zm3k1q7w2ab000001"
    page = f"```console\n$ echo job {real}\njob {shown}\n$ echo {shown}\n{shown}\n```\n"
    reader = Reader(tmp_path, "")

    found = list(reader.follow(page))

    assert (found, reader.ids) == ([], {shown: real})
