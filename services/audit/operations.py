"""The verbs of Audit: append, list, erase, expire. Each record is sealed in the transaction that numbers it."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from uuid import UUID

from services.audit.record import ERASE, EXPIRE, LONGEST, RETENTION, Filter, Record, now
from services.audit.seal import seal
from services.audit.store import Store, StoreTransaction
from services.kit.ids import new_id
from services.kit.outbox import Who


async def append_records(store: Store, records: Sequence[Record]) -> int:
    """Append records in their order and return how many were new. All are kept, or none."""
    by_tenant = attrgetter("tenant_id")
    # Heads are held in one order by all, so that two batches never wait for each other.
    ordered = sorted((record.checked() for record in records), key=by_tenant)
    async with store.transaction() as tx:
        return sum([await _append(tx, tenant, tuple(group)) for tenant, group in groupby(ordered, key=by_tenant)])


async def list_records(store: Store, wanted: Filter, before: int | None, size: int) -> list[Record]:
    """Records, newest first; one more than `size` when there are more."""
    async with store.transaction() as tx:
        return await tx.list(wanted, before, size + 1)


async def erase_user(store: Store, who: Who, user_id: UUID) -> int:
    """Erase what the log knows of a user beside what they did, put that on record, and tell of how many records."""
    async with store.transaction() as tx:
        sequence = await _append_own(tx, who, ERASE, f"user:{user_id}")
        return await tx.erase_user(who.tenant_id, user_id, sequence)


async def expire(store: Store, tenant_id: UUID, time: datetime) -> int:
    """Remove the bodies of records that are too old, put that on record, and tell how many."""
    removed = 0
    async with store.transaction() as tx:
        found = await tx.expired_categories(tenant_id, time - min(*RETENTION.values(), LONGEST))
        for category in found:
            until = (time - RETENTION.get(category, LONGEST)).replace(microsecond=0)
            if category not in await tx.expired_categories(tenant_id, until):
                continue
            target = f"{category}:{int(until.timestamp())}"
            sequence = await _append_own(tx, Who(tenant_id), EXPIRE, target)
            removed += await tx.expire(tenant_id, category, until, sequence)
    return removed


async def _append(tx: StoreTransaction, tenant_id: UUID, records: Sequence[Record]) -> int:
    """Seal the records of one tenant that are new, and write them."""
    end, before = await tx.lock_head(tenant_id)
    known = await tx.known(tenant_id, [record.record_id for record in records])
    # Of two with one id in the same batch, the first is kept.
    first = {record.record_id: record for record in reversed(records)}
    new = [record for record in records if record.record_id not in known and first[record.record_id] is record]
    if new:
        await tx.append(tenant_id, list(seal(new, end, before, now())))
    return len(new)


async def _append_own(tx: StoreTransaction, who: Who, action: str, target: str) -> int:
    """Seal a record of the log's own, and return its number."""
    end, before = await tx.lock_head(who.tenant_id)
    record = Record(
        who.tenant_id,
        new_id(),
        who.actor,
        action,
        now(),
        user_id=who.user_id,
        target=target,
        channel=who.channel,
        ip_address=who.ip_address,
        user_agent=who.user_agent,
    )
    await tx.append(who.tenant_id, list(seal([record], end, before, record.create_time)))
    return end + 1
