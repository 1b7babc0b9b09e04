"""Agree with the server about what a worker holds, after a reply was lost or a server has taken over from another."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headrace.errors import CommandRefused, ConnectionLost

if TYPE_CHECKING:
    from headrace.store.store import Client, Store
    from headrace.worker.refusals import Refusals
    from headrace.worker.served import Served

logger = logging.getLogger(__name__)


async def reconcile(served: Served, store: Store, client: Client, refusals: Refusals) -> bool:
    """Hand back what the server believes this worker to hold and it does not: the reply that said so was lost.

    Args:
        served: The queue.
        store: Sends the question.
        client: The jobs lane.
        refusals: Told when the answer did not come, so that the queue is left alone for a moment.

    Returns:
        Whether the server is there to settle what has ended, whatever it answered.

    Raises:
        ConnectionLost: The one server is away; of a cluster, only the node of this queue may be.
    """
    try:
        mine = await store.mine(client, served.name, served.worker)
    except CommandRefused as error:
        logger.warning("cannot compare holds yet", extra={"queue": served.name, "reason": str(error)[:300]})
        refusals.leave_alone(served)
        return True
    except ConnectionLost as error:
        if not store.clustered:
            raise
        refusals.take(served, "mine", error)
        return False
    served.hand_back_unknown(mine)
    served.reconcile = False
    return True
