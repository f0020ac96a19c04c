"""Keeps the log in order: partitions made ahead, logs of ended turns compacted, what is old dropped.

Every replica tries; an advisory lock lets one of them do it. Nothing here is in anybody's way: a partition is there
months before it is needed, and a reader finds the same events under the same numbers before and after a compaction.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.api import operations
from services.api.metrics import COMPACTED
from services.api.operations import Answer
from services.api.store import Store
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable

COMPACT_SECONDS = 5.0
PARTITION_SECONDS = 3600.0
MONTHS_AHEAD = 3


class LogKeeper:
    """Keeps the log in order.

    Args:
        store: Where the log is.
        retention: How long the events of a turn are kept after it was made.
        answer_of: Makes the agent's message out of the events, which outlives them.
    """

    def __init__(self, store: Store, retention: timedelta, answer_of: Answer) -> None:
        self._store = store
        self._retention = retention
        self._answer_of = answer_of

    async def run(self) -> None:
        """Keep the log in order for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_every(PARTITION_SECONDS, self.renew_partitions))
            tasks.create_task(_every(COMPACT_SECONDS, self.compact))

    async def renew_partitions(self) -> None:
        """Make the partitions of the coming months, and drop those that are too old."""
        made, dropped = await operations.renew_partitions(self._store, MONTHS_AHEAD, self._retention)
        if made or dropped:
            telemetry.log().info("partitions renewed", made=made, dropped=dropped)

    async def compact(self) -> None:
        """Compact the log of every turn that has ended."""
        while await operations.compact_one(self._store, self._answer_of):
            COMPACTED.inc()


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again. A database that is away, or a fault, only delays it."""
    while True:
        pause = seconds
        try:
            await work()
        except ServiceUnavailable as error:
            telemetry.log().warning("the log is kept later", cause=str(error))
            pause = min(seconds, COMPACT_SECONDS)
        except Exception as error:  # noqa: BLE001 - the loop has to go on, whatever it met
            telemetry.log().error("the log is kept later", exc_info=error)
        await asyncio.sleep(pause)
