"""The event log in PostgreSQL: written by flushes, read by numbers, compacted and forgotten."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from services.api.turn import Event, LeaseLost, Turn
from services.kit.postgres import Row
from services.kit.postgres import Transaction as SqlTransaction
from services.kit.queries import load_queries

LOG_QUERIES = load_queries(Path(__file__).with_name("log_queries.sql"))

READ_EVENTS = 500
"""How many events a reader takes from the disk at once."""
ROW_EVENTS = 1_000
"""How many events of an ended turn share a row. Nearly every turn is one row; long ones are read by pieces."""
ROW_BYTES = 1 << 20

Numbered = tuple[int, bytes]


class Log:
    """The log of events, within one transaction."""

    def __init__(self, sql: SqlTransaction) -> None:
        self._sql = sql

    async def append(self, turn_id: UUID, lease_token: str | None, events: Sequence[Event]) -> Row:
        """Append events, and return the turn with its log extended.

        Raises:
            LeaseLost: The log does not end where the events begin, the turn has ended, or the lease is another's.
        """
        first, last = events[0].sequence, events[-1].sequence
        turn = await self._sql.one("extend_log", id=turn_id, token=lease_token, first=first, last=last)
        if turn is None:
            raise LeaseLost(turn_id)
        await self._insert(turn_id, turn["tenant_id"], [(event.sequence, event.data) for event in events])
        return turn

    async def read(self, turn_id: UUID, after: int, count: int = READ_EVENTS) -> list[Numbered]:
        """Events after a number, as number and bytes: about `count` of them, in any case all rows that begin there."""
        rows = await self._sql.many("read_events", id=turn_id, after=after, count=max(count, 1))
        numbered = (
            (row["first_sequence"] + place, bytes(data)) for row in rows for place, data in enumerate(row["events"])
        )
        return [(sequence, data) for sequence, data in numbered if sequence > after]

    async def save_answer(self, turn: Turn, answer: bytes) -> None:
        """Keep what the agent said in the end."""
        await self._sql.run("save_answer", id=turn.id, tenant=turn.tenant_id, answer=answer)

    async def keep_house(self) -> bool:
        """Become the one replica that keeps the log in order until the transaction ends; tell whether it worked."""
        row = await self._sql.one("keep_house")
        return bool(row and row["mine"])

    async def make_partition(self, months: int) -> bool:
        """Make the partition of the month that is so many months away; tell whether there was none."""
        row = await self._sql.one("make_partition", months=months)
        return bool(row and row["made"])

    async def drop_partitions(self, retention: timedelta) -> int:
        """Drop the partitions whose turns are all older than that, and tell how many there were."""
        row = await self._sql.one("drop_partitions", retention=retention)
        return int(row["dropped"]) if row else 0

    async def find_ended(self) -> UUID | None:
        """A turn that has ended and whose log has not been compacted, held until the transaction ends."""
        row = await self._sql.one("find_ended")
        return row["turn_id"] if row else None

    async def compact(self, turn: Turn, events: Sequence[Numbered], answer: bytes) -> None:
        """Put all events of an ended turn into as few rows as is good for readers, and keep its answer."""
        await self._sql.run("delete_events", id=turn.id)
        for piece in pieces(events):
            await self._insert(turn.id, turn.tenant_id, piece)
        await self._sql.run("mark_compacted", id=turn.id, answer=answer)

    async def _insert(self, turn_id: UUID, tenant_id: UUID, events: Sequence[Numbered]) -> None:
        await self._sql.run(
            "insert_events",
            id=turn_id,
            tenant=tenant_id,
            first=events[0][0],
            last=events[-1][0],
            events=[data for _, data in events],
        )


def pieces(events: Sequence[Numbered]) -> Iterator[Sequence[Numbered]]:
    """The events cut into rows."""
    start, size = 0, 0
    for place, (_, data) in enumerate(events):
        if place > start and (place - start >= ROW_EVENTS or size + len(data) > ROW_BYTES):
            yield events[start:place]
            start, size = place, 0
        size += len(data)
    if events:
        yield events[start:]
