"""Every error that Headrace raises on purpose, as one tree.

The branches follow what the caller can do about it::

    HeadraceError
    ├── CallError            fix the call (also a ValueError or TypeError)
    │   ├── OptionError          an option or argument has a value outside its bounds   (ValueError)
    │   ├── ArgumentError        the arguments do not fit the task's signature           (TypeError)
    │   ├── EncodingError        a value cannot be written as a record                   (TypeError)
    │   ├── RecordTooLarge       a record passes the size limit                          (ValueError)
    │   └── UsageError           a method was called in the wrong place or order         (RuntimeError)
    ├── SettingError         fix a setting                                            (ValueError)
    │   └── SettingsConflict     another writer stored settings of the fleet meanwhile
    ├── WaitError            wait, or make room
    │   ├── PoolTimeout          no connection came free in time                         (TimeoutError)
    │   ├── PoolClosed           the pool closed before or during the call
    │   └── ResultTimeout        the job did not finish in time                          (TimeoutError)
    ├── ServerError          look at the server
    │   ├── ConnectionLost       the connection broke or could not be opened             (ConnectionError)
    │   ├── CommandRefused       the server answered a command with an error
    │   ├── ServerTooOld         the server lacks what Headrace needs
    │   └── ServerStartFailed    the default server could not be started
    └── JobError             look at the job
        ├── JobFailed            the job is dead; the error carries what its attempts raised
        ├── JobCancelled         the job was cancelled before it completed
        ├── JobNotFound          no such job, or its outcome was not kept
        ├── JobTimeout           the attempt ran past the task's timeout               (TimeoutError)
        ├── ProcessDied          the child process of the attempt ended by itself
        ├── MemoryExceeded       the attempt needed more memory than its task may     (MemoryError)
        ├── RemoteError          the task raised in a child process what this process does not know
        ├── LeaseLost            the worker's hold on the job ran out; nothing was recorded
        ├── UnknownTask          the job names a task that this process has not registered
        ├── RecordCorrupt        the bytes of a record cannot be read
        └── RecordTooNew         a record was written by a newer Headrace
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class HeadraceError(Exception):
    """Root of every error that Headrace raises on purpose."""


class CallError(HeadraceError):
    """Report a call that has to be written differently."""


class OptionError(CallError, ValueError):
    """Report an option or argument whose value lies outside its bounds."""


class ArgumentError(CallError, TypeError):
    """Report arguments that do not fit the signature of a task."""


class EncodingError(CallError, TypeError):
    """Report a value that cannot be written as a record."""


class RecordTooLarge(CallError, ValueError):
    """Report a record that passes the size limit."""


class UsageError(CallError, RuntimeError):
    """Report a method called in the wrong place or order."""


class SettingError(HeadraceError, ValueError):
    """Report a setting with a malformed or forbidden value.

    Attributes:
        variable: Name of the environment variable, or of the field for an argument; empty when no single one is wrong.
        value: The value as it was given, shortened, with passwords masked.
        expected: What is allowed.
        source: Where the value came from: `argument`, `environment`, `.env`, `fleet` or `default`.
    """

    def __init__(
        self, message: str, *, variable: str = "", value: str = "", expected: str = "", source: str = ""
    ) -> None:
        super().__init__(message)
        self.variable = variable
        self.value = value
        self.expected = expected
        self.source = source


class SettingsConflict(SettingError):
    """Report that the settings of the fleet were changed by another writer since this one looked; nothing was written.

    Attributes:
        expected_version: The version that this writer has seen.
        found_version: The version that is the latest now.
    """

    def __init__(self, message: str, *, expected_version: int = 0, found_version: int = 0) -> None:
        super().__init__(message, source="fleet")
        self.expected_version = expected_version
        self.found_version = found_version


class WaitError(HeadraceError):
    """Report a wait that did not end in time or cannot end any more."""


class PoolTimeout(WaitError, TimeoutError):
    """Report that no connection came free in time.

    Attributes:
        holders: Who held the connections of the lane at that moment, as `headrace.pool.Holder`.
    """

    def __init__(self, message: str, *, holders: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.holders = tuple(holders)


class PoolClosed(WaitError):
    """Report that the pool closed before or during the call."""


class ResultTimeout(WaitError, TimeoutError):
    """Report that a job did not finish within the wait for its result."""


class ServerError(HeadraceError):
    """Report a fault of the server or on the way to it."""


class ConnectionLost(ServerError, ConnectionError):
    """Report a connection that broke or could not be opened."""


class CommandRefused(ServerError):
    """Report a command that the server answered with an error."""


class ServerTooOld(ServerError):
    """Report a server whose version lacks what Headrace needs.

    Attributes:
        product: `redis` or `valkey`; empty when the server does not say.
        found: Its version, with dots; empty when the server does not say.
        needed: The lowest version of that product that works.
    """

    def __init__(self, message: str, *, product: str = "", found: str = "", needed: str = "") -> None:
        super().__init__(message)
        self.product = product
        self.found = found
        self.needed = needed


class ServerStartFailed(ServerError):
    """Report that the default server could not be started."""


class JobError(HeadraceError):
    """Report the state of one job."""


class JobFailed(JobError):
    """Report a dead job, with what its attempts raised."""


class JobCancelled(JobError):
    """Report a job that was cancelled before it completed."""


class JobNotFound(JobError):
    """Report a job that does not exist, or whose outcome was not kept."""


class JobTimeout(JobError, TimeoutError):
    """Report an attempt that ran past the timeout of its task."""


class ProcessDied(JobError):
    """Report a child process that ended in the middle of an attempt, or could not be started for it.

    Attributes:
        code: Its exit status, the negative number of the signal that ended it, or None when it was never started.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class MemoryExceeded(JobError, MemoryError):
    """Report an attempt that needed more memory than its task may, or than its child process could get."""


class RemoteError(JobError):
    """Stand for an exception of a child process whose class this process has not loaded, or cannot make."""


class LeaseLost(JobError):
    """Report that a worker's hold on a job ran out, so that nothing was recorded."""


class UnknownTask(JobError):
    """Report a job whose task this process has not registered."""


class RecordCorrupt(JobError):
    """Report a record whose bytes cannot be read."""


class RecordTooNew(JobError):
    """Report a record that was written by a newer Headrace."""
