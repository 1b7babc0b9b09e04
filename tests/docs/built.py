"""Look at a built site as it is: what each page links to, and what it loads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Elements that load something as soon as the page is opened, with the attribute that says what.
LOADS: Final = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "link": "href",
}  # fmt: skip
#: Links in the head that load nothing.
IDLE: Final = {"canonical", "next", "prev", "alternate", "describedby"}
#: Classes of blocks for which the script of the theme would fetch a program from another host.
FETCHING: Final = {"mermaid", "glightbox", "pyodide"}

_LOADED_BY_STYLE = re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)")


@dataclass
class Page(HTMLParser):
    """What a page of HTML says of other files.

    Attributes:
        links: What the reader may follow.
        loads: What the browser fetches.
        ids: What an anchor may lead to.
        fetching: Classes that make the theme's script fetch something.
    """

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    fetching: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        self.fetching |= FETCHING & set(found.get("class", "").split())
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif (name := LOADS.get(tag)) in found and not IDLE & set(found.get("rel", "").split()):
            self.loads.append(found[str(name)])


def read(path: Path) -> Page:
    """Read a page."""
    page = Page()
    page.feed(path.read_text())
    return page


def complaints(site: Path) -> list[str]:
    """Name each link and anchor that leads nowhere, and all that a page loads from another host."""
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    found = [line for path in pages for line in _page(site, path, pages)]
    for style in sorted(site.rglob("*.css")):
        found += [f"{style.relative_to(site)} loads {url}" for url in _LOADED_BY_STYLE.findall(style.read_text())]
    return found


def _page(site: Path, path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    page, name = pages[path], path.relative_to(site)
    yield from (f"{name} has a block of class {each}, whose program is on another host" for each in page.fetching)
    for link in page.loads:
        parts = urlsplit(link)
        if parts.scheme == "data":
            continue
        if parts.scheme or parts.netloc:
            yield f"{name} loads {link}"
        elif not _target(site, path, parts.path).is_file():
            yield f"{name} loads {link}, which is not there"
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = _target(site, path, parts.path)
        if not target.is_file():
            yield f"{name} links to {link}, which is not there"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            yield f"{name} links to {link}; that page has no such heading"


def _target(site: Path, page: Path, path: str) -> Path:
    if not path:
        return page
    target = (site / path[1:] if path.startswith("/") else page.parent / unquote(path)).resolve()
    return target / "index.html" if target.is_dir() else target
