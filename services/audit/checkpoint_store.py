"""Checkpoints in PostgreSQL: one method per named query."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID

from services.audit.merkle import Head
from services.kit.postgres import Row, Transaction
from services.kit.queries import load_queries

CHECKPOINT_QUERIES = load_queries(Path(__file__).with_name("checkpoint_queries.sql"))

Note = tuple[int, str]
"""The size of a checkpoint and its note, as the database has them: not yet believed."""


Stored = tuple[int, str, datetime]
"""The same with its time."""


class Checkpoints:
    """The checkpoints, in one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def lock(self) -> None:
        """Be the only one who makes checkpoints until the transaction ends."""
        await self._tx.run("lock_checkpoints")

    async def heads(self) -> list[Head]:
        """The ends of all chains now, in the order of the tenants' ids."""
        return [_head(row) for row in await self._tx.many("list_heads")]

    async def heads_at(self, size: int) -> list[Head]:
        """The ends of all chains at a checkpoint, in the order of the tenants' ids."""
        return [_head(row) for row in await self._tx.many("heads_at", size=size)]

    async def last(self) -> Note | None:
        """The newest checkpoint."""
        return _note(await self._tx.one("last_checkpoint"))

    async def find(self, size: int) -> Note | None:
        """The checkpoint of a size."""
        return _note(await self._tx.one("find_checkpoint", size=size))

    async def add(self, size: int, note: str, time: datetime, moved: Sequence[Head]) -> None:
        """Keep a checkpoint and the ends that have moved."""
        await self._tx.run("add_checkpoint", size=size, note=note, create_time=time)
        await self._tx.run(
            "add_checkpoint_heads",
            size=size,
            tenants=[head.tenant_id for head in moved],
            sequences=[head.sequence for head in moved],
            hashes=[head.hash for head in moved],
        )

    async def page(self, before: int | None, count: int) -> list[Stored]:
        """Checkpoints, newest first."""
        rows = await self._tx.many("page_checkpoints", before=before, count=count)
        return [_stored(row) for row in rows]

    async def after(self, size: int, count: int) -> list[Stored]:
        """Checkpoints after a size, in their order."""
        rows = await self._tx.many("checkpoints_after", after=size, count=count)
        return [_stored(row) for row in rows]

    async def moved(self, after: int, until: int) -> dict[int, dict[UUID, Head]]:
        """The ends that moved at each checkpoint between two sizes."""
        found: dict[int, dict[UUID, Head]] = {}
        for row in await self._tx.many("moved_between", after=after, until=until):
            found.setdefault(row["size"], {})[row["tenant_id"]] = _head(row)
        return found

    async def published(self, place: str) -> int:
        """Up to which checkpoint a place has them."""
        row = await self._tx.one("published", place=place)
        return row["size"] if row else 0

    async def mark_published(self, place: str, size: int) -> None:
        """A place has the checkpoints up to here."""
        await self._tx.run("mark_published", place=place, size=size)


def _head(row: Row) -> Head:
    return Head(row["tenant_id"], row["sequence"], bytes(row["hash"] or b""))


def _stored(row: Row) -> Stored:
    return row["size"], row["note"], row["create_time"]


def _note(row: Row | None) -> Note | None:
    return (row["size"], row["note"]) if row else None
