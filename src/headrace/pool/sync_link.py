"""The link for synchronous code: one blocking connection, shared by threads one call at a time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from headrace.errors import ConnectionLost, PoolClosed
from headrace.pool.backoff import Backoff
from headrace.pool.connection import ReplyErrors, login_error, new_reader, no_primary_error
from headrace.pool.link import OPEN_TIMEOUT
from headrace.pool.sentinel import LOCATE_TIMEOUT, locate_sync
from headrace.pool.sockets import exchange, exchange_all, open_socket

if TYPE_CHECKING:
    import socket

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
        self._errors = ReplyErrors()
        self._reader = new_reader(self._errors)
        self._pid = os.getpid()
        self._backoff = Backoff()
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether a connection is there, and belongs to this process."""
        return self._socket is not None and self._pid == os.getpid()

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
            return self._call(payload, count, deadline)
        except ConnectionLost:
            self._drop()
            raise
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

    def _call(self, payload: bytes, count: int, deadline: float) -> list[Any]:
        connected = self._open(deadline)
        replies = exchange(connected, self._reader, payload, count, deadline)
        if self._errors.no_primary:
            raise no_primary_error(self.address, self._errors.no_primary)
        return replies

    def _open(self, deadline: float) -> socket.socket:
        if self._closed:
            raise PoolClosed(f"The link '{self.name}' to {self.address} is closed. Open the app again.")
        if self._socket is None:
            self._backoff.begin()
        while self._socket is None:
            # Why: also before a first attempt, when the connection before it broke soon after it was made.
            time.sleep(max(0.0, min(self._backoff.next_wait(), deadline - time.monotonic())))
            try:
                self._connect(deadline)
            except OSError:
                self._drop()
                if time.monotonic() >= deadline:
                    raise
        return self._socket

    def _connect(self, deadline: float) -> None:
        place = locate_sync(self.address, min(LOCATE_TIMEOUT, deadline - time.monotonic()))
        try:
            self._socket = open_socket(place, max(0.001, min(OPEN_TIMEOUT, deadline - time.monotonic())))
            self._errors = ReplyErrors()
            self._reader = new_reader(self._errors)
            replies = exchange_all(self._socket, self._reader, place.handshake(self.name), deadline)
            refused = login_error(place, replies)
            if refused is not None:
                raise refused
        except OSError:
            self.address.doubt()
            raise
        self._backoff.opened()

    def _drop(self) -> None:
        connected, self._socket = self._socket, None
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.close()
