"""The only place that sends queue commands: one method per transition, each one script on one queue.

Methods that a worker batches into one round trip are split into `pack_...` (bytes of the call) and the reply types of
`replies.py`; the rest take a client and return what became of it. A client is anything that carries packed commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import OptionError
from headrace.keys import QueueKeys, queues_key, workers_key
from headrace.record import State, read_state
from headrace.resp import pack_command
from headrace.store import replies
from headrace.store.box import Box, keys_of
from headrace.store.script import PreparedScript, load_scripts

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Jobs in one call of enqueue; larger batches are sent as several calls in one round trip.
ENQUEUE_CALL_JOBS = 1_000
#: Queues whose packed calls are remembered; the longest unused one is forgotten first.
MAX_PREPARED_QUEUES = 10_000
#: What the calls of one queue take at most, once all of them were used, bytes.
PREPARED_BYTES = 8_192
#: Times that scripts are loaded for one call: in a cluster each node on its way may lack them.
LOAD_ATTEMPTS = 3
#: Waiting jobs of one priority that are compared to tell how many come before a job.
RANK_JOBS = 10_000


class Client(Protocol):
    """Carries packed commands to the server and returns their replies in order; error replies stand in the list."""

    async def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        """Send `count` packed commands; raises ConnectionLost when not all replies came."""
        ...


class SyncClient(Protocol):
    """Does what a `Client` does, from synchronous code."""

    def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        """Send `count` packed commands; raises ConnectionLost when not all replies came."""
        ...


class QueueCalls:
    """The scripts of one queue, packed; `letter` is the queue that takes its dead, itself without another."""

    __slots__ = ("_prepared", "keys", "letter", "names", "wake")

    def __init__(self, prefix: str, queue: str, letter: str | None) -> None:
        self.keys = keys_of(prefix, queue)
        self.letter = keys_of(prefix, letter or queue)
        self.wake = self.keys.wake.encode()
        self._prepared: dict[str, PreparedScript] = {}

    def __getitem__(self, name: str) -> PreparedScript:
        """Return one script on the keys of this queue."""
        prepared = self._prepared.get(name)
        if prepared is None:
            script = load_scripts()[name]
            keys = [
                self.letter[key.removeprefix("letter_")] if key.startswith("letter_") else self.keys[key]
                for key in script.key_names
            ]
            prepared = self._prepared[name] = PreparedScript(script, keys)
        return prepared


class Store:
    """Send the transitions of queues below one key prefix.

    Args:
        prefix: What all keys start with.
        where: How the server is called in errors.
        keep_count: Cancelled jobs kept of a queue at most.
        keep: How long they are kept, seconds.
    """

    #: Whether the server is a cluster, where one call reaches the keys of one slot: see `headrace.store.clustered`.
    clustered = False

    def __init__(
        self,
        prefix: str,
        *,
        where: str,
        keep_count: int = 10_000,
        keep: float = 604_800.0,
    ) -> None:
        self.prefix = prefix
        self.keep(keep_count, keep)
        self._where = where
        self._queues: dict[tuple[str, str | None], QueueCalls] = {}

    def queue(self, name: str, letter: str | None = None) -> QueueCalls:
        """Return the packed calls of a queue; `letter` is the queue that takes its dead.

        Raises:
            OptionError: The name is empty, too long or holds a brace or white space.
        """
        if letter is not None:
            letter = self.letter_place(name, letter)
        calls = self._queues.get((name, letter))
        if calls is None:
            for each in (name, letter or name):
                if not isinstance(each, Box):
                    check_queue_name(each)
            if len(self._queues) >= MAX_PREPARED_QUEUES:
                del self._queues[next(iter(self._queues))]
            calls = self._queues[name, letter] = QueueCalls(self.prefix, name, letter)
        return calls

    @property
    def prepared(self) -> int:
        """Queues whose calls are kept packed, at most 10,000."""
        return len(self._queues)

    def forget_prepared(self) -> None:
        """Let go of the packed calls; they are packed anew when they are used."""
        self._queues.clear()

    def keep(self, count: int, seconds: float) -> None:
        """Take another bound for the cancelled jobs that are kept of a queue: how many, and how long."""
        self._keep = (count, round(seconds * 1000))

    async def run(self, client: Client, payloads: Sequence[bytes]) -> list[Any]:
        """Send packed script calls in one round trip, loading the scripts when the server does not know them.

        Returns:
            One reply a payload; an error reply stands as an exception in its place.

        Raises:
            ConnectionLost: The connection broke; which calls took effect is unknown.
        """
        answers = await client.roundtrip(b"".join(payloads), len(payloads))
        for _ in range(LOAD_ATTEMPTS):
            missing = _missing_scripts(answers)
            if not missing:
                break
            again, loads = _with_loads(payloads, missing)
            late = await client.roundtrip(b"".join(again), len(again))
            _fill(answers, missing, late[loads:])
        return answers

    def run_sync(self, client: SyncClient, payloads: Sequence[bytes]) -> list[Any]:
        """Do what `run` does, from synchronous code."""
        answers = client.roundtrip(b"".join(payloads), len(payloads))
        for _ in range(LOAD_ATTEMPTS):
            missing = _missing_scripts(answers)
            if not missing:
                break
            again, loads = _with_loads(payloads, missing)
            _fill(answers, missing, client.roundtrip(b"".join(again), len(again))[loads:])
        return answers

    async def call(self, client: Client, payload: bytes, what: str) -> Any:
        """Send one packed script call and return its reply; raises CommandRefused on an error reply."""
        (reply,) = await self.run(client, (payload,))
        replies.refuse(reply, what, self._where)
        return reply

    # Transitions

    def pack_enqueue(
        self,
        queue: str,
        priority: int,
        delay_ms: int,
        batch: Sequence[str | bytes],
        *,
        unique_key: str = "",
        resent: bool,
    ) -> list[bytes]:
        """Pack the calls that accept jobs; `batch` is id, body, id, body ...; a call takes `ENQUEUE_CALL_JOBS` jobs."""
        script = self.queue(queue)["enqueue"]
        step = 2 * ENQUEUE_CALL_JOBS
        head = (priority, delay_ms, unique_key, int(resent))
        return [script.pack((*head, *batch[at : at + step])) for at in range(0, len(batch), step)]

    def pack_reserve(self, calls: QueueCalls, worker: str, lease_ms: int, start: int, prefetch: int) -> bytes:
        """Pack the lease of up to `start` jobs that are run at once and `prefetch` that are only held."""
        return calls["reserve"].pack((worker, lease_ms, start, prefetch))

    def pack_renew(self, calls: QueueCalls, worker: str, lease_ms: int) -> bytes:
        """Pack the extension of a worker's lease."""
        return calls["renew"].pack((worker, lease_ms))

    async def reclaim(self, client: Client, queue: str, max_stalled: int) -> list[replies.Reclaimed]:
        """Take the jobs of all workers of a queue whose lease ran out back to their lists.

        Returns:
            One entry a page; the last one names no worker and holds the next lease deadline. At most 1,000 pages.
        """
        script = self.queue(queue)["reclaim"]
        pages: list[replies.Reclaimed] = []
        worker, cursor = "", "0"
        while len(pages) < 1_000:  # noqa: PLR2004 - half a million holds
            reply = await self.call(client, script.pack((worker, cursor, max_stalled)), "reclaim")
            page = replies.Reclaimed(reply[0].decode(), reply[1].decode(), *reply[2:])
            pages.append(page)
            if not page.worker:
                break
            worker, cursor = (page.worker, page.cursor) if page.cursor != "0" else ("", "0")
        return pages

    async def promote(self, client: Client, queue: str) -> replies.Promoted:
        """Move due jobs to their lists and wake a worker for jobs that wait without one."""
        reply = await self.call(client, self.queue(queue)["promote"].pack(()), "promote")
        moved, now, due, lease, waiting = reply
        return replies.Promoted(moved, now, due, lease, waiting == 1)

    async def hasten(self, client: Client, queue: str) -> int:
        """Let all delayed jobs of a queue be due now, in their order; returns how many were, up to a million."""
        key = self.queue(queue).keys["delayed"]
        total = 0
        for _ in range(1_000):
            page = await self.call(client, pack_command("ZRANGE", key, 0, 999, "WITHSCORES"), "ZRANGE")
            if not page:
                break
            fields: list[Any] = []
            for rank, (job_id, score) in enumerate(page, 1):
                # Why: a due time that is long past, and the low five bits, which order by priority (see enqueue.lua).
                fields += (rank * 32 + int(score) % 32, job_id)
            # XX: a job that is not delayed any more stays where it is.
            await self.call(client, pack_command("ZADD", key, "XX", *fields), "ZADD")
            total += len(page)
            await self.promote(client, queue)
        return total

    async def survey(self, client: Client, queues: Sequence[str]) -> tuple[int, int, list[int]]:
        """Look at many queues at once; returns now, the earliest event (ms, 0: none), indexes with something to do."""
        reply = await self.call(client, self.pack_survey(queues), "survey")
        return reply[0], reply[1], reply[2:]

    def pack_survey(self, queues: Sequence[str]) -> bytes:
        """Pack the look at queues whose keys one call reaches."""
        names = ("levels", "delayed", "leases")
        keys = [QueueKeys(self.prefix, queue)[name] for queue in queues for name in names]
        return PreparedScript(load_scripts()["survey"], keys).pack(())

    async def mine(self, client: Client, queue: str, worker: str) -> dict[bytes, bytes]:
        """Return id -> hold of all that the server believes the worker to hold; at most 1,000 pages."""
        script = self.queue(queue)["mine"]
        cursor = "0"
        found: dict[bytes, bytes] = {}
        for _ in range(1_000):
            page, pairs = await self.call(client, script.pack((worker, cursor)), "mine")
            found.update(zip(pairs[::2], pairs[1::2], strict=True))
            cursor = page.decode()
            if cursor == "0":
                break
        return found

    async def report(self, client: Client, queue: str, job_id: str, hold: bytes, note: bytes) -> bool:
        """Note the progress of a held job; False when the hold is not the current one."""
        reply = await self.call(client, self.queue(queue)["report"].pack((job_id, hold, note)), "report")
        return bool(reply == 1)

    async def watch(self, client: Client, queue: str, job_id: str, inbox: str, *, enter: bool) -> tuple[str, bytes]:
        """Return the status and outcome of a job, and enter (or take out) an inbox while it is pending."""
        payload = self.queue(queue)["watch"].pack((job_id, inbox, int(enter)))
        status, outcome = await self.call(client, payload, "watch")
        return status.decode(), outcome

    async def find(self, client: Client, queue: str, job_id: str) -> replies.Found:
        """Return everything that is known of one job; its status is 'missing' when nothing is."""
        return replies.parse_found(await self.call(client, self.queue(queue)["find"].pack((job_id,)), "find"))

    async def log_lines(self, client: Client, queue: str, job_id: str) -> list[str]:
        """Return the log lines of a job, the oldest first; they are bounded and expire."""
        reply = await self.call(client, pack_command("LRANGE", self.queue(queue).keys.log(job_id), 0, -1), "LRANGE")
        return [line.decode("utf-8", "replace") for line in reply]

    async def count_ahead(self, client: Client, queue: str, job_id: str, priority: int) -> tuple[int, bool]:
        """Return how many jobs come before a waiting one, and whether there may be more: only so many are compared."""
        payload = self.queue(queue)["rank"].pack((job_id, priority, RANK_JOBS))
        ahead, more = await self.call(client, payload, "rank")
        return ahead, more == 1

    async def workers(self, client: Client) -> dict[str, replies.WorkerFacts]:
        """Return the registry of workers: those that run, and those that were lost within the last hours."""
        return replies.parse_workers(
            await self.call(client, pack_command("HGETALL", workers_key(self.prefix)), "HGETALL")
        )

    async def cancel(self, client: Client, queue: str, job_id: str) -> str:
        """Cancel a job; returns cancelled, asked (it runs), or the status it already had."""
        calls = self.queue(queue)
        reply = await self.call(client, calls["cancel"].pack((job_id, calls.keys.control, *self._keep)), "cancel")
        return str(reply.decode())

    async def retry(self, client: Client, queue: str, ids: Sequence[str | bytes], letter: str | None = None) -> int:
        """Put up to 1,000 dead or cancelled jobs back; returns how many there were."""
        return int(await self.call(client, self.queue(queue, letter)["retry"].pack(tuple(ids)), "retry"))

    async def states(self, client: Client, queue: str, ids: Sequence[str | bytes]) -> list[State]:
        """Return the counts of up to 1,000 jobs."""
        reply = await self.call(client, pack_command("HMGET", self.queue(queue).keys["state"], *ids), "HMGET")
        return [read_state(text) for text in reply]

    async def cancels(self, client: Client, queue: str) -> list[bytes]:
        """Return the ids of active jobs whose cancellation was asked for; there are no more than active jobs."""
        reply = await self.call(client, pack_command("SMEMBERS", self.queue(queue).keys["cancels"]), "SMEMBERS")
        return list(reply)

    async def pause(self, client: Client, queue: str, *, paused: bool) -> bool:
        """Pause or resume a queue; False when it already was."""
        calls = self.queue(queue)
        return bool(await self.call(client, calls["pause"].pack((int(paused), calls.keys.control)), "pause"))

    async def clear(self, client: Client, queue: str, status: str, limit: int) -> int:
        """Delete one page of jobs of one status; 0 when none is left."""
        return int(await self.call(client, self.queue(queue)["clear"].pack((status, limit)), "clear"))

    async def list_ids(self, client: Client, queue: str, status: str, cursor: str, limit: int) -> tuple[str, Any]:
        """Return the next cursor ('0' at the end) and one page of ids."""
        page, ids = await self.call(client, self.queue(queue)["list"].pack((status, cursor, limit)), "list")
        return page.decode(), ids

    async def stats(self, client: Client, queue: str) -> replies.Counts:
        """Return the counts of a queue."""
        return replies.parse_counts(await self.call(client, self.queue(queue)["stats"].pack((1,)), "stats"))

    async def totals(self, client: Client, queues: Sequence[str]) -> list[replies.Counts | Exception]:
        """Return the counts of many queues, without those of minutes, in one round trip; an error in its place."""
        if not queues:
            # Why: no replies to nothing would be waited for.
            return []
        answers = await self.run(client, [self.queue(queue)["stats"].pack((0,)) for queue in queues])
        return [answer if isinstance(answer, Exception) else replies.parse_counts(answer) for answer in answers]

    async def queue_names(self, client: Client) -> list[str]:
        """Return the names of all queues that were ever used, sorted; what no queue can have as a name is left out."""
        reply = await self.call(client, pack_command("SMEMBERS", queues_key(self.prefix)), "SMEMBERS")
        # Why: what somebody else wrote among them must not keep anybody from looking at the queues.
        names = (member.decode("utf-8", "surrogateescape") for member in reply)
        return sorted(name for name in names if is_queue_name(name))

    # What a cluster does otherwise

    def slot_groups(self, queues: Sequence[str]) -> list[list[str]]:
        """Part queues into those that one call reaches together: all of them on one server."""
        return [list(queues)]

    def letter_place(self, queue: str, letter: str) -> str:  # noqa: ARG002 - a cluster needs to know the queue
        """Return where the dead of a queue lie that a dead-letter queue takes."""
        return letter

    def pack_sources(self, queue: str, letters: Sequence[str]) -> list[bytes]:  # noqa: ARG002 - as above
        """Pack what notes with dead-letter queues whose dead they take: nothing on one server."""
        return []


