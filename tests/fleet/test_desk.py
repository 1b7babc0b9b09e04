"""The desk of the fleet: asking again and again leaves nothing behind on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.live import opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace
    from tests.support.raw import Raw


async def test_whoever_asks_again_and_again_listens_on_one_channel_of_each_kind(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str
) -> None:
    app = make_app()
    async with opened(app):
        for _ in range(5):
            await app.fleet.ask(wait=0.02)
            await app.fleet.look(wait=0.02)
        channels = raw("PUBSUB", "CHANNELS", f"{prefix}*figures-*")

    assert len(channels) == 2

    # Red when: each use of `app.fleet` makes a channel of its own.
