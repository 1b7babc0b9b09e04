"""The control group of this process, version 1 or 2, as far as it limits memory and kills for the lack of it.

Files are read when asked for, and a system without control groups has no group; nothing here is written.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Version 1 writes the largest multiple of a page for "no limit"; no machine has as much.
_UNLIMITED: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Group:
    """The memory side of one control group.

    Attributes:
        version: 1 or 2.
        path: Its folder.
        top: Folder of the outermost group that can be seen.
    """

    version: int
    path: Path
    top: Path

    def limit(self) -> int | None:
        """Return the tightest limit of this group and those around it in bytes, None for none."""
        if self.version == 1:
            stat = _read_table(self.path / "memory.stat")
            value = stat.get("hierarchical_memory_limit") or _read_number(self.path / "memory.limit_in_bytes")
            return value if value is not None and value < _UNLIMITED else None
        found = [_read_number(folder / "memory.max") for folder in self._folders()]
        return min((value for value in found if value is not None), default=None)

    def used(self) -> int | None:
        """Return the bytes that all processes of the group use, without files that the kernel may drop at any time."""
        stat = _read_table(self.path / "memory.stat")
        if self.version == 1:
            total = _read_number(self.path / "memory.usage_in_bytes")
            droppable = stat.get("total_inactive_file", 0)
        else:
            total = _read_number(self.path / "memory.current")
            droppable = stat.get("inactive_file", 0)
        return None if total is None else max(0, total - droppable)

    def room(self) -> float:
        """Return the bytes that are left below the tightest limit that can be seen, infinite without one."""
        limit, used = self.limit(), self.used()
        return math.inf if limit is None or used is None else max(0, limit - used)

    def oom_kills(self) -> int | None:
        """Return how many processes the kernel has killed here because memory ran out, None when it does not count."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return _read_table(self.path / name).get("oom_kill")

    def events(self) -> dict[str, int]:
        """Return what the kernel counts of this group: limits that were hit, and kills."""
        if self.version == 1:
            found = {"max": _read_number(self.path / "memory.failcnt"), "oom_kill": self.oom_kills()}
            return {name: value for name, value in found.items() if value is not None}
        return _read_table(self.path / "memory.events")

    def _folders(self) -> list[Path]:
        folders = [self.path]
        while folders[-1] != self.top and folders[-1] != folders[-1].parent:
            folders.append(folders[-1].parent)
        return folders


def find_group(root: Path = Path("/")) -> Group | None:
    """Return the control group that limits the memory of this process.

    Args:
        root: Where `proc` and the mounts are; another folder only in tests.

    Returns:
        The group of version 1 when memory is controlled there, else that of version 2; None when none is mounted.
    """
    membership = _read_text(root / "proc/self/cgroup").splitlines()
    mounts = _read_text(root / "proc/self/mountinfo").splitlines()
    for version in (1, 2):
        inside = _membership(membership, version)
        for line in mounts:
            place = _mount(line, version)
            if inside is None or place is None:
                continue
            mount_root, mount_point = place
            top = root / mount_point.lstrip("/")
            # Why: in a container the mount shows only a part of the tree, and the path may be told from its top.
            relative = inside.removeprefix(mount_root) if mount_root != "/" else inside
            for path in (top / relative.lstrip("/"), top):
                if (path / "memory.stat").is_file():
                    return Group(version, path, top)
    return None


def count_oom_kills() -> int:
    """Return how many processes the kernel has killed in the control group of this one, 0 when it does not count."""
    group = find_group()
    return 0 if group is None else group.oom_kills() or 0


def _membership(lines: list[str], version: int) -> str | None:
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if (version == 2 and line.startswith("0::")) or (version == 1 and "memory" in controllers.split(",")):  # noqa: PLR2004 - a version
            return path
    return None


def _mount(line: str, version: int) -> tuple[str, str] | None:
    """Return root and place of a mount of this version, from one line of mountinfo; see proc(5)."""
    before, _, after = line.partition(" - ")
    fields, tail = before.split(), after.split()
    if len(fields) < 5 or not tail:  # noqa: PLR2004 - id, parent, device, root, place
        return None
    controls = tail[0] == "cgroup2" if version == 2 else tail[0] == "cgroup" and "memory" in tail[-1].split(",")  # noqa: PLR2004 - a version
    return (fields[3], fields[4]) if controls else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _read_number(path: Path) -> int | None:
    text = _read_text(path).strip()
    return int(text) if text.isdecimal() else None


def _read_table(path: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    for line in _read_text(path).splitlines():
        with contextlib.suppress(ValueError):
            name, value = line.split()
            table[name] = int(value)
    return table
