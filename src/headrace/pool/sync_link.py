"""The link for synchronous code: one blocking connection, shared by threads one call at a time."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import hiredis

from headrace.errors import CommandRefused, ConnectionLost, PoolClosed
from headrace.pool.connection import NOT_READY, ServerReplyError
from headrace.pool.link import BACKOFF_FIRST, BACKOFF_MOST, OPEN_TIMEOUT
from headrace.resp import pack_command

if TYPE_CHECKING:
    from headrace.pool.address import Address


class SyncLink:
    """One blocking connection, opened on first use and again after each break.

    Threads may share it; each call has the connection for itself. A forked child opens a connection of its own.
    """

    def __init__(self, address: Address, *, name: str) -> None:
        self.address = address
        self.name = name
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._reader = self._new_reader()
        self._pid = os.getpid()
        self._closed = False

    def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands and return their replies; error replies stand in the list.

        Args:
            payload: Packed commands.
            count: How many they are.
            timeout: Longest wait in seconds for the connection, its turn and all replies.

        Raises:
            ConnectionLost: The connection could not be opened or broke, or the replies did not come in time.
            PoolClosed: The link was closed.
        """
        deadline = time.monotonic() + timeout
        if self._pid != os.getpid():
            # Why: the socket and perhaps the lock belong to the parent; closing the child's copy disturbs nobody.
            self._lock, self._pid = threading.Lock(), os.getpid()
            self._drop()
        if not self._lock.acquire(timeout=timeout):
            raise ConnectionLost(
                f"{self.address} was busy with another thread's call for {timeout:g} s on '{self.name}'."
            )
        try:
            self._open(deadline)
            return self._exchange(payload, count, deadline)
        except OSError as error:
            self._drop()
            text = f"{self.address} did not answer on '{self.name}': {str(error) or type(error).__name__}"
            raise ConnectionLost(text + ". Check that the server runs.") from error
        except BaseException:
            # Why: Ctrl-C or a signal that raises may strike before the replies are read: the next call would get them.
            self._drop()
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection. Safe to call again."""
        self._closed = True
        self._drop()

    def _open(self, deadline: float) -> None:
        if self._closed:
            raise PoolClosed(f"The link '{self.name}' to {self.address} is closed. Open the app again.")
        wait = BACKOFF_FIRST
        while self._socket is None:
            try:
                self._connect(deadline)
            except OSError:
                self._drop()
                if time.monotonic() + wait >= deadline:
                    raise
                time.sleep(random.uniform(0, wait))  # noqa: S311 - jitter, no secret
                wait = min(BACKOFF_MOST, wait * 2)

    def _connect(self, deadline: float) -> None:
        address = self.address
        timeout = max(0.001, min(OPEN_TIMEOUT, deadline - time.monotonic()))
        if address.path is not None:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket = connected
            connected.settimeout(timeout)
            connected.connect(address.path)
        else:
            connected = self._socket = socket.create_connection((address.host, address.port), timeout)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = address.ssl_context()
            if context is not None:
                self._socket = context.wrap_socket(connected, server_hostname=address.host)
        self._reader = self._new_reader()
        commands = address.handshake(self.name)
        replies = self._exchange(b"".join(pack_command(*command) for command in commands), len(commands), deadline)
        for reply in replies:
            if isinstance(reply, ServerReplyError):
                if reply.code in NOT_READY or "max number of clients" in reply.text:
                    raise ConnectionLost(f"{address} is not ready: {reply.text}.")
                self._drop()
                text = f"{address} refused the connection: {reply.text}. Check the user and password in REDIS_URL."
                raise CommandRefused(text) from reply

    def _exchange(self, payload: bytes, count: int, deadline: float) -> list[Any]:
        connected = self._socket
        if connected is None:
            raise ConnectionLost(f"The connection '{self.name}' to {self.address} is not open.")
        connected.settimeout(max(0.001, deadline - time.monotonic()))
        connected.sendall(payload)
        replies: list[Any] = []
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is False:
                connected.settimeout(max(0.001, deadline - time.monotonic()))
                data = connected.recv(65_536)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                self._reader.feed(data)
            else:
                replies.append(reply)
        return replies

    def _drop(self) -> None:
        connected, self._socket = self._socket, None
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.close()

    @staticmethod
    def _new_reader() -> hiredis.Reader:
        return hiredis.Reader(protocolError=ConnectionLost, replyError=ServerReplyError)
