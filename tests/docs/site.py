"""Build the documentation site from docs/ and mkdocs.yml into site/: python -m tests.docs.site (`make site`).

Documents link to files of the repository: a script, a test, the changelog. On a page of the repository such a link
works as it stands. In the site each of these files gets a page of its own under `repository/`, and the link leads
there; so the site is complete, and nothing of it is on another host.

The builder works on a copy, which `stage` writes. An error: a link or an anchor that leads nowhere, a document that the
navigation leaves out, a page that loads anything from another host.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.docs.built import complaints
from tests.tidy.test_links import CODE, ELSEWHERE, LINK
from tests.tidy.tree import ROOT, name_of, tracked_files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

CONFIG: Final = ROOT / "mkdocs.yml"
SITE: Final = ROOT / "site"
STAGE: Final = ROOT / "build" / "site"
#: What is copied as it is.
PICTURES: Final = {".svg", ".png"}
#: A file of the repository is shown in its own words: no table of contents, and the search leaves it out.
HEAD: Final = "---\nhide: [toc]\nsearch: {exclude: true}\n---\n\n"
KINDS: Final = {".py": "python", ".lua": "lua", ".toml": "toml", ".yml": "yaml", ".conf": "ini", ".json": "json"}


class SiteError(Exception):
    """The site cannot be built from what there is."""


# Links


def rewritten(text: str, move: Callable[[str], str]) -> str:
    """Put what `move` makes of each link of a document in its place; code is left alone."""
    parts: list[str] = []
    end = 0
    for code in CODE.finditer(text):
        parts += [_moved(text[end : code.start()], move), code[0]]
        end = code.end()
    return "".join([*parts, _moved(text[end:], move)])


def _moved(text: str, move: Callable[[str], str]) -> str:
    def put(found: re.Match[str]) -> str:
        group = next(number for number in range(1, 4) if found[number])
        before, after = found.start(group) - found.start(), found.end(group) - found.start()
        return found[0][:before] + move(found[group]) + found[0][after:]

    return LINK.sub(put, text)


def place(name: str) -> PurePosixPath:
    """Tell where a file or folder of the repository stands in the site's sources.

    Example:
        >>> print(place("docs/pool.md"), place("CHANGELOG.md"), place("src/headrace/keys.py"))
        pool.md repository/CHANGELOG.md repository/src/headrace/keys.py.md
    """
    path = PurePosixPath(name)
    if path.is_relative_to("docs") and (ROOT / name).is_file():
        return path.relative_to("docs")
    # The builder passes over what starts with a dot.
    inside = PurePosixPath("repository", *(f"dot{part}" if part.startswith(".") else part for part in path.parts))
    if (ROOT / name).is_dir():
        return inside / "index.md"
    if path.suffix == ".md":
        # The builder takes a README for the index of its folder, which is the list of the folder's files.
        return inside.with_name(path.name.replace("README", "readme"))
    return inside if path.suffix in PICTURES else inside.with_name(f"{inside.name}.md")


class Stage:
    """The sources of the site, as they are written: documents, and the files that are linked from them.

    Args:
        folder: Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = {name_of(path) for path in tracked_files()}
        self._waiting: list[str] = []
        self._done: set[str] = set()
        self._problems: list[str] = []

    def write(self, names: Iterable[str]) -> None:
        """Write these files, and what they link to, and what that links to.

        Raises:
            SiteError: A link leads to nothing that is under version control.
        """
        self._waiting += names
        while self._waiting:
            name = self._waiting.pop()
            if name not in self._done:
                self._done.add(name)
                self._put(name)
        if self._problems:
            raise SiteError("\n".join(self._problems))

    def _put(self, name: str) -> None:
        source, target = ROOT / name, self._folder / place(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            target.write_text(rewritten(self._listing(name), partial(self._move, f"{name}/index.md")))
        elif name.endswith(".md"):
            head = "" if name.startswith("docs/") else HEAD
            target.write_text(head + rewritten(source.read_text(), partial(self._move, name)))
        elif name.startswith("docs/") or source.suffix in PICTURES:
            shutil.copyfile(source, target)
        else:
            target.write_text(_shown(name, source.read_text()))

    def _listing(self, name: str) -> str:
        inside = sorted(other.removeprefix(f"{name}/") for other in self._names if other.startswith(f"{name}/"))
        return f"{HEAD}# {name}\n\n" + "\n".join(f"- [{other}]({other})" for other in inside) + "\n"

    def _move(self, page: str, link: str) -> str:
        path, sharp, anchor = link.partition("#")
        if not path or ELSEWHERE.match(link):
            return link
        name = os.path.normpath(PurePosixPath(page).parent / path)
        if name not in self._names and not any(other.startswith(f"{name}/") for other in self._names):
            self._problems.append(f"{page}: ({link}) leads to nothing under version control; is `git add` missing?")
            return link
        self._waiting.append(name)
        return os.path.relpath(place(name), place(page).parent) + sharp + anchor


def _shown(name: str, text: str) -> str:
    fence = "`" * max(4, *(len(run) + 1 for run in re.findall(r"`+", text)), 0)
    return f"{HEAD}# {name}\n\n{fence} {KINDS.get(Path(name).suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


# Navigation


def navigation(entries: Sequence[Any], names: Collection[str]) -> list[Any]:
    """Fill in the navigation of mkdocs.yml: a folder, `operating/`, stands for its pages, if it has any.

    Args:
        entries: The part `nav`.
        names: The files that are under version control.
    """
    return [filled for entry in entries for filled in _filled(entry, names)]


def _filled(entry: Any, names: Collection[str]) -> list[Any]:
    if isinstance(entry, str):
        return _named(entry, names)
    ((title, value),) = entry.items()
    found = navigation(value, names) if isinstance(value, list) else _named(value, names)
    if isinstance(value, str) and not value.endswith("/"):
        return [{title: found[0]}]
    return [{title: found}] if found else []


def _named(value: str, names: Collection[str]) -> list[str]:
    name = os.path.normpath(PurePosixPath("docs") / value)
    if value.endswith("/"):
        inside = [other for other in names if other.startswith(f"{name}/") and other.endswith(".md")]
        return sorted(inside, key=lambda other: (not other.endswith("/index.md"), other))
    if name not in names:
        raise SiteError(f"mkdocs.yml: nav: {value}: there is no such file under version control")
    return [name]


def leaves(entry: Any) -> list[str]:
    """List the files of a filled navigation."""
    if isinstance(entry, str):
        return [entry]
    return [leaf for below in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(below)]


def misplaced(entries: list[Any], names: Collection[str]) -> list[str]:
    """Name the documents that a filled navigation does not hold exactly once."""
    listed = leaves(entries)
    documents = [name for name in sorted(names) if name.startswith("docs/") and name.endswith(".md")]
    return [
        f"mkdocs.yml: nav: {name} stands in it {count} times"
        for name in documents
        if (count := listed.count(name)) != 1
    ]


def placed(entry: Any) -> Any:
    """Turn the files of a navigation into places in the site's sources."""
    if isinstance(entry, str):
        return str(place(entry))
    return (
        {title: placed(below) for title, below in entry.items()}
        if isinstance(entry, dict)
        else [placed(below) for below in entry]
    )


# All of it


def stage(folder: Path) -> Path:
    """Write what the builder reads; return its settings.

    Raises:
        SiteError: A document is missing from the navigation, or a link leads nowhere.
    """
    settings, _, nav = CONFIG.read_text().partition("\nnav:\n")
    names = {name_of(path) for path in tracked_files()}
    entries = navigation(yaml.safe_load(nav), names)
    if found := misplaced(entries, names):
        raise SiteError("\n".join(found))
    Stage(folder / "docs").write([*leaves(entries), *sorted(name for name in names if name.startswith("docs/"))])
    config = folder / "mkdocs.yml"
    config.write_text(f"{settings}\n{yaml.safe_dump({'nav': placed(entries)}, sort_keys=False)}")
    return config


def build(folder: Path) -> Path:
    """Build the site in a folder of its own; return where it is.

    Raises:
        SiteError: Something is wrong with the documents; the message holds all of it.
    """
    config = stage(folder)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(config)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode:
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
        raise SiteError(said.partition("Traceback (most recent call last)")[0].strip())
    if found := complaints(folder / "site"):
        raise SiteError("\n".join(found))
    return folder / "site"


def serve(folder: Path, port: int) -> None:
    """Serve the site to this machine until Ctrl+C."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        sys.stdout.write(f"headrace: http://127.0.0.1:{server.server_port}/ until Ctrl+C\n")
        sys.stdout.flush()
        server.serve_forever()


def main() -> None:
    """Build the site, and serve it if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs.site", description="Build the documentation site.")
    parser.add_argument("--serve", type=int, metavar="PORT", help="then serve it on this port of 127.0.0.1; 0: any")
    arguments = parser.parse_args()
    for folder in (STAGE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.move(build(STAGE), SITE)
    except SiteError as error:
        sys.exit(f"headrace: the site was not built.\n{error}")
    sys.stdout.write(f"headrace: {SITE.relative_to(ROOT)}/index.html, {len(list(SITE.rglob('*.html')))} pages\n")
    if arguments.serve is not None:
        try:
            serve(SITE, arguments.serve)
        except KeyboardInterrupt:
            sys.stdout.write("\n")


if __name__ == "__main__":
    main()
