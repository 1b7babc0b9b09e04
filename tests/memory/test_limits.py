"""Where the limit of memory comes from, and which of several counts."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import pytest

from headrace.memory.cgroup import Group, find_group
from headrace.memory.limits import GIB, MIB, find_limit, plan_limit

if TYPE_CHECKING:
    from pathlib import Path

V2_MOUNT = "30 24 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"


def plan(**facts: Any) -> tuple[int, str, int]:
    given = {"setting_bytes": 0, "group": None, "address_space": None, "physical": 8 * GIB, "processes": 1, **facts}
    limit = plan_limit(**given)
    return limit.limit_bytes // MIB, limit.source, limit.budget_bytes // MIB


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, (4_096, "default", 4_096)),
        ({"physical": 4 * GIB}, (2_048, "default", 2_048)),
        ({"physical": 2 * GIB}, (1_024, "default", 1_024)),
        ({"physical": 1 * GIB}, (512, "default", 512)),
        ({"processes": 4}, (4_096, "default", 1_024)),
        ({"setting_bytes": 300 * MIB, "processes": 2}, (300, "setting", 150)),
        ({"setting_bytes": 6 * GIB}, (6_144, "setting", 6_144)),
        ({"setting_bytes": 64 * GIB}, (4_096, "default", 4_096)),
        ({"group": (2, 512 * MIB), "setting_bytes": 6 * GIB}, (512, "cgroup v2", 512)),
        ({"group": (1, 7 * GIB)}, (7_168, "cgroup v1", 7_168)),
        ({"group": (2, None)}, (4_096, "default", 4_096)),
        ({"group": (2, 512 * MIB), "setting_bytes": 256 * MIB}, (256, "setting", 256)),
        ({"address_space": 1 * GIB, "processes": 4}, (992, "RLIMIT_AS", 992)),
        ({"address_space": 40 * MIB}, (30, "RLIMIT_AS", 30)),
        ({"address_space": 3 * GIB, "setting_bytes": 1 * GIB, "processes": 2}, (1_024, "setting", 512)),
    ],
)
def test_the_tightest_limit_counts_and_says_where_it_comes_from(
    facts: dict[str, Any], expected: tuple[int, str, int]
) -> None:
    assert plan(**facts) == expected


def test_all_limits_that_were_found_are_shown() -> None:
    limit = plan_limit(
        setting_bytes=300 * MIB, group=(2, 512 * MIB), address_space=2 * GIB, physical=8 * GIB, processes=2
    )

    assert [candidate.source for candidate in limit.considered] == ["setting", "cgroup v2", "RLIMIT_AS", "physical"]
    assert str(limit) == "300 MB (setting), 150 MB for each of 2"


def tree(root: Path, cgroup: str, mount: str, files: dict[str, str]) -> Path:
    """Write a small /proc and some files of control groups."""
    for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mount, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def found(root: Path) -> Group:
    group = find_group(root)
    assert group is not None
    return group


def test_version_2_takes_the_tightest_of_all_groups_around(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/app.slice"
    files = {
        f"{base}/memory.max": "536870912",
        f"{base}/worker/memory.max": "max",
        f"{base}/worker/memory.stat": "anon 1000\ninactive_file 4096",
        f"{base}/worker/memory.current": "10000",
        f"{base}/worker/memory.events": "low 0\nmax 7\noom 3\noom_kill 2",
    }

    group = found(tree(tmp_path, "0::/app.slice/worker", V2_MOUNT.format(root="/"), files))

    assert (group.version, group.limit(), group.used()) == (2, 512 * MIB, 10_000 - 4_096)
    assert (group.oom_kills(), group.events()["max"]) == (2, 7)


def test_version_1_takes_the_limit_of_the_hierarchy(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/memory/box"
    files = {
        f"{base}/memory.stat": "hierarchical_memory_limit 268435456\ntotal_inactive_file 100",
        f"{base}/memory.limit_in_bytes": "9223372036854771712",
        f"{base}/memory.usage_in_bytes": "1100",
        f"{base}/memory.failcnt": "5",
        f"{base}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1",
    }

    group = found(tree(tmp_path, "5:cpu:/\n4:memory:/box\n0::/", V1_MOUNT.format(root="/"), files))

    assert (group.version, group.limit(), group.used()) == (1, 256 * MIB, 1_000)
    assert group.events() == {"max": 5, "oom_kill": 1}


def test_in_a_container_the_mount_is_the_group(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory/memory.stat": "hierarchical_memory_limit 268435456"}

    group = found(tree(tmp_path, "4:memory:/docker/abc", V1_MOUNT.format(root="/docker/abc"), files))

    assert group.limit() == 256 * MIB


@pytest.mark.parametrize("limit", ["9223372036854771712", "nonsense"])
def test_no_limit_is_none(tmp_path: Path, limit: str) -> None:
    files = {"sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {limit}"}

    group = found(tree(tmp_path, "4:memory:/", V1_MOUNT.format(root="/"), files))

    assert group.limit() is None
    assert group.oom_kills() is None


def test_a_system_without_groups_has_none(tmp_path: Path) -> None:
    assert find_group(tmp_path) is None


def test_the_limit_of_this_process_is_found() -> None:
    limit = find_limit(128, 2, find_group())

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    assert limit.budget_bytes <= 64 * MIB
    assert (limit.address_space_bytes is None) == (soft == resource.RLIM_INFINITY)
