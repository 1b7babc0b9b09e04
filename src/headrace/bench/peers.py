"""Compare with other job queues: benchmarks/peers.py of a checkout measures, in environments of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tomllib
from typing import TYPE_CHECKING

from headrace.bench.checkout import find_checkout
from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def peer_names() -> list[str]:
    """Name the subjects that a checkout can measure, Headrace and the floors left out.

    Raises:
        OptionError: There is no checkout around.
    """
    path = find_checkout("benchmarks/peers/subjects.toml")
    subjects = tomllib.loads(path.read_text(encoding="utf-8"))
    return sorted(name for name in subjects if not name.startswith(("headrace", "floor")))


def check_peers(text: str) -> list[str]:
    """Return the subjects that a text names, parted by commas; `peers` names all that are not on request only.

    Raises:
        OptionError: One of them is unknown, or there is no checkout around.
    """
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    known = peer_names()
    if wanted == ["peers"]:
        return []
    # Why: `taskiq` is measured on one of its brokers, and is named so there.
    wanted = [next((one for one in known if one.startswith(f"{name}-redis")), name) for name in wanted]
    if not wanted or set(wanted) - set(known):
        raise OptionError(
            f"--compare {text}: expected incident, the file of an earlier --json, peers, or some of {', '.join(known)}."
        )
    return wanted


async def compare_peers(names: Sequence[str], *, count: int, repeats: int, json_file: Path | None) -> int:
    """Measure Headrace and some peers on one server; the tables are printed as benchmarks/peers.py prints them.

    Args:
        names: Subjects; none for all that are not on request only.
        count: Jobs of a measure, at least 100.
        repeats: How often each measure is taken.
        json_file: Where every single figure is written.

    Returns:
        The exit code of the script.

    Cancelling ends it; what it had started ends with it.
    """
    script = find_checkout("benchmarks/peers.py")
    command = [sys.executable, str(script), "--count", str(count), "--repeats", str(repeats)]
    if names:
        command += ["--only", ",".join(["headrace", *names])]
    if json_file is not None:
        command += ["--json", str(json_file)]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
