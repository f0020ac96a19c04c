"""The live ends of the logs that are being written: events go to their readers before they are on disk.

A feed holds the last events of one turn in memory. Readers ask it for what comes after their own cursor, each at its
own pace, so that a slow reader costs nothing and delays nobody: one that falls behind what the feed still holds reads
the log from the database until it has caught up.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from services.api.turn import Event

KEPT_EVENTS = 4096
"""How many events a feed holds: at 20 deltas a second, more than three minutes."""


class Feed:
    """The live end of one turn's log."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._changed = asyncio.Event()
        self.writers = 0

    def publish(self, events: Sequence[Event]) -> None:
        """Add events and wake the readers. Events must follow each other; after a jump the feed begins anew."""
        if self._events and events[0].sequence != self._events[-1].sequence + 1:
            self._events.clear()
        self._events.extend(events)
        self.wake()

    def wake(self) -> None:
        """Let the readers look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def after(self, sequence: int) -> list[Event] | None:
        """The events after a number, or None when the feed cannot tell: it holds none, or begins later than that."""
        if not self._events or sequence < self._events[0].sequence - 1:
            return None
        skip = sequence - self._events[0].sequence + 1
        return [event for place, event in enumerate(self._events) if place >= skip]

    def changes(self) -> asyncio.Event:
        """An event that is set at the next change. Take it before looking, so that no change is missed."""
        return self._changed


class Feeds:
    """The feeds of all turns that somebody writes or reads here."""

    def __init__(self) -> None:
        self._feeds: dict[UUID, tuple[Feed, int]] = {}

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
