"""What verification asks of PostgreSQL: one method per named query."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from services.kit.postgres import Transaction
from services.kit.queries import load_queries

VERIFY_QUERIES = load_queries(Path(__file__).with_name("verify_queries.sql"))


@dataclass(frozen=True, slots=True)
class Suspect:
    """A record that is not as it was sealed, and in what."""

    sequence: int
    in_place: bool
    sealed: bool
    body_sealed: bool
    kept: bool


@dataclass(frozen=True, slots=True)
class End:
    """The end of a tenant's log as the table of heads has it, and what the records say."""

    sequence: int
    hash: bytes
    record_hash: bytes | None
    last_record: int
    last_body: int


class Inspection:
    """What verification asks, in one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def chains(self) -> list[UUID]:
        """Every tenant of whom there is anything."""
        return [row["tenant_id"] for row in await self._tx.many("list_chains")]

    async def suspects(self, tenant_id: UUID, first: int, last: int) -> list[Suspect]:
        """The damaged records in a stretch of a chain."""
        rows = await self._tx.many("verify_chain", tenant_id=tenant_id, first=first, last=last)
        return [Suspect(**row) for row in rows]

    async def end(self, tenant_id: UUID) -> End | None:
        """The end of a tenant's log, or None when the table of heads knows of none."""
        row = await self._tx.one("verify_head", tenant_id=tenant_id)
        if row is None:
            return None
        record_hash = bytes(row["record_hash"]) if row["record_hash"] is not None else None
        return End(
            row["sequence"], bytes(row["hash"] or b""), record_hash, row["last_record"] or 0, row["last_body"] or 0
        )

    async def broken_promise(self, tenant_id: UUID, after: int) -> tuple[int, int, bool] | None:
        """The first signed end that is not what the records say: size of the checkpoint, sequence, is it missing."""
        row = await self._tx.one("verify_checkpointed", tenant_id=tenant_id, after=after)
        return (row["size"], row["sequence"], row["missing"]) if row else None

    async def hash_of(self, tenant_id: UUID, sequence: int) -> bytes | None:
        """The hash of one record."""
        row = await self._tx.one("hash_of", tenant_id=tenant_id, sequence=sequence)
        return bytes(row["hash"]) if row else None
