"""Records in PostgreSQL: one method per named query."""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from services.audit.record import Filter, Record
from services.kit.keepable import keepable
from services.kit.postgres import Database, Row, Transaction
from services.kit.queries import load_queries

SCHEMA = "audit"
QUERIES = load_queries(Path(__file__).with_name("queries.sql"))
_MICROSECOND = timedelta(microseconds=1)


class Store:
    """Where transactions come from."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["StoreTransaction"]:
        """Open a transaction: it commits when the block ends."""
        async with self._database.transaction() as tx:
            yield StoreTransaction(tx)


class StoreTransaction:
    """One transaction on the log."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def lock_head(self, tenant_id: UUID) -> int:
        """Hold the end of a tenant's log until the transaction ends, and say where it is."""
        if (row := await self._tx.one("lock_head", tenant_id=tenant_id)) is None:
            await self._tx.run("add_head", tenant_id=tenant_id)
            row = await self._tx.one("lock_head", tenant_id=tenant_id)
        return int(row["sequence"]) if row else 0

    async def known(self, tenant_id: UUID, record_ids: Collection[UUID]) -> set[UUID]:
        """Which of these records are in the log already."""
        rows = await self._tx.many("known_records", tenant_id=tenant_id, record_ids=list(record_ids))
        return {row["record_id"] for row in rows}

    async def append(self, tenant_id: UUID, records: Sequence[Record]) -> None:
        """Write numbered records behind the end of the log, and move the end."""
        document = json.dumps([_to_document(record) for record in records])
        await self._tx.run("append_records", tenant_id=tenant_id, records=document)
        await self._tx.run("move_head", tenant_id=tenant_id, sequence=records[-1].sequence)

    async def list(self, wanted: Filter, before: int | None, size: int) -> list[Record]:
        """Records, newest first, that stand before a sequence."""
        rows = await self._tx.many(
            "list_records",
            tenant_id=wanted.tenant_id,
            before=before,
            action=wanted.exact,
            prefix=wanted.prefix,
            user_id=wanted.user_id,
            since=wanted.since,
            until=wanted.until,
            size=size,
        )
        return [_record(row) for row in rows]


def _to_document(record: Record) -> dict[str, Any]:
    return {
        "sequence": record.sequence,
        "record_id": str(record.record_id),
        "user_id": str(record.user_id) if record.user_id else None,
        "actor": keepable(record.actor),
        "action": record.action,
        "target": keepable(record.target),
        "session_id": keepable(record.session_id),
        "channel": keepable(record.channel),
        "ip_address": keepable(record.ip_address),
        "user_agent": keepable(record.user_agent),
        "duration_us": record.duration // _MICROSECOND if record.duration is not None else None,
        "payload": keepable(record.payload or {}),
        "create_time": record.create_time.isoformat(),
    }


def _record(row: Row) -> Record:
    return Record(**row)
