"""Reading a log to its end: first what is on disk, then what is live, each event once and in order."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

from services.api.feed import Feed, Feeds
from services.api.store import Store
from services.api.turn import Event
from services.kit.caller import Caller

CHECKPOINT_SECONDS = 15.0
POLL_SECONDS = 1.0
"""How often a reader looks at the disk when no writer is here: another replica may have it, or none may yet."""


async def read_log(
    store: Store, feeds: Feeds, caller: Caller, turn_id: UUID, after: int
) -> AsyncIterator[bytes | None]:
    """The events of a turn after a number, to the terminal one; None is a sign that nothing happened for a while.

    A reader that has all events of an ended turn gets the terminal one again, so that every stream ends with it.
    """
    with feeds.join(turn_id) as feed:
        quiet = 0.0
        while True:
            changed = feed.changes()
            events = feed.after(after)
            if not events:
                events = await _from_disk(store, caller, turn_id, after, feed)
            for event in events:
                yield event.data
                if event.ending:
                    return
            if events:
                after, quiet = max(after, events[-1].sequence), 0.0
                continue
            wait = CHECKPOINT_SECONDS - quiet if feed.writers else POLL_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await changed.wait()
            except TimeoutError:
                quiet += wait
                if quiet >= CHECKPOINT_SECONDS:
                    yield None
                    quiet = 0.0


async def _from_disk(store: Store, caller: Caller, turn_id: UUID, after: int, feed: Feed) -> list[Event]:
    """What the database has after a number; when that is nothing and the turn has ended, its last event."""
    if feed.writers and feed.after(after) is not None:
        return []  # the live end reaches back to the reader: the disk cannot have more
    async with store.transaction() as tx:
        # The events first: a turn that ends between the two reads then shows its end on the next look.
        rows = await tx.read_events(turn_id, after)
        turn = await tx.find_turn(caller, turn_id)
        if not rows and turn.ended:
            rows = await tx.read_events(turn_id, min(after, turn.last_sequence - 1))
    last = turn.last_sequence if turn.ended else None
    return [Event(sequence, data, ending=turn.ending() if sequence == last else None) for sequence, data in rows]
