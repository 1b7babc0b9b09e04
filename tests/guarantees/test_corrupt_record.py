"""A record that makes no sense is dead with its reason, and every other job goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import zstandard

from headrace import JobStatus
from headrace.keys import QueueKeys

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.raw import Raw

HEAD = b"\x01\x05" + bytes(6)
STEP = b"\x04step"
PACKED = zstandard.ZstdCompressor().compress(b"\x92\x01\xcb" + bytes(8) + bytes(5_000))
RECORDS: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "one byte": b"\x01",
    "noise": bytes(range(255, 195, -1)),
    "zeros": bytes(60),
    "only a head": HEAD,
    "a name that is cut": HEAD + b"\x00\x09st",
    "a name that is no text": HEAD + b"\x00\x02\xff\xfe\x90",
    "no arguments": HEAD + b"\x00" + STEP,
    "noise for arguments": HEAD + b"\x00" + STEP + b"\xc1\xc1\xc1",
    "cut arguments": HEAD + b"\x00" + STEP + b"\x92\x01",
    "arguments of another task": HEAD + b"\x00" + STEP + b"\x91\xa3abc",
    "too deep": HEAD + b"\x00" + STEP + b"\x92\x01" + b"\x91" * 100_000,
    "deep keywords": HEAD + b"\x01" + STEP + b"\x93\x90\x81\xa1x" + b"\x91" * 100_000,
    "cut options": HEAD + b"\x01" + STEP + b"\x93\x91\x01\x80",
    "noise for zstd": HEAD + b"\x02" + STEP + b"\x28\xb5\x2f\xfd" + bytes(20),
    "cut zstd": HEAD + b"\x02" + STEP + PACKED[:-5],
    "a bomb": HEAD + b"\x02" + STEP + zstandard.ZstdCompressor().compress(bytes(200_000_000)),
    "priority 99": b"\x01\x63" + bytes(6) + b"\x00" + STEP + b"\xc1",
}


@pytest.mark.parametrize("record", [pytest.param(record, id=name) for name, record in RECORDS.items()])
async def test_a_malformed_record_is_dead_and_the_rest_goes_on(crew: Crew, raw: Raw, record: bytes | None) -> None:
    keys = QueueKeys(crew.prefix, "work")
    async with crew.app() as app:
        done: list[int] = []

        @app.task(name="quick", queue="work")
        async def quick(number: int) -> None:
            done.append(number)

        await quick.enqueue(1)
        if record is not None:
            raw("HSET", keys["jobs"], "malformed", record)
        raw("RPUSH", keys["wait5"], "malformed")
        await quick.enqueue(2)
        assert (await app.queue("work").stats()).waiting == 3

        await app.worker(["work"], concurrency=2, burst=True).run()
        job = await app.queue("work").job("malformed").refresh()
        stats = await app.queue("work").stats()
        why = await job.why()

        assert done == [1, 2]
        assert job.status is JobStatus.FAILED
        assert [failure.error for failure in job.failures] == ["RecordCorrupt"]
        assert job.failures[0].message in why
        assert (stats.waiting, stats.active, stats.failed, stats.completed) == (0, 0, 1, 2)

        assert await job.retry()
        await app.worker(["work"], concurrency=2, burst=True).run()
        assert (await job.refresh()).status is JobStatus.FAILED
        assert await app.queue("work").clear("failed") == 1

    # Red when: slots.py does not catch what a malformed record raises.
