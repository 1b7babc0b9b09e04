"""Enqueue from code without an event loop, such as a Django or Flask view; run plain functions in threads.

Prints::

    enqueued from a plain function: 3 jobs
    ANN
    BOB
    CAT
    in a thread: True
"""

import asyncio
import tempfile
import threading

from headrace import Headrace, Job

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})
threads: set[str] = set()


# A plain def runs in a thread of the worker, so that it may block.
@app.task
def shout(text: str) -> str:
    threads.add(threading.current_thread().name)
    return text.upper()


def view() -> list[Job[str]]:
    """Enqueue without await; the app need not be open."""
    return [shout.enqueue_sync(text) for text in ("Ann", "Bob", "Cat")]


async def work_off(jobs: list[Job[str]]) -> list[str]:
    async with app:
        await app.worker(burst=True).run()
        return [await job.result(timeout=10) for job in jobs]


def main() -> None:
    jobs = view()
    print(f"enqueued from a plain function: {len(jobs)} jobs")
    print("\n".join(asyncio.run(work_off(jobs))))
    print(f"in a thread: {threading.main_thread().name not in threads}")
    app.close_sync()


if __name__ == "__main__":
    main()