def is_queue_name(name: object) -> bool:
    r"""Tell whether a queue may have this name; see `check_queue_name`.

    Example:
        >>> [is_queue_name(name) for name in ("mail", "a b", "{mail}", "\x1b[31m", "", b"mail")]
        [True, False, False, False, False, False]
    """
    # The space is the only white space that can be printed.
    fits = isinstance(name, str) and 0 < len(name) <= 100  # noqa: PLR2004 - as it says there
    return fits and str(name).isprintable() and not {*"{} "} & {*str(name)}


def check_queue_name(name: object) -> None:
    """Refuse a queue name that cannot be a hash tag.

    Raises:
        OptionError: The name is no text, empty, longer than 100 characters, or holds braces, white space or control
            characters.
    """
    if not is_queue_name(name):
        text = f"queue name {name!r}: expected 1 to 100 printable characters without white space and braces"
        raise OptionError(text + ". Rename the queue.")


def _missing_scripts(answers: Sequence[Any]) -> list[int]:
    return [at for at, answer in enumerate(answers) if getattr(answer, "code", "") == "NOSCRIPT"]


def _with_loads(payloads: Sequence[bytes], missing: Sequence[int]) -> tuple[list[bytes], int]:
    # Why: a script that was not there did nothing, so only its own call is sent again, once, behind the load.
    loads = [pack_command("SCRIPT", "LOAD", script.source) for script in load_scripts().values()]
    return [*loads, *(payloads[at] for at in missing)], len(loads)


def _fill(answers: list[Any], places: Sequence[int], late: Sequence[Any]) -> None:
    for at, answer in zip(places, late, strict=True):
        answers[at] = answer
