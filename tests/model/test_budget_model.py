"""The budget of the fleet and a plain model of it take the same steps on a real server, and agree after each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.keys import budget_key
from headrace.store.script import PreparedScript, load_scripts
from tests.support.raw import Raw

if TYPE_CHECKING:
    from headrace.server import PrivateServer

PROCESSES = ("a", "b", "c", "d")
LEASE_MS = 600_000

asks = st.tuples(
    st.just("ask"),
    st.sampled_from(PROCESSES),
    st.integers(1, 6),
    st.integers(0, 60),
    st.integers(0, 120),
    st.booleans(),
)
deaths = st.tuples(st.just("dies"), st.sampled_from(PROCESSES))
steps = st.lists(st.one_of(asks, asks, asks, deaths), max_size=40)


class Model:
    """What each process has, and its least when it was given more than was left."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def ask(self, process: str, least: int, wanted: int, limit: int, *, first: bool) -> tuple[int, int, int]:
        """Do what the script does: places granted, places and number of the others."""
        self.places.pop(process, None)
        others = sum(self.places.values())
        left = limit - others
        granted = max(least, min(wanted, left))
        if wanted == 0:
            granted = 0
        elif first and left < least:
            granted = -1
        number = len(self.places)
        if granted > 0:
            self.places[process] = granted
        return granted, others, number


def stored(raw: Raw, key: str) -> tuple[dict[str, int], int]:
    """What the server holds: places of each process, and the sum that it keeps."""
    fields = {name.decode(): value.decode() for name, value in dict(raw("HGETALL", key)).items()}
    total = int(fields.pop("*", "0 0").split()[0])
    return {name: int(value.split()[1]) for name, value in fields.items()}, total


def run_out(raw: Raw, key: str, process: str) -> None:
    """Let the lease of a process be over: its deadline, and the earliest of all, lie in the past."""
    value = raw("HGET", key, process)
    total = re.match(rb"\d+", raw("HGET", key, "*"))
    assert total is not None
    raw.many(
        [
            ("HSET", key, process, re.sub(rb"^\d+", b"1", value)),
            ("HSET", key, "*", total.group() + b" 1"),
        ]
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_script_and_model_agree(steps: list[tuple[str, str, int, int, int, bool]], server: PrivateServer) -> None:
    key = budget_key("t-budget-model")
    script = PreparedScript(load_scripts()["budget"], [key])
    model = Model()
    with Raw(server.url) as raw:
        raw("DEL", key)
        raw.load(script.script.source)
        for what, process, *rest in steps:
            if what == "dies":
                if process in model.places:
                    run_out(raw, key, process)
                    del model.places[process]
                continue
            least, wanted, limit, first = rest
            (reply,) = raw.link.roundtrip(
                script.pack((process, min(least, wanted), wanted, limit, LEASE_MS, int(first), "note")), 1
            )

            expected = model.ask(process, min(least, wanted), wanted, limit, first=bool(first))
            places, total = stored(raw, key)
            assert tuple(reply[:3]) == expected
            assert places == model.places
            assert total == sum(places.values())
            # Whoever got places got no more than were left, but for its least.
            assert expected[0] <= max(limit - expected[1], min(least, wanted))
        raw("DEL", key)
