"""A record that a newer Headrace wrote is left to newer workers, untouched and with all its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace import JobStatus
from headrace.keys import QueueKeys
from tests.support.keyspace import dump_queue

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.raw import Raw


def newer_version(record: bytes) -> bytes:
    return b"\x02" + record[1:]


def unknown_flags(record: bytes) -> bytes:
    return record[:8] + b"\x04" + record[9:]


@pytest.mark.parametrize("change", [newer_version, unknown_flags])
async def test_a_newer_record_waits_for_a_newer_worker(crew: Crew, raw: Raw, change: object) -> None:
    keys = QueueKeys(crew.prefix, "work")
    older = await crew.worker()
    async with crew.app() as app:
        await app.queue("work").pause()
        job = await app.report.enqueue(1, 0.0)
        record = raw("HGET", keys["jobs"], job.id)
        newer = change(record)  # type: ignore[operator]  # one of the functions above
        raw("HSET", keys["jobs"], job.id, newer)
        await app.queue("work").resume()
        await older.says.until("log", message="jobs are left to other workers")
        await app.step.enqueue(2)
        await crew.journal.until("end", number=2)

        seen = dump_queue(raw, crew.prefix, "work")
        assert seen.jobs[job.id.encode()] == newer
        assert (await job.refresh()).status is JobStatus.DELAYED
        raw("HSET", keys["jobs"], job.id, record)
        _, attempt, _ = await job.result(timeout=15.0)
        await crew.journal.until("end", 2)

    assert attempt == 1
    assert [entry["number"] for entry in crew.journal("start")] == [2, 1]

    # Red when: record.py takes a record of a higher version, or with flags it does not know, for a malformed one.
