"""Measure the server memory of one waiting job when its id waits in a list, a sorted set or a stream.

    python benchmarks/structures.py [--jobs 100000]

The record is the same each time: what Headrace writes for a number and a text of 200 bytes. In the list and the sorted
set it lies in a hash beside the id; in the stream it is the entry.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import redis
from kit import TEXT, server

from headrace.ids import job_ids
from headrace.record import NO_OPTIONS, BodyWriter, encode_value

if TYPE_CHECKING:
    from redis.client import Pipeline


def in_list(pipe: Pipeline, job_id: str, record: bytes, _number: int) -> None:
    """Hash and list."""
    pipe.hset("jobs", job_id, record)
    pipe.rpush("wait", job_id)


def in_zset(pipe: Pipeline, job_id: str, record: bytes, number: int) -> None:
    """Hash and sorted set."""
    pipe.hset("jobs", job_id, record)
    pipe.zadd("wait", {job_id: number})


def in_stream(pipe: Pipeline, _job_id: str, record: bytes, _number: int) -> None:
    """Stream entry."""
    pipe.xadd("wait", {"r": record})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    options = parser.parse_args()
    writer = BodyWriter("noop", limit_bytes=1_048_576, compress_over_bytes=4_096)
    with server() as private, redis.Redis.from_url(private.url) as client:
        for add in (in_list, in_zset, in_stream):
            client.execute_command("FLUSHALL", "SYNC")
            before = client.info("memory")["used_memory"]
            for start in range(0, options.jobs, 1_000):
                pipe = client.pipeline(transaction=False)
                for number in range(start, start + 1_000):
                    record = b"\0" * 8 + writer.write(encode_value((number, TEXT)), None, NO_OPTIONS)
                    add(pipe, job_ids.make(), record, number)
                pipe.execute()
            used = client.info("memory")["used_memory"] - before
            print(f"{(add.__doc__ or '').rstrip('.'):<22} {used / options.jobs:6.0f} bytes a job")


if __name__ == "__main__":
    main()
