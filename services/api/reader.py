"""Reading a log to its end: first what is on disk, then what is live, each event once and in order."""

from collections.abc import AsyncIterator, Callable, Sequence
from uuid import UUID

from services.api.feed import Feeds
from services.api.metrics import CAUGHT_UP, LAG, READERS
from services.api.store import Store
from services.api.turn import Event, Turn
from services.kit.caller import Caller

CHECKPOINT_SECONDS = 15.0
POLL_SECONDS = 1.0
"""How often a reader looks at the disk when no writer is here: another replica may have it, or none may yet."""

EndOf = Callable[[Turn], Event]
"""Makes the terminal event of a turn whose log is no longer kept."""


async def read_log(
    store: Store, feeds: Feeds, caller: Caller, turn_id: UUID, after: int, end_of: EndOf
) -> AsyncIterator[Sequence[Event]]:
    """The events of a turn after a number, to the terminal one, as many at once as there are for this reader.

    Nothing at once is a sign that nothing happened for a while.

    A reader that has all events of an ended turn gets the terminal one again, so that every stream ends with it.
    """
    with feeds.join(turn_id) as feed, READERS.track_inprogress():
        quiet = 0.0
        while True:
            seen = feed.version
            events = feed.after(after)
            if not events and (events is None or not feed.written_here or quiet >= CHECKPOINT_SECONDS):
                events = await _from_disk(store, caller, turn_id, after, end_of)
            if events:
                LAG.observe(len(events))
                yield events
                if events[-1].ending:
                    return
                after, quiet = max(after, events[-1].sequence), 0.0
                continue
            if quiet >= CHECKPOINT_SECONDS:
                yield ()
                quiet = 0.0
            if not feed.written_here:
                feeds.neighbours.watch(turn_id)
            seconds = CHECKPOINT_SECONDS if feed.written_here else POLL_SECONDS
            quiet = 0.0 if await feed.change(seen, seconds) else quiet + seconds


async def _from_disk(store: Store, caller: Caller, turn_id: UUID, after: int, end_of: EndOf) -> list[Event]:
    """What the database has after a number; when that is nothing and the turn has ended, its last event."""
    CAUGHT_UP.inc()
    async with store.transaction() as tx:
        # The events first: a turn that ends between the two reads then shows its end on the next look.
        rows = await tx.log.read(turn_id, after)
        turn = await tx.find_turn(caller, turn_id)
        if not rows and turn.ended:
            rows = await tx.log.read(turn_id, min(after, turn.last_sequence - 1))
    if not rows and turn.ended:
        return [end_of(turn)]
    last = turn.last_sequence if turn.ended else None
    return [Event(sequence, data, ending=turn.ending() if sequence == last else None) for sequence, data in rows]
