"""Keep jobs that failed for good, look at them, and put them back when the cause is repaired.

Prints::

    dead letters: 3
    mail from queue 'mail': SMTPServerDisconnected: no route
    put back: 3
    dead letters: 0, delivered: ann, bob, cat
"""

import asyncio
import smtplib
import tempfile

from headrace import Fixed, Headrace

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})
network = {"up": False}
delivered: list[str] = []


@app.task(name="mail", queue="mail", attempts=2, backoff=Fixed(0.0), dead_letter="mail-dead")
async def send_mail(to: str) -> None:
    if not network["up"]:
        raise smtplib.SMTPServerDisconnected("no route")
    delivered.append(to)


async def main() -> None:
    async with app:
        await send_mail.enqueue_many([((to,),) for to in ("ann", "bob", "cat")])
        await app.worker(burst=True).run()

        # Several queues may share a dead-letter queue; each job knows where it came from.
        letters = app.queue("mail-dead")
        print(f"dead letters: {(await letters.stats()).failed}")
        job = (await letters.jobs("failed")).jobs[0]
        await job.refresh()
        if job.details is not None:
            failure = job.failures[-1]
            error = failure.error.rpartition(".")[2]
            print(f"{job.task} from queue '{job.details.origin}': {error}: {failure.message}")

        # The same from the command line: `headrace queues retry mail`.
        network["up"] = True
        print(f"put back: {await app.queue('mail').retry_failed()}")
        await app.worker(concurrency=1, burst=True).run()
        print(f"dead letters: {(await letters.stats()).failed}, delivered: {', '.join(sorted(delivered))}")


if __name__ == "__main__":
    asyncio.run(main())
