"""The lock pins every package that pyproject.toml asks for, with hashes, and names no place to get packages from."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tidy.tree import ROOT

PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?P<marker> ;[^\\]+)? \\\n(?P<hashes>(?: +--hash=sha256:\w{64}.*\n)+)",
    re.MULTILINE,
)


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    lines += [line for extra in project["project"]["optional-dependencies"].values() for line in extra]
    return [Requirement(line) for line in lines]


def problems(lock: str, requirements: list[Requirement]) -> list[str]:
    pins = {canonicalize_name(match["name"]): match["version"] for match in PIN.finditer(lock)}
    found = [
        f"{requirement}: the lock has {pins.get(canonicalize_name(requirement.name))}. Run `make lock`."
        for requirement in requirements
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0.dev0"), prereleases=True)
    ]
    rest = [line for line in PIN.sub("", lock).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return found + [f"neither a pinned package with its hashes nor a comment: {line}" for line in rest]


def test_the_lock_fits_the_project() -> None:
    found = problems((ROOT / "requirements-dev.lock").read_text(), wanted())

    assert not found, "\n".join(found)


PINNED = f"one==1.5 \\\n    --hash=sha256:{'0' * 64}\n    # via two\n"


@pytest.mark.parametrize(
    ("lock", "complaint"),
    [
        (PINNED.replace("one", "other"), "one>=1.2: the lock has None"),
        (PINNED.replace("1.5", "1.1"), "one>=1.2: the lock has 1.1"),
        ("one==1.5\n", "neither a pinned package"),
        ("--index-url somewhere\n" + PINNED, "--index-url somewhere"),
        (PINNED + "two>=1\n", "two>=1"),
    ],
)
def test_a_wrong_lock_is_found(lock: str, complaint: str) -> None:
    assert complaint in "\n".join(problems(lock, [Requirement("one>=1.2")]))


def test_a_right_lock_passes() -> None:
    assert problems(PINNED, [Requirement("one>=1.2")]) == []
