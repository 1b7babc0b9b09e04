"""What a job comes to is the same inline and with a real worker on a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed, Headrace, Retry, current_job, resource
from headrace.errors import JobCancelled, JobFailed, JobNotFound
from headrace.testing import connected, inline, run_until_idle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from headrace import Job


@dataclasses.dataclass
class Order:
    number: int
    tags: tuple[str, ...] = ()


async def results(app: Headrace) -> list[Job[Any]]:
    @app.task(name="order")
    async def order(one: Order, *, rest: dict[str, int] | None = None) -> tuple[Order, Any]:
        return Order(one.number + 1, one.tags), rest

    @app.task(name="plain")
    def plain(*numbers: float) -> float:
        return sum(numbers)

    @app.task(name="none")
    async def none() -> None: ...

    return [
        await order.enqueue(Order(1, ("a",)), rest={"x": 1}),
        await plain.enqueue(1, 2.5),
        await none.enqueue(),
        *await plain.enqueue_many([((1,),), ((),)]),
    ]


async def attempts(app: Headrace) -> list[Job[Any]]:
    @app.task(name="flaky", attempts=3, backoff=Fixed(0.0))
    async def flaky(failures: int) -> int:
        if current_job().attempt <= failures:
            raise OSError(f"attempt {current_job().attempt}")
        return current_job().attempt

    @app.task(name="asks", attempts=2)
    async def asks() -> str:
        if current_job().attempt == 1:
            raise Retry(after=0.0, reason="later")
        return "now"

    @app.task(name="final", attempts=5, retry_on=OSError)
    async def final() -> None:
        raise ValueError("no use")

    @app.task(name="old", attempts=100, backoff=Fixed(3000.0), max_age=1000.0)
    async def old() -> None:
        raise OSError

    return [
        *[await flaky.enqueue(failures) for failures in (0, 1, 2, 3)],
        *(await asks.enqueue(), await final.enqueue(), await old.enqueue()),
        await flaky.using(attempts=1).enqueue(1),
    ]


async def ends(app: Headrace) -> list[Job[Any]]:
    @app.task(name="slow", attempts=1, timeout=0.02)
    async def slow() -> None:
        await asyncio.sleep(30)

    @app.task(name="odd", attempts=1)
    async def odd() -> object:
        return object()

    @app.task(name="leaves", attempts=1)
    def leaves() -> None:
        raise SystemExit(3)

    @app.task(name="stops", attempts=1)
    async def stops() -> None:
        raise StopAsyncIteration

    @app.task(name="cancels", attempts=1)
    async def cancels() -> None:
        raise asyncio.CancelledError

    return [await task.enqueue() for task in (slow, odd, leaves, stops, cancels)]


async def letters(app: Headrace) -> list[Job[Any]]:
    @app.task(name="mail", attempts=1, dead_letter="mail-dead")
    async def mail() -> None:
        raise OSError

    return [await mail.enqueue(), await mail.using(queue="bulk").enqueue()]


async def followers(app: Headrace) -> list[Job[Any]]:
    ids: list[str] = []

    @app.task(name="after")
    async def after(number: int) -> int:
        return number

    @app.task(name="first", attempts=2, backoff=Fixed(0.0))
    async def first() -> str:
        ids.append(current_job().follow(after, current_job().attempt))
        if current_job().attempt == 1:
            raise OSError
        return "done"

    return [await first.enqueue()]


async def layers(app: Headrace) -> list[Job[Any]]:
    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        yield {"db": "database"}

    @app.middleware
    class Refuse:
        @staticmethod
        async def before(job: Any) -> None:
            if job.task == "refused":
                raise PermissionError("not today")

    @app.task(name="uses", attempts=1)
    async def uses(db: str = resource()) -> str:
        return db

    @app.task(name="refused", attempts=1)
    def refused() -> None: ...

    return [await uses.enqueue(), await refused.enqueue()]


async def keys(app: Headrace) -> list[Job[Any]]:
    @app.task(name="once", attempts=1)
    async def once(fails: bool = False) -> str:  # noqa: FBT001, FBT002 - an argument of a job
        if fails:
            raise OSError
        return current_job().id

    jobs = [await once.using(key="k").enqueue(fails=True)]
    await run_until_idle_or_inline(app)
    jobs.append(await once.using(key="k").enqueue())
    await run_until_idle_or_inline(app)
    return [*jobs, await once.using(key="k").enqueue()]


async def cancelled(app: Headrace) -> list[Job[Any]]:
    @app.task(name="work")
    async def work() -> str:
        return "done"

    await app.queue("default").pause()
    jobs = [await work.enqueue() for _ in range(3)]
    assert [await job.cancel() for job in jobs[:2]] == [True, True]
    assert await jobs[0].retry() is True
    await app.queue("default").resume()
    return jobs


async def processes(app: Headrace) -> list[Job[Any]]:
    # What a child process does not survive ends this one as well, so only what it does is compared.
    floor: Any = app.task(name="floor", process=True)(math.floor)
    return [await floor.enqueue(5.5)]


async def run_until_idle_or_inline(app: Headrace) -> None:
    if not isinstance(app._session, _inline_session):
        await run_until_idle(app)


_inline_session = __import__("headrace.testing.inline_session", fromlist=["InlineSession"]).InlineSession


async def outcome(job: Job[Any]) -> tuple[Any, ...]:
    """Tell what became of a job."""
    try:
        result = await job.result(timeout=5.0)
    except (JobFailed, JobCancelled, JobNotFound) as error:
        result = type(error)
    await job.refresh()
    if job.id == result:
        result = "its id"
    return job.task, job.status, job.attempts, result, [failure.error for failure in job.failures]


async def look(app: Headrace, scenario: Callable[[Headrace], Awaitable[list[Job[Any]]]]) -> dict[str, Any]:
    """Play a scenario and tell everything that a user can see of it."""
    events: list[tuple[Any, ...]] = []
    app.subscribe("job.*", lambda event: events.append((event.name, event.fields["task"], event.fields["attempt"])))
    jobs = await scenario(app)
    await run_until_idle_or_inline(app)
    outcomes = [await outcome(job) for job in jobs]
    stats = {queue.name: await queue.stats() for queue in await app.queues()}
    counts = {
        name: (one.completed, one.failed, one.cancelled, one.waiting, one.delayed, one.retried)
        for name, one in stats.items()
    }
    return {"outcomes": outcomes, "counts": counts, "events": sorted(events)}


@pytest.mark.parametrize("scenario", [results, attempts, ends, letters, followers, layers, keys, cancelled, processes])
async def test_a_job_comes_to_the_same_inline_and_with_a_worker(
    scenario: Callable[[Headrace], Awaitable[list[Job[Any]]]],
) -> None:
    one, other = Headrace(), Headrace()

    with inline(one):
        inside = await look(one, scenario)
    async with connected(other):
        outside = await look(other, scenario)

    assert inside == outside
    assert one.census() == other.census() == []
