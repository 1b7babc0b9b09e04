"""The public names are those that the design promises, and each is there on first use."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import headrace

#: As written down for users; a name may be added, none may go.
PROMISED = {
    *("Headrace", "Job", "JobStatus", "Priority", "current_job"),
    *("Fixed", "Linear", "Exponential", "Retry"),
    "resource",
}
#: Methods of each, with those parameters that are promised by name.
METHODS: dict[str, dict[str, set[str]]] = {
    "Headrace": {
        "task": set(),
        "queue": {"name"},
        "queues": set(),
        "worker": {"queues", "concurrency"},
        "subscribe": {"event", "callback"},
        "census": set(),
        "health": set(),
        "metrics": set(),
        "middleware": set(),
        "lifespan": set(),
    },
    "Job": {"result": {"timeout"}, "refresh": set(), "cancel": set(), "retry": set(), "why": set()},
}
STATUSES = {"waiting", "delayed", "active", "completed", "failed", "cancelled"}
PRIORITIES = {"LOW": 1, "NORMAL": 5, "HIGH": 10, "CRITICAL": 20}


def test_the_list_of_public_names_is_the_promised_one() -> None:
    assert set(headrace.__all__) == PROMISED
    assert headrace.__all__ == sorted(headrace.__all__)


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_a_public_name_is_described_and_knows_its_home(name: str) -> None:
    value: Any = getattr(headrace, name)

    assert value.__doc__
    assert value.__module__.startswith("headrace.")
    assert value.__name__ == name


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_a_public_name_is_there_on_first_use(name: str) -> None:
    code = f"import headrace; assert {name!r} in dir(headrace); headrace.{name}; print(vars(headrace)[{name!r}])"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=False, capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr


def test_a_star_import_gives_the_public_names_and_no_other() -> None:
    space: dict[str, object] = {}

    exec("from headrace import *", space)

    assert space.keys() - {"__builtins__"} == PROMISED


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'headrace' has no attribute 'Headace'"):
        _ = headrace.Headace  # type: ignore[attr-defined]  # the mistake under test
    with pytest.raises(ImportError, match="cannot import name 'Headace'"):
        exec("from headrace import Headace")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_methods_of_users_are_there_and_described(name: str) -> None:
    kind = getattr(headrace, name)

    for method, parameters in METHODS[name].items():
        function = getattr(kind, method)
        assert inspect.getdoc(function), method
        assert parameters <= set(inspect.signature(function).parameters), method


def test_statuses_and_priorities_have_their_words_and_numbers() -> None:
    assert {str(status) for status in headrace.JobStatus} == STATUSES
    assert {priority.name: int(priority) for priority in headrace.Priority} == PRIORITIES
