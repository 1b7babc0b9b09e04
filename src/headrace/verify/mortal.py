"""A server that is to be killed: what it promises to keep then, and which process of this machine it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import psutil

from headrace.errors import CommandRefused
from headrace.resp import pack_command, parse_config, parse_info

if TYPE_CHECKING:
    from headrace.pool.carrier import Carrier

#: With `appendfsync everysec` the server puts a write off for so long while the disk is busy with an earlier second.
#: What it has written survives the end of its process. Source: Redis, `flushAppendOnlyFile` in src/aof.c; "Redis
#: persistence" in its documentation.
PUT_OFF: Final = 2.0
#: Programs that may be killed, and by how much the age of a process and what the server says of it may differ, seconds.
PROGRAMS: Final = ("redis-server", "valkey-server")
SAME_AGE: Final = 5.0


async def read_persistence(link: Carrier) -> tuple[str, float]:
    """Return what a server keeps through a SIGKILL, in words, and the seconds before it of which it may lose writes.

    Raises:
        CommandRefused: The server does not tell.
        ConnectionLost: The connection broke.
    """
    names = ("appendonly", "appendfsync")
    replies = await link.roundtrip(b"".join(pack_command("CONFIG", "GET", name) for name in names), len(names))
    for reply in replies:
        if isinstance(reply, Exception):
            raise CommandRefused(f"CONFIG GET was refused, so what a kill may lose is not known: {reply}.")
    appends, fsync = (parse_config(reply) for reply in replies)
    if appends != "yes":
        return "without its append-only file it may lose all since its last snapshot", 0.0
    if fsync == "everysec":
        return f"appendfsync everysec may lose what came in the last {PUT_OFF:g} s", PUT_OFF
    return f"appendfsync {fsync} loses nothing when the process alone ends", 0.0


async def find_process(link: Carrier) -> psutil.Process:
    """Return the process of a server, if it is one of this machine that this user may kill.

    Raises:
        CommandRefused: It is not, or cannot be told.
        ConnectionLost: The connection broke.
    """
    (reply,) = await link.roundtrip(pack_command("INFO", "server"), 1)
    if isinstance(reply, Exception):
        raise CommandRefused(f"INFO was refused: {reply}. Allow it to the user of REDIS_URL.")
    info = parse_info(reply)
    try:
        process = psutil.Process(int(info["process_id"]))
        age, name = time.time() - process.create_time(), process.name()
        # Why: a server in a container or on another machine has a number that here belongs to something else.
        if any(name.startswith(program[:15]) for program in PROGRAMS) and _is_near(age, info["uptime_in_seconds"]):
            return process
    except (KeyError, ValueError, psutil.Error):
        pass
    raise CommandRefused("the server is no process of this machine that can be killed from here.")


def _is_near(age: float, told: str) -> bool:
    return abs(age - float(told)) < SAME_AGE
