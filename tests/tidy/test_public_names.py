"""The public names of the package."""

from __future__ import annotations

import importlib


def test_the_package_imports() -> None:
    package = importlib.import_module("headrace")

    assert package.__doc__
