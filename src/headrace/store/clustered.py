"""The store of a cluster: what one call does on one server takes one call for each slot here.

Everything about one queue stays one call, since all keys of a queue are in one slot. What differs: several queues are
surveyed by slot, and the dead that a dead-letter queue takes lie in a `Box`, in the slot of their own queue.
Whoever asks for the dead of a queue gets those of its boxes too.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from headrace.errors import ConnectionLost
from headrace.keys import QueueKeys
from headrace.resp import pack_command
from headrace.store import replies
from headrace.store.box import Box, slot_of
from headrace.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.record import State
    from headrace.store.store import Client


class ClusterStore(Store):
    """Send the transitions of queues of a cluster; the client parts what it is given by node."""

    clustered = True

    def slot_groups(self, queues: Sequence[str]) -> list[list[str]]:
        """Part queues by slot."""
        groups: dict[int, list[str]] = {}
        for queue in queues:
            groups.setdefault(slot_of(queue), []).append(queue)
        return list(groups.values())

    def letter_place(self, queue: str, letter: str) -> str:
        """Return the box of a queue's dead that another queue takes."""
        return letter if letter == queue or isinstance(letter, Box) else Box(letter, queue)

    def pack_sources(self, queue: str, letters: Sequence[str]) -> list[bytes]:
        """Pack what notes with dead-letter queues that they take the dead of a queue."""
        keys = [QueueKeys(self.prefix, letter)["sources"] for letter in letters if letter != queue]
        return [pack_command("SADD", key, queue) for key in keys]

    async def survey(self, client: Client, queues: Sequence[str]) -> tuple[int, int, list[int]]:
        """Look at many queues, a call each slot; what a node that is away would say is left to the next survey."""
        groups = self.slot_groups(queues)
        answers = await self.run(client, [self.pack_survey(group) for group in groups])
        now, first, hot = 0, 0, list[int]()
        for group, answer in zip(groups, answers, strict=True):
            if not isinstance(answer, ConnectionLost):
                replies.refuse(answer, "survey", self._where)
                now, event = max(now, answer[0]), answer[1]
                first = min(first or event, event or first)
                hot += [queues.index(group[index]) for index in answer[2:]]
        return now, first, hot

    # The dead of a queue, its own and those in its boxes

    async def boxes(self, client: Client, queue: str) -> list[Box]:
        """Return the boxes of a dead-letter queue, one for each queue whose dead it takes."""
        if isinstance(queue, Box):
            return []
        key = QueueKeys(self.prefix, queue)["sources"]
        found = await self.call(client, pack_command("SMEMBERS", key), "SMEMBERS")
        return [Box(queue, source.decode()) for source in sorted(found)]

    async def find(self, client: Client, queue: str, job_id: str) -> replies.Found:
        """Return everything that is known of one job; its status is 'missing' when nothing is."""
        found = await super().find(client, queue, job_id)
        if found.status == "missing":
            for box in await self.boxes(client, queue):
                other = await super().find(client, box, job_id)
                if other.status != "missing":
                    return other
        return found

    async def cancel(self, client: Client, queue: str, job_id: str) -> str:
        """Cancel a job; a dead one that another queue took is 'failed'."""
        status = await super().cancel(client, queue, job_id)
        if status == "missing" and await self.boxes(client, queue):
            return (await self.find(client, queue, job_id)).status
        return status

    async def states(self, client: Client, queue: str, ids: Sequence[str | bytes]) -> list[State]:
        """Return the counts of up to 1,000 jobs."""
        found = await super().states(client, queue, ids)
        for box in await self.boxes(client, queue):
            others = await super().states(client, box, ids)
            found = [other if other.origin else state for state, other in zip(found, others, strict=True)]
        return found

    async def stats(self, client: Client, queue: str) -> replies.Counts:
        """Return the counts of a queue."""
        counts = await super().stats(client, queue)
        dead = [await self._count_dead(client, box) for box in await self.boxes(client, queue)]
        return dataclasses.replace(counts, dead=counts.dead + sum(dead))

    async def totals(self, client: Client, queues: Sequence[str]) -> list[replies.Counts | Exception]:
        """Return the counts of many queues; two more round trips ask for the boxes, and for the dead in them."""
        counts = await super().totals(client, queues)
        asked = [pack_command("SMEMBERS", QueueKeys(self.prefix, queue)["sources"]) for queue in queues]
        if not asked:
            return []
        found = await self.run(client, asked)
        boxes = [
            (index, Box(queues[index], source.decode()))
            for index, sources in enumerate(found)
            for source in (() if isinstance(sources, Exception) else sources)
        ]
        if boxes:
            asked = [pack_command("ZCARD", self.queue(box).keys["dead"]) for _, box in boxes]
            for (index, _), dead in zip(boxes, await self.run(client, asked), strict=True):
                one = counts[index]
                if isinstance(dead, int) and not isinstance(one, Exception):
                    counts[index] = dataclasses.replace(one, dead=one.dead + dead)
        return counts

    async def clear(self, client: Client, queue: str, status: str, limit: int) -> int:
        """Delete one page of jobs of one status; 0 when none is left."""
        deleted = await super().clear(client, queue, status, limit)
        if not deleted and status == "failed":
            for box in await self.boxes(client, queue):
                deleted = await super().clear(client, box, status, limit)
                if deleted:
                    break
        return deleted

    async def list_ids(self, client: Client, queue: str, status: str, cursor: str, limit: int) -> tuple[str, Any]:
        """Return the next cursor ('0' at the end) and one page of ids; the dead of the boxes come after its own."""
        boxes = await self.boxes(client, queue) if status == "failed" else []
        if not boxes:
            return await super().list_ids(client, queue, status, cursor, limit)
        first = skip = int(cursor)
        ids: list[bytes] = []
        for place in (queue, *boxes):
            count = await self._count_dead(client, place)
            if skip < count and len(ids) < limit:
                _, some = await super().list_ids(client, place, status, str(skip), limit - len(ids))
                ids += some
            skip = max(0, skip - count)
        return str(first + len(ids)) if len(ids) == limit else "0", ids

    async def _count_dead(self, client: Client, place: str) -> int:
        return int(await self.call(client, pack_command("ZCARD", self.queue(place).keys["dead"]), "ZCARD"))
