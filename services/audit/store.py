"""Records in PostgreSQL: one method per named query."""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from services.audit.checkpoint_store import CHECKPOINT_QUERIES, Checkpoints
from services.audit.record import Filter, Record
from services.audit.seal import Body, Sealed, Skeleton
from services.audit.verify_store import VERIFY_QUERIES, Inspection
from services.kit.postgres import Database, Row, Transaction
from services.kit.queries import load_queries
from services.kit.tenancy import SYSTEM, Scope

SCHEMA = "audit"
QUERIES = load_queries(Path(__file__).with_name("queries.sql")) | CHECKPOINT_QUERIES | VERIFY_QUERIES


class Store:
    """Where transactions come from.

    Args:
        database: The database.
        scope: Whose log the transactions see. None means that the call or the loop says it.
    """

    def __init__(self, database: Database, scope: Scope | None = None) -> None:
        self._database = database
        self._scope = scope

    def of_all(self) -> "Store":
        """The same for what has to see the logs of all tenants: signatures cover all, and only the system writes."""
        return Store(self._database, SYSTEM)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["StoreTransaction"]:
        """Open a transaction: it commits when the block ends."""
        async with self._database.transaction(self._scope) as tx:
            yield StoreTransaction(tx)


class StoreTransaction:
    """One transaction on the log.

    Attributes:
        checkpoints: The checkpoints, in the same transaction.
        inspection: What verification asks, in the same transaction.
    """

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.checkpoints = Checkpoints(tx)
        self.inspection = Inspection(tx)

    async def lock_head(self, tenant_id: UUID) -> tuple[int, bytes]:
        """Hold the end of a tenant's log until the transaction ends, and say where it is and its hash."""
        if (row := await self._tx.one("lock_head", tenant_id=tenant_id)) is None:
            await self._tx.run("add_head", tenant_id=tenant_id)
            row = await self._tx.one("lock_head", tenant_id=tenant_id)
        assert row is not None  # noqa: S101 - it was just made, and nobody may remove it
        return row["sequence"], bytes(row["hash"])

    async def head(self, tenant_id: UUID) -> int:
        """Where a tenant's log ends; 0 when it has not begun."""
        row = await self._tx.one("read_head", tenant_id=tenant_id)
        return row["sequence"] if row else 0

    async def known(self, tenant_id: UUID, record_ids: Collection[UUID]) -> set[UUID]:
        """Which of these records are in the log already."""
        rows = await self._tx.many("known_records", tenant_id=tenant_id, record_ids=list(record_ids))
        return {row["record_id"] for row in rows}

    async def append(self, tenant_id: UUID, records: Sequence[Sealed]) -> None:
        """Write sealed records behind the end of the log, and move the end."""
        last = records[-1]
        await self._tx.run(
            "append_records",
            tenant_id=tenant_id,
            records=json.dumps([_to_document(record) for record in records]),
            sequence=last.skeleton.sequence,
            hash=last.hash,
        )

    async def list(self, wanted: Filter, before: int | None, size: int) -> list[Record]:
        """Records, newest first, that stand before a sequence."""
        rows = await self._tx.many("list_records", **_params(wanted), before=before, size=size)
        return [_record(row) for row in rows]

    async def chain(self, wanted: Filter, after: int, size: int) -> Sequence[tuple[Skeleton, Body | None, bytes]]:
        """Sealed records in their order after a sequence: skeleton, body as far as it is kept, hash."""
        rows = await self._tx.many("read_chain", **_params(wanted), after=after, size=size)
        return [_link(row) for row in rows]

    async def erase_user(self, tenant_id: UUID, user_id: UUID, before: int) -> int:
        """Remove the bodies of a user's records before a sequence, and tell how many."""
        return await self._tx.run("erase_user", tenant_id=tenant_id, user_id=user_id, before=before)

    async def expired_categories(self, tenant_id: UUID, until: datetime) -> Sequence[str]:
        """The categories of which there are bodies from before a time."""
        return [row["category"] for row in await self._tx.many("expired_categories", tenant_id=tenant_id, until=until)]

    async def expire(self, tenant_id: UUID, category: str, until: datetime, before: int) -> int:
        """Remove the bodies of a category from before a time, and tell how many."""
        return await self._tx.run("expire", tenant_id=tenant_id, category=category, until=until, before=before)

    async def behind(self, receiver: str) -> Sequence[tuple[UUID, int]]:
        """Whose logs a receiver of the stream has not whole, and up to where it has them."""
        return [(row["tenant_id"], row["sequence"]) for row in await self._tx.many("list_behind", receiver=receiver)]

    async def move_cursor(self, tenant_id: UUID, receiver: str, sequence: int) -> None:
        """A receiver of the stream has a tenant's log up to here."""
        await self._tx.run("move_cursor", tenant_id=tenant_id, receiver=receiver, sequence=sequence)


def _params(wanted: Filter) -> dict[str, object]:
    return {
        "tenant_id": wanted.tenant_id,
        "action": wanted.exact,
        "prefix": wanted.prefix,
        "user_id": wanted.user_id,
        "since": wanted.since,
        "until": wanted.until,
    }


def _to_document(sealed: Sealed) -> dict[str, Any]:
    skeleton, body = sealed.skeleton, sealed.body
    return {
        "sequence": skeleton.sequence,
        "record_id": str(skeleton.record_id),
        "user_id": str(skeleton.user_id) if skeleton.user_id else None,
        "actor": skeleton.actor,
        "action": skeleton.action,
        "target": skeleton.target,
        "session_id": skeleton.session_id,
        "channel": skeleton.channel,
        "duration_us": skeleton.duration_us,
        "create_time": skeleton.create_time.isoformat(),
        "append_time": skeleton.append_time.isoformat(),
        "commitment": f"\\x{skeleton.commitment.hex()}",
        "hash": f"\\x{sealed.hash.hex()}",
        "salt": f"\\x{body.salt.hex()}",
        "ip_address": body.ip_address,
        "user_agent": body.user_agent,
        "payload": body.payload,
    }


def _record(row: Row) -> Record:
    took, kept = row.pop("duration_us"), row["payload"] is not None
    if not kept:
        row |= {"ip_address": "", "user_agent": "", "payload": {}}
    duration = timedelta(microseconds=took) if took is not None else None
    return Record(**row | {"hash": bytes(row["hash"])}, duration=duration, erased=not kept)


def _link(row: Row) -> tuple[Skeleton, Body | None, bytes]:
    salt, address, agent, payload = (row.pop(name) for name in ("salt", "ip_address", "user_agent", "payload"))
    body = Body(bytes(salt), address, agent, payload) if salt is not None else None
    found = bytes(row.pop("hash"))
    return Skeleton(**row | {"commitment": bytes(row["commitment"])}), body, found
