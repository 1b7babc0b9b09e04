"""The wheel holds every file of the package: an installed Headrace needs its scripts and pages as much as modules."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.tidy.tree import ROOT, SOURCE, tracked_files

if TYPE_CHECKING:
    from pathlib import Path


def problems(source: set[str], wheel: set[str]) -> list[str]:
    packed = {name for name in wheel if ".dist-info/" not in name}
    return [
        *(f"{name}: in the source, but not in the wheel" for name in sorted(source - packed)),
        *(f"{name}: in the wheel, outside the package" for name in sorted(packed) if not name.startswith("headrace/")),
    ]


def test_the_wheel_holds_the_package_and_nothing_beside_it(tmp_path: Path) -> None:
    source = {path.relative_to(SOURCE.parent).as_posix() for path in tracked_files() if path.is_relative_to(SOURCE)}

    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)

    (wheel,) = tmp_path.glob("*.whl")
    found = problems(source, set(zipfile.ZipFile(wheel).namelist()))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("wheel", "complaint"),
    [
        ({"headrace/app.py"}, "headrace/a.lua: in the source, but not in the wheel"),
        ({"headrace/app.py", "headrace/a.lua", "tests/b.py"}, "tests/b.py: in the wheel, outside the package"),
    ],
)
def test_a_wrong_wheel_is_found(wheel: set[str], complaint: str) -> None:
    assert problems({"headrace/app.py", "headrace/a.lua"}, wheel | {"headrace-1.dist-info/METADATA"}) == [complaint]
