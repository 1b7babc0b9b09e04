"""Functions that the tests run as tasks in child processes, which import this module."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from headrace import Headrace, Retry, current_job
from headrace.errors import UsageError


@dataclass
class Order:
    number: int
    due: datetime


class Refused(Exception):
    """An exception whose `__init__` another process could not call."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"refused with {code}: {why}")
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Nasty(BaseException):
    """What some libraries use to get past `except Exception`."""


def shift(order: Order, *, days: int = 1) -> Order:
    assert type(order) is Order
    assert type(order.due) is datetime
    return Order(order.number, order.due + timedelta(days=days))


def pid() -> int:
    return os.getpid()


def nothing() -> None:
    pass


def refuse() -> None:
    raise Refused(7, why="no")


def divide() -> float:
    return 1 / 0


def ask_again() -> None:
    if current_job().attempt == 1:
        raise Retry(after=0.0, reason="too early")


def raise_unknown(base: str) -> None:
    class LocalError({"Exception": Exception, "OSError": OSError}[base]):  # type: ignore[misc]  # chosen by the test
        pass

    raise LocalError("only here")


def raise_nasty() -> None:
    raise Nasty("past every except")


def leave() -> None:
    sys.exit("enough")


def exit_hard(status: int) -> None:
    os._exit(status)


def crash() -> None:
    ctypes.string_at(0)


def die_of(number: int) -> None:
    os.kill(os.getpid(), number)


def die_once(marker: str) -> str:
    path = Path(marker)
    if not path.exists():
        path.touch()
        os._exit(9)
    return "second time"


def visit(port: int) -> int:
    """Tell a test that this runs, and wait until it lets go."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{os.getpid()}\n".encode())
        connection.recv(1)
    return os.getpid()


def visit_and_hang(port: int) -> None:
    """Tell a test the ids of this process and of a program started here, and hang in C code."""
    child = subprocess.Popen(["/bin/sleep", "3600"])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{os.getpid()} {child.pid}\n".encode())
        time.sleep(3600)


def describe_job() -> dict[str, Any]:
    job = current_job()
    return {
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "attempt": job.attempt,
        "fence": job.fence,
        "deadline": job.deadline,
    }


def report() -> str:
    job = current_job()
    job.progress_sync(40, "almost")
    job.log_sync("one line")
    thread_said: list[str] = []

    def from_a_thread() -> None:
        job.log_sync("from a thread")
        thread_said.append("done")

    thread = threading.Thread(target=from_a_thread)
    thread.start()
    thread.join()
    return thread_said[0]


def refuse_wrong_progress() -> list[str]:
    job = current_job()
    said = []
    for coroutine in (job.progress(40), job.log("x")):
        try:
            coroutine.send(None)
        except UsageError as error:
            said.append(str(error))
    try:
        job.progress_sync(140)
    except ValueError as error:
        said.append(str(error))
    return said


def signals() -> list[int]:
    """Send the signals of a stopping group to this process; return how a program started here takes SIGTERM."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    child = subprocess.Popen(["/bin/sleep", "3600"])
    child.terminate()
    forked = os.fork()
    if not forked:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    return [child.wait(), os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])]


def hang_at_exit() -> int:
    atexit.register(time.sleep, 3600)
    return os.getpid()


def write_garbage() -> None:
    """Write into every socket that the process holds, as a task with a wrong descriptor might."""
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            connection = socket.socket(fileno=os.dup(fd))
            connection.sendall(b"\xff" * 64)
    time.sleep(3600)


def be_large(size: int) -> bytes:
    return b"x" * size


def be_strange() -> object:
    return object()


def report_and_visit(port: int) -> None:
    current_job().progress_sync(25, "at the door")
    visit(port)


def follow(name: str, number: int) -> str:
    """Have a job of another task follow, as a module that defines its app would."""
    app = Headrace()

    @app.task(name=name)
    def stand_in(number: int) -> None:
        del number

    return current_job().follow(stand_in, number)


def has_loaded_pickle() -> bool:
    return bool({"pickle", "_pickle", "multiprocessing"} & sys.modules.keys())


def take(megabytes: int) -> int:
    """Use so much memory."""
    return len(b"x" * (megabytes * 1_048_576))
