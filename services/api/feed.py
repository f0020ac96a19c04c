"""The live ends of the logs: events go to their readers from memory, once they are on disk.

A feed holds the last events of one turn in memory. Readers ask it for what comes after their own cursor, each at its
own pace, so that a slow reader costs nothing and delays nobody: one that falls behind what the feed still holds reads
the log from the database until it has caught up.

Where another replica writes the log, the feed holds nothing, and says only when to look at the database again.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from services.api.neighbours import Neighbours
from services.api.turn import Event

KEPT_EVENTS = 4096
"""How many events a feed holds at most: at 20 deltas a second, more than three minutes."""
KEPT_BYTES = 8 << 20
"""How much a feed holds at most; the last event always fits."""


class Feed:
    """The live end of one turn's log.

    Attributes:
        writers: How many streams write the log here.
        version: Grows with each change.
        elsewhere: Whether another replica has written the log since the last stream was opened here.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._bytes = 0
        self._waiting: set[asyncio.Future[bool]] = set()
        self.version = 0
        self.writers = 0
        self.elsewhere = False

    @property
    def written_here(self) -> bool:
        """Whether what the feed says is all there is."""
        return self.writers > 0 and not self.elsewhere

    def publish(self, events: Sequence[Event]) -> None:
        """Add events and wake the readers. Events must follow each other; after a jump the feed begins anew."""
        if self._events and events[0].sequence != self._events[-1].sequence + 1:
            self._events, self._bytes = [], 0
        self._events += events
        self._bytes += sum(len(event.data) for event in events)
        self._forget()
        self.wake()

    def wake(self) -> None:
        """Let the readers look again."""
        self.version += 1
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            _answer(waiter, changed=True)

    def hear(self) -> None:
        """Another replica has written the log."""
        self.elsewhere = True
        self.wake()

    def after(self, sequence: int) -> list[Event] | None:
        """The events after a number, or None when the feed cannot tell: it holds none, or begins later than that."""
        if not self._events or sequence < self._events[0].sequence - 1:
            return None
        return self._events[sequence - self._events[0].sequence + 1 :]

    async def change(self, seen: int, seconds: float) -> bool:
        """Wait for a change since a version for so long at most; tell whether there was one.

        Take the version before looking, so that no change is missed. Every event wakes every reader, so this is the
        hottest wait of Api: a future and a timer, nothing else.
        """
        if self.version != seen:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.add(waiter)
        timer = loop.call_later(seconds, _answer, waiter, False)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiting.discard(waiter)

    def _forget(self) -> None:
        surplus = max(len(self._events) - KEPT_EVENTS, 0)
        self._bytes -= sum(len(event.data) for event in self._events[:surplus])
        while self._bytes > KEPT_BYTES and surplus < len(self._events) - 1:
            self._bytes -= len(self._events[surplus].data)
            surplus += 1
        del self._events[:surplus]


def _answer(waiter: asyncio.Future[bool], changed: bool) -> None:
    if not waiter.done():
        waiter.set_result(changed)


class Feeds:
    """The feeds of all turns that somebody writes or reads here.

    Args:
        neighbours: The other replicas of Api.
    """

    def __init__(self, neighbours: Neighbours) -> None:
        self._feeds: dict[UUID, tuple[Feed, int]] = {}
        self.neighbours = neighbours

    @contextmanager
    def join(self, turn_id: UUID) -> Iterator[Feed]:
        """The feed of a turn; it is forgotten when the last who joined has left."""
        feed, users = self._feeds.get(turn_id) or (Feed(), 0)
        self._feeds[turn_id] = (feed, users + 1)
        try:
            yield feed
        finally:
            feed, users = self._feeds[turn_id]
            if users == 1:
                del self._feeds[turn_id]
            else:
                self._feeds[turn_id] = (feed, users - 1)

    @contextmanager
    def write(self, turn_id: UUID) -> Iterator[Feed]:
        """The feed of a turn whose log is written here now."""
        with self.join(turn_id) as feed:
            feed.writers += 1
            feed.elsewhere = False
            try:
                yield feed
            finally:
                feed.writers -= 1
                feed.wake()

    def publish(self, turn_id: UUID, events: Sequence[Event]) -> None:
        """Bring events that are on disk to the readers of a turn, wherever they are."""
        if found := self._feeds.get(turn_id):
            found[0].publish(events)
        self.neighbours.tell(turn_id)

    def hear(self, turn_id: UUID) -> None:
        """Another replica has written the log of a turn."""
        if found := self._feeds.get(turn_id):
            found[0].hear()
