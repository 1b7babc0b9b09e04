"""The floor: jobs read and settled by a bare script, with no queue logic at all; what a job queue adds is the rest.

A job is a record in a hash and its id in a list. Bulk pipelines HSET and RPUSH, a thousand jobs at a time; the drain
pops an id, reads its record, decodes it, runs the job and deletes the record: LPOP, HGET, HDEL, three commands a job,
pipelined for 100 jobs. FLOOR_CLIENT says what carries them: `redis-py` (with hiredis), or `hiredis` alone on a blocking
socket. Nothing is leased: a killed script loses what it holds. `sleep` is 100 coroutines that sleep, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import hiredis
import msgspec
import redis
from adapter_kit import METER, SLEEP_CONCURRENCY, SLEEP_SECONDS, TEXT, Adapter, run

BATCH = 100
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(tuple[int, str]).decode


class RedisPy:
    """Pipelines of redis-py."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def call(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no types here
        return pipe.execute()


class Hiredis:
    """Commands packed and parsed by hiredis on a blocking unix socket."""

    def __init__(self, url: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(url.removeprefix("unix://"))
        self.reader = hiredis.Reader()

    def call(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        self.socket.sendall(b"".join([hiredis.pack_command(command) for command in commands]))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self.reader.gets()
            if reply is False:
                self.reader.feed(self.socket.recv(65_536))
            else:
                replies.append(reply)
        return replies


class FloorAdapter(Adapter):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.client = RedisPy(url) if os.environ["FLOOR_CLIENT"] == "redis-py" else Hiredis(url)

    async def open(self) -> None:
        self.client.call([("PING",)])

    async def enqueue_one(self, task: str, number: int) -> None:  # noqa: ARG002 the floor has one task
        job_id = f"floor-{number:08}"
        self.client.call([("HSET", "jobs", job_id, encode((number, TEXT))), ("RPUSH", "wait", job_id)])

    async def enqueue_bulk(self, task: str, count: int) -> None:  # noqa: ARG002 the floor has one task
        for start in range(1, count + 1, 1_000):
            commands: list[tuple[Any, ...]] = []
            for number in range(start, min(count + 1, start + 1_000)):
                job_id = f"floor-{number:08}"
                commands += (("HSET", "jobs", job_id, encode((number, TEXT))), ("RPUSH", "wait", job_id))
            self.client.call(commands)

    async def work(self, task: str) -> None:
        if task == "sleep":
            await asyncio.gather(*(self._sleeps() for _ in range(SLEEP_CONCURRENCY)))
        while True:
            ids = [job_id for job_id in self.client.call([("LPOP", "wait")] * BATCH) if job_id is not None]
            for record in self.client.call([("HGET", "jobs", job_id) for job_id in ids]):
                METER.mark(*decode(record))
            self.client.call([("HDEL", "jobs", job_id) for job_id in ids])
            await asyncio.sleep(0)

    async def _sleeps(self) -> None:
        while True:
            METER.begin()
            await asyncio.sleep(SLEEP_SECONDS)
            METER.mark(0, TEXT)


if __name__ == "__main__":
    run(FloorAdapter, uvloop=True)
