"""A real pool on a real server keeps its bound and leaves nothing, however it is used, cancelled and cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.pool_machine import PoolMachine
from tests.support.proxy import FaultProxy

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.raw import Raw


@pytest.mark.timeout(180)
def test_a_pool_keeps_its_bound_and_leaves_nothing_whatever_happens_in_any_order(
    server: PrivateServer, raw: Raw, tmp_path: Path
) -> None:
    with FaultProxy(tmp_path, server.url) as way:
        machine = type("Machine", (PoolMachine,), {"way": way, "raw": raw})

        run_state_machine_as_test(
            machine, settings=settings(max_examples=30, stateful_step_count=30, report_multiple_bugs=False)
        )
