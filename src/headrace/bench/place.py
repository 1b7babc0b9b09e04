"""Where jobs are measured: a private server, or the user's own, below a key prefix of its own that is left empty."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.bench.facts import describe_private
from headrace.bench.work import make_app
from headrace.errors import HeadraceError, OptionError
from headrace.health.facts import Facts, used_memory
from headrace.ids import random_name
from headrace.logs import clean_text
from headrace.resp import pack_command
from headrace.server import start_private_server
from headrace.settings import load_settings
from headrace.verify.nodes import delete_keys, visit_nodes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from headrace import Headrace
    from headrace.pool.confirm import Trip

#: What `--url` says for the server of the settings.
FROM_SETTINGS: Final = "REDIS_URL"
#: What the jobs of one measure take of the server's memory at most, at full scale.
ROOM_MB: Final = 64
#: Longest time that the keys of a run may take to be deleted, seconds.
CLEAR_TIMEOUT: Final = 15.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where to measure.

    Attributes:
        url: The server.
        prefix: Start of all keys of this run.
        folder: For the output of workers.
        private: Whether the server was started for this run alone.
        server: What is known of it.
    """

    url: str
    prefix: str
    folder: Path
    private: bool
    server: str

    def app(self) -> Headrace:
        """Return an app of this process, with the settings as they are by default."""
        return make_app(self.url, prefix=self.prefix)

    async def clear(self) -> None:
        """Delete the keys of this run.

        Raises:
            HeadraceError: Some are left; the error says how to delete them.
        """
        reason = "the server kept some"
        left = True
        try:
            async with asyncio.timeout(CLEAR_TIMEOUT), self.app() as app:
                left = bool(await delete_keys(app, self.prefix))
        except TimeoutError:
            reason = f"not done within {CLEAR_TIMEOUT:g} s"
        except HeadraceError as error:
            reason = str(error)
        if left:
            raise HeadraceError(
                f"the keys of the benchmark below '{self.prefix}:' were not all deleted: {reason}. When the server "
                f"answers: redis-cli --scan --pattern '{self.prefix}:*' | xargs redis-cli unlink"
            )


@contextlib.asynccontextmanager
async def open_place(url: str | None, *, scale: float = 1.0, extra: tuple[str, ...] = ()) -> AsyncIterator[Place]:
    """Find the user's server, or start one; afterwards the keys, the folder and the server that was started are gone.

    Args:
        url: The user's server, `FROM_SETTINGS` for that of the settings; None for a private one.
        scale: Part of the jobs of the full size, by which the room that they need is told.
        extra: More options of a private server.

    Raises:
        OptionError: The server has no room for the jobs, or the settings name none.
        ServerError: It cannot be reached or used.
        ServerStartFailed: A private one could not be started.
        HeadraceError: Keys are left.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as text:
        folder = Path(text)
        if url is None:
            with start_private_server(folder / "server", extra=extra) as server:
                yield Place(server.url, "headrace", folder, private=True, server=describe_private(server.binary))
            return
        settings = load_settings({"redis_url": None if url == FROM_SETTINGS else url})
        if settings.redis_url is None:
            raise OptionError(f"--url {FROM_SETTINGS}: neither the environment nor .env sets it. Name the server.")
        # Why below the user's prefix: whoever may use those keys may use these.
        interrupts = _Interrupts()
        prefix = f"{settings.prefix[:40]}:bench-{random_name(8)}"
        known = await _look(settings.redis_url, prefix, ROOM_MB * max(1.0, scale))
        place = Place(settings.redis_url, prefix, folder, private=False, server=known)
        try:
            yield place
        finally:
            interrupts.heard = False
            await place.clear()


class _Interrupts:
    """Let one Ctrl+C or SIGTERM cancel the run, and none its cleaning, which is bounded; for a main thread only."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.heard = True
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._cancel)

    def _cancel(self) -> None:
        if self.heard and self._task is not None:
            self.heard = False
            self._task.cancel()


async def _look(url: str, prefix: str, room_mb: float) -> str:
    """Return what is known of the user's server, after making sure that it has room.

    Raises:
        OptionError: It has none: to write there would evict or refuse what others keep in it.
        ServerError: It cannot be reached or used.
    """

    async def ask(link: Trip) -> tuple[Facts, list[str], float]:
        info, config = await link.roundtrip(
            pack_command("INFO", "everything") + pack_command("CONFIG", "GET", "append*"), 2
        )
        began = time.perf_counter()
        await link.roundtrip(pack_command("PING"), 1)
        seconds = time.perf_counter() - began
        return Facts(info if isinstance(info, bytes) else {}), _words(config), seconds

    async with make_app(url, prefix=prefix) as app:
        nodes = await visit_nodes(app, ask)
        for facts, _, _ in nodes:
            _check_room(facts, room_mb)
    facts, config, seconds = nodes[0]
    return ", ".join(_tell(clean_text(url), facts, config, len(nodes), seconds))


def _check_room(facts: Facts, room_mb: float) -> None:
    maximum, used = facts.number("maxmemory"), used_memory(facts)
    if not maximum or used is None or maximum - used >= room_mb * 1024 * 1024:
        return
    raise OptionError(
        f"--url: the server has {max(0.0, maximum - used) / 1024 / 1024:.0f} MB left of its maxmemory "
        f"({facts.text('maxmemory_policy')}), and the jobs may take {room_mb:.0f} MB: what others keep there could be "
        "evicted or refused. Raise maxmemory, or name another server."
    )


def _tell(url: str, facts: Facts, config: list[str], count: int, seconds: float) -> Iterator[str]:
    """Say what is known of a server, in the order in which it is printed."""
    product = "valkey" if facts.text("valkey_version") else "redis"
    version = facts.text("valkey_version") or facts.text("redis_version")
    yield f"{product} {version}" if version else "its INFO is not shown to this user"
    yield url
    if count > 1:
        yield f"{count} primaries"
    settings = dict(zip(config[::2], config[1::2], strict=False))
    for name in ("appendonly", "appendfsync"):
        yield f"{name} {settings.get(name, 'not shown')}"
    if (clients := facts.number("connected_clients")) is not None:
        yield f"{clients:.0f} connections before"
    yield f"one round trip {seconds * 1000:.1f} ms"


def _words(reply: Any) -> list[str]:
    """Return the words of a list or a map; a refusal has none."""
    if isinstance(reply, dict):
        reply = [word for pair in reply.items() for word in pair]
    if not isinstance(reply, (list, tuple)):
        return []
    return [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in reply]
