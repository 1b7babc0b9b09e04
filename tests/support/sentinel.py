"""A primary, two replicas and three sentinels as local processes, quick to notice that the primary is gone."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from headrace.errors import ConnectionLost
from headrace.pool.address import Address
from headrace.pool.connection import ServerReplyError
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command
from headrace.server import start_private_server
from headrace.server.binary import find_server
from tests.support.cluster import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace.server import PrivateServer

#: Nothing here takes longer, seconds.
DEADLINE = 20.0
SERVICE = "main"
USER, PASSWORD, SENTINEL_PASSWORD = "app", "s3cret", "w4tch"
#: A primary that does not answer for so long is replaced, milliseconds.
DOWN_AFTER_MS = 600
#: What sentinels do by the clock, milliseconds, instead of 1 s to 10 s: a test does not wait for them. While the
#: primary is down they ask its replicas each second, whatever is set here, and promote none that they know nothing of
#: for five times the period of pings.
PERIODS = ("INFO-PERIOD", "200", "PING-PERIOD", "300", "ASK-PERIOD", "100", "PUBLISH-PERIOD", "200")
SERVER_OPTIONS = (
    "--appendonly", "no", "--save", "", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
    "--user", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all",
)  # fmt: skip


def naming(*ports: int) -> Callable[[list[bytes]], bytes]:
    """Answer as a sentinel that names servers on these ports one after the other, and then the last one."""
    left = list(ports)

    def answer(_: list[bytes]) -> bytes:
        port = str(left.pop(0) if len(left) > 1 else left[0]).encode()
        return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)

    return answer


class Ask:
    """A plain client of one process of the group."""

    def __init__(self, port: int, *, sentinel: bool = False) -> None:
        address = Address(port=port, is_sentinel=sentinel, password=SENTINEL_PASSWORD if sentinel else None)
        self.link = SyncLink(address, name="ask")

    def __call__(self, *words: str | int) -> Any:
        (reply,) = self.link.roundtrip(pack_command(*words), 1, timeout=2.0)
        assert not isinstance(reply, ServerReplyError), reply
        return reply


class SentinelGroup:
    """Start the group below a folder; everything of it ends with `close`.

    Args:
        folder: Where data, logs and settings go.
        extra: More options of the servers.
        down_after_ms: A primary that does not answer for so long is replaced.
    """

    def __init__(self, folder: Path, extra: tuple[str, ...] = (), *, down_after_ms: int = DOWN_AFTER_MS) -> None:
        self.folder = folder
        self._down_after_ms = down_after_ms
        self.servers: list[PrivateServer] = []
        self.ports: list[int] = []
        self._sentinels: list[subprocess.Popen[bytes]] = []
        self._asks: dict[int, Ask] = {}
        try:
            for number in range(3):
                follow = ("--replicaof", "127.0.0.1", str(self.servers[0].port)) if number else ()
                options = (*SERVER_OPTIONS, *follow, *extra)
                self.servers.append(start_private_server(folder / f"server{number}", port=0, extra=options))
            for number in range(3):
                self._start_sentinel(number)
            self.until(self._is_complete, "the sentinels know each other and the replicas")
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The REDIS_URL that leads to the primary, whichever it is."""
        places = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{USER}:{PASSWORD}@{places}/{SERVICE}/0?sentinel_password={SENTINEL_PASSWORD}"

    def ask(self, port: int) -> Ask:
        """Return a client of a server or sentinel."""
        ask = self._asks.get(port)
        if ask is None:
            ask = self._asks[port] = Ask(port, sentinel=port in self.ports)
        return ask

    def server(self, number: int) -> Ask:
        """Return a client of one of the servers."""
        port = self.servers[number].port
        assert port is not None
        return self.ask(port)

    def primary(self) -> int:
        """Return which of the servers all sentinels call the primary."""
        named = {self._named(port) for port in self.ports}
        assert len(named) == 1, named
        return named.pop()

    def promoted(self, before: int) -> float:
        """Wait until some sentinel names another server than before; returns when that was (time.monotonic)."""
        self.until(lambda: any(self._named(port) != before for port in self.ports), "another server is the primary")
        return time.monotonic()

    def agreed(self, before: int) -> float:
        """Wait until all sentinels name another server than before; returns when that was (time.monotonic).

        The first that does so tells the others when it looks at its servers the next time, up to a second later.
        """
        self.until(lambda: all(self._named(port) != before for port in self.ports), "all name another primary")
        return time.monotonic()

    def fail_over(self) -> None:
        """Ask for an orderly failover."""
        assert self.ask(self.ports[0])("SENTINEL", "FAILOVER", SERVICE) == b"OK"

    def until_whole(self) -> None:
        """Start what was killed, and wait until all sentinels agree and the primary has two replicas that keep up."""
        for server in self.servers:
            if not server.running:
                server.start()
        self.until(self._is_whole, "one primary with two replicas that keep up")

    def until(self, claim: Callable[[], bool], what: str) -> None:
        """Ask until something is true."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                if claim():
                    return
            except (AssertionError, ConnectionLost) as error:
                what = f"{what.partition(' (')[0]} ({error})"
            assert time.monotonic() < deadline, f"did not happen within {DEADLINE:g} s: {what}"
            time.sleep(0.01)

    def close(self) -> None:
        """End all processes."""
        for ask in self._asks.values():
            ask.link.close()
        for process in self._sentinels:
            process.kill()
            process.wait(DEADLINE)
        for server in self.servers:
            server.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _named(self, port: int) -> int:
        _, named = self.ask(port)("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return [server.port for server in self.servers].index(int(named))

    def _start_sentinel(self, number: int) -> None:
        (port,) = free_ports(1)
        folder = self.folder / f"sentinel{number}"
        folder.mkdir(parents=True)
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder / 'log'}\nrequirepass {SENTINEL_PASSWORD}\n"
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}\n"
            f"sentinel failover-timeout {SERVICE} 2000\nsentinel parallel-syncs {SERVICE} 2\n"
        )
        command = [str(find_server().path), str(config), "--sentinel"]
        self._sentinels.append(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call of the C library, no lock is taken
            )
        )
        self.ports.append(port)
        self.until(lambda: self.ask(port)("SENTINEL", "DEBUG", *PERIODS) == b"OK", "a sentinel answers")

    def _is_complete(self) -> bool:
        for port in self.ports:
            pairs = self.ask(port)("SENTINEL", "MASTER", SERVICE)
            facts = pairs if isinstance(pairs, dict) else dict(zip(pairs[::2], pairs[1::2], strict=True))
            if (facts[b"num-slaves"], facts[b"num-other-sentinels"]) != (b"2", b"2"):
                return False
        return self._is_whole()

    def _is_whole(self) -> bool:
        role = self.server(self.primary())("ROLE")
        if role[0] != b"master" or len(role[2]) != len(self.servers) - 1:
            return False
        replicas = [self.server(number)("ROLE") for number in range(3) if number != self.primary()]
        return all(role[0] == b"slave" and role[3] == b"connected" for role in replicas) and self._is_complete_again()

    def _is_complete_again(self) -> bool:
        # Why: a replica that a sentinel takes for down is not promoted.
        for port in self.ports:
            for pairs in self.ask(port)("SENTINEL", "REPLICAS", SERVICE):
                facts = pairs if isinstance(pairs, dict) else dict(zip(pairs[::2], pairs[1::2], strict=True))
                if facts[b"flags"] != b"slave":
                    return False
        return True


def _end_with_parent() -> None:
    """Let the kernel end a sentinel whose test run was killed, where it can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
