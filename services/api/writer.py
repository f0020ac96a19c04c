"""Writing a log: events go to the disk in batches, and to the readers when they are there.

The first event of a quiet log is written immediately; then one commit takes all that has gathered since, which is what
makes one row hold many deltas. An ending does not wait for others. No reader is shown what a crash could take back: who
had seen it would find another event under its number.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from services.api import operations
from services.api.feed import Feed
from services.api.metrics import APPENDED, FLUSH_TIME, FLUSHED
from services.api.neighbours import Neighbours
from services.api.store import Store
from services.api.turn import Event, LeaseLost, Turn, TurnEnded
from services.kit.tenancy import as_tenant

FLUSH_SECONDS = 0.02
"""How long events gather between two commits. Readers wait for it, but at 50 events a second none has to."""
MAX_PENDING = 5_000
"""How many events may wait for the disk before the writer is made to wait, too."""


@dataclass(frozen=True)
class Durable:
    """How far the log is on disk, and whether its user wants the turn to stop."""

    sequence: int
    abort_requested: bool


class LogWriter:
    """The writing end of one turn's log, for one worker's stream.

    Args:
        store: Where the log is kept.
        feed: The live end of the log.
        neighbours: The other replicas, which may have readers of the log.
        turn: The turn, with the log as far as it goes.
        lease_token: The fence token with which the log was opened.
    """

    def __init__(self, store: Store, feed: Feed, neighbours: Neighbours, turn: Turn, lease_token: str) -> None:
        self._store = store
        self._feed = feed
        self._neighbours = neighbours
        self._turn_id = turn.id
        self._tenant_id = turn.tenant_id
        self._lease_token = lease_token
        self._last = turn.last_sequence
        self._pending: list[Event] = []
        self._gathered = asyncio.Event()
        self._hurry = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    async def accept(self, events: list[Event]) -> None:
        """Take events that the log lacks; wait when the disk is far behind.

        Raises:
            SequenceGap: They do not continue the log.
        """
        fresh = operations.next_events(self._last, events)
        if not fresh:
            return
        self._last = fresh[-1].sequence
        self._pending += fresh
        self._gathered.set()
        if fresh[-1].ending:
            self._hurry.set()
        if len(self._pending) > MAX_PENDING:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """No more events will come; what has gathered is still written."""
        self._closed = True
        self._gathered.set()
        self._hurry.set()

    async def flushes(self) -> AsyncIterator[Durable]:
        """Write what gathers until the log is closed or ended, and tell how far it is on disk after each commit.

        Raises:
            LeaseLost: Another worker has the log now.
            TurnEnded: The turn was ended meanwhile.
        """
        while True:
            await self._gathered.wait()
            self._gathered.clear()
            batch, self._pending = self._pending, []
            self._room.set()
            if batch:
                yield await self._flush(batch)
            if batch and batch[-1].ending:
                return
            if self._closed and not self._pending:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._hurry.wait()

    async def _flush(self, batch: list[Event]) -> Durable:
        began = time.perf_counter()
        try:
            with as_tenant(self._tenant_id):
                turn = await operations.append_events(self._store, self._turn_id, self._lease_token, batch)
        except (LeaseLost, TurnEnded):
            self._feed.wake()
            raise
        FLUSH_TIME.observe(time.perf_counter() - began)
        FLUSHED.observe(len(batch))
        APPENDED.inc(len(batch))
        self._feed.publish(batch)
        if self._neighbours.watched(self._turn_id):
            self._neighbours.tell(self._turn_id)
        return Durable(batch[-1].sequence, turn.abort_requested)
