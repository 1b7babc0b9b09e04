"""The input is every source file of the running Python, each once."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from headrace.demo.input import ENOUGH, MODULES, find_input


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_every_source_file_of_this_python_is_found_once() -> None:
    library = Path(sysconfig.get_path("stdlib"))

    found = find_input()

    names = [file.name for file in found.files]
    expected = {
        path.relative_to(library).as_posix()
        for path in library.rglob("*.py")
        if not {"site-packages", "dist-packages"} & set(path.parts[len(library.parts) :])
    }
    assert expected <= set(names)
    assert len(names) == len(set(names))
    assert set(names) == expected or len(expected) < ENOUGH
    assert f"the {len(names):,} source files of Python 3." in found.what
    assert all(Path(file.root, file.name).is_file() for file in found.files)


def test_installed_packages_are_left_out_where_the_library_is_enough(tmp_path: Path) -> None:
    library = make(tmp_path / "lib", "b.py", "a/__init__.py", "a/deep/c.py", "a/data.txt", "site-packages/x/y.py")

    found = find_input(library, library / "site-packages", enough=3)

    assert [(file.package, file.name) for file in found.files] == [
        (MODULES, "b.py"),
        ("a", "a/__init__.py"),
        ("a", "a/deep/c.py"),
    ]
    assert "packages" not in found.what


def test_a_small_library_is_joined_by_the_installed_packages_and_says_so(tmp_path: Path) -> None:
    library = make(tmp_path / "lib", "b.py", "site-packages/x/y.py")

    found = find_input(library, library / "site-packages", enough=3)

    assert [(file.package, file.name) for file in found.files] == [
        (MODULES, "b.py"),
        ("site-packages", "site-packages/x/y.py"),
    ]
    assert all(Path(file.root, file.name).is_file() for file in found.files)
    assert found.what.endswith("and its packages (1)")
