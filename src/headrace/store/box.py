"""Dead letters in a cluster: they stay in the slot of the queue that they come from.

A dead-letter queue has a hash tag of its own, and no call reaches keys of two slots. So that a job still dies, and
comes back, in one atomic step, the dead of queue `q` that queue `l` takes lie in a *box*: keys like those of a queue,
with the tag of `q`. A box stands wherever a queue's name stands in the store; who looks at `l` looks into its boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from redis.crc import key_slot

from headrace.keys import QueueKeys


class Box(str):
    """Name of the dead that a dead-letter queue takes from one queue; no name of a queue is like it.

    Example:
        >>> box = Box("mail-dead", "mail")
        >>> box, box.letter, box.source
        ('mail-dead{mail}', 'mail-dead', 'mail')
    """

    __slots__ = ("letter", "source")

    letter: str
    source: str

    def __new__(cls, letter: str, source: str) -> Self:
        """Name the dead that `letter` takes from `source`."""
        box = super().__new__(cls, f"{letter}{{{source}}}")
        box.letter = letter
        box.source = source
        return box


@dataclass(frozen=True, slots=True)
class BoxKeys(QueueKeys):
    """The keys of a box: `p:{q}:letter:L:...`, in the slot of the queue that the dead come from.

    Example:
        >>> BoxKeys("p", Box("mail-dead", "mail"))["dead"]
        'p:{mail}:letter:mail-dead:dead'
    """

    queue: Box

    def _key(self, part: str) -> str:
        return f"{self.prefix}:{{{self.queue.source}}}:letter:{self.queue.letter}:{part}"


def keys_of(prefix: str, queue: str) -> QueueKeys:
    """Return the keys of a queue, or of a box."""
    return BoxKeys(prefix, queue) if isinstance(queue, Box) else QueueKeys(prefix, queue)


def slot_of(queue: str) -> int:
    """Return the slot of the keys of a queue in a cluster.

    Example:
        >>> slot_of("mail"), slot_of("bulk")
        (4247, 5320)
    """
    return key_slot(queue.encode())
