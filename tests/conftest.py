"""Set up what every test shares: one private server a run with a clean key space a test, and what must be left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from headrace.server import start_private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.server import PrivateServer

pytest.register_assert_rewrite("tests.model.store_machine", "tests.support")

# A failing example is printed so that it can be replayed. No deadline per example: a loaded machine is no fault of the
# code, and pytest's timeout ends a test that hangs.
settings.register_profile("headrace", deadline=None, print_blob=True)
settings.load_profile("headrace")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """One server for all tests that do not harm it; nothing of it is written to the disk."""
    extra = ("--appendonly", "no", "--save", "")
    with start_private_server(tmp_path_factory.mktemp("server"), extra=extra) as running:
        yield running
