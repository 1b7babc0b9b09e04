"""A real cluster of local processes: three primaries with a replica each, made over plain connections."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

from headrace.pool.address import Address
from headrace.pool.connection import ServerReplyError
from headrace.pool.slots import Place
from headrace.pool.sync_cluster_link import SyncClusterLink
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command, parse_info
from headrace.server import find_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SLOTS = 16_384
DEADLINE = 30.0
#: A primary that does not answer for so long is taken to be gone, ms.
NODE_TIMEOUT_MS = 1_000


class Node:
    """One server of the cluster; `id` is how the others call it."""

    def __init__(self, folder: Path, port: int, bus_port: int) -> None:
        self.port = port
        self.id = ""
        folder.mkdir()
        command = [
            *(["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []),
            str(find_server().path), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
            "--cluster-enabled", "yes", "--cluster-port", str(bus_port),
            "--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0",
            "--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0",
            "--repl-ping-replica-period", "1", "--appendonly", "no", "--save", "", "--logfile", "server.log",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.link = SyncLink(Address(port=port), name="test")

    def __call__(self, *words: str | bytes | int) -> Any:
        """Send one command; an error reply is raised."""
        (reply,) = self.link.roundtrip(pack_command(*words), 1, timeout=DEADLINE)
        if isinstance(reply, ServerReplyError):
            raise reply
        return reply

    def info(self, section: str) -> dict[str, str]:
        return parse_info(self("INFO", section))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End the server with SIGKILL and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        self.link.close()


class Cluster:
    """Three primaries and their replicas. `nodes[i + 3]` begins as the replica of `nodes[i]`."""

    def __init__(self, folder: Path, primaries: int = 3) -> None:
        ports = free_ports(4 * primaries)
        pairs = zip(ports[::2], ports[1::2], strict=True)
        self.nodes: list[Node] = []
        try:
            for index, (port, bus_port) in enumerate(pairs):
                self.nodes.append(Node(folder / f"node-{index}", port, bus_port))
            self._join(primaries)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The seeds of all nodes in one URL."""
        seeds = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{seeds}/"

    def _join(self, primaries: int) -> None:
        first = self.nodes[0]
        for node in self.nodes:
            node.id = node("CLUSTER", "MYID").decode()
        for index, node in enumerate(self.nodes[:primaries]):
            low, high = SLOTS * index // primaries, SLOTS * (index + 1) // primaries - 1
            node("CLUSTER", "ADDSLOTSRANGE", low, high)
            node("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for node in self.nodes[1:]:
            bus_port = int(node("CONFIG", "GET", "cluster-port")[b"cluster-port"])
            first("CLUSTER", "MEET", "127.0.0.1", node.port, bus_port)
        wait_until(lambda: all(self._knows_all(node) for node in self.nodes), "all nodes know each other")
        for index, replica in enumerate(self.nodes[primaries:]):
            replica("CLUSTER", "REPLICATE", self.nodes[index].id)
        self.wait_ready()

    def _knows_all(self, node: Node) -> bool:
        return int(cluster_info(node)["cluster_known_nodes"]) == len(self.nodes)

    def wait_ready(self) -> None:
        """Wait until all running nodes serve all slots, agree on who has which, and all replicas are in step."""

        def is_ready() -> bool:
            running = self.running
            if any(cluster_info(node)["cluster_state"] != "ok" for node in running):
                return False
            if len({str(sorted(slot_ranges(node))) for node in running}) != 1:
                return False
            infos = [node.info("replication") for node in running]
            return all(info["role"] == "master" or info["master_link_status"] == "up" for info in infos)

        wait_until(is_ready, "the cluster is ready")

    def primary_of(self, slot: int) -> Node:
        """Return the node that serves a slot, as the first running node sees it."""
        for low, high, node_id in slot_ranges(self.running[0]):
            if low <= slot <= high:
                return next(other for other in self.nodes if other.id == node_id)
        raise AssertionError(f"slot {slot} is served by nobody")

    def replica_of(self, primary: Node) -> Node:
        """Return a running replica of a primary."""
        lines = self.running[0]("CLUSTER", "REPLICAS", primary.id)
        ids = {line.decode().split(" ", 1)[0] for line in lines}
        return next(node for node in self.running if node.id in ids)

    @property
    def running(self) -> list[Node]:
        """The nodes whose processes run."""
        return [node for node in self.nodes if node.is_running]

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class ClusterRaw:
    """What `Raw` is for one server: a plain client of all nodes."""

    def __init__(self, cluster: Cluster) -> None:
        seeds = [Place("127.0.0.1", node.port) for node in cluster.nodes]
        self._cluster = cluster
        self.link = SyncClusterLink(Address(port=seeds[0].port), seeds, name="raw")

    def __call__(self, *words: str | bytes | int) -> Any:
        return self.many([words])[0]

    def many(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """Send commands and return their replies; an error is raised."""
        if not commands:
            return []
        replies = self.link.roundtrip(b"".join(pack_command(*words) for words in commands), len(commands))
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        assert not errors, errors
        return replies

    def keys(self, start: str) -> list[str]:
        """Return the names of all keys that begin like this."""
        return sorted(
            name.decode()
            for place in {low[2] for low in slot_ranges(self._cluster.running[0])}
            for node in self._cluster.running
            if node.id == place
            for name in node("KEYS", f"{start}*")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.link.close()


def cluster_info(node: Node) -> dict[str, str]:
    return parse_info(node("CLUSTER", "INFO"))


def slot_ranges(node: Node) -> list[tuple[int, int, str]]:
    """Return first slot, last slot and id of the primary of each range, as one node sees them."""
    return [(low, high, primary[2].decode()) for low, high, primary, *_ in node("CLUSTER", "SLOTS")]


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for what only asking can tell: nobody reports the state of a server."""
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.02)
