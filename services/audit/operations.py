"""The verbs of Audit: append and list."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from uuid import UUID

from services.audit.record import Filter, Record
from services.audit.store import Store, StoreTransaction


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


async def _append(tx: StoreTransaction, tenant_id: UUID, records: Sequence[Record]) -> int:
    """Number the records of one tenant that are new, and write them."""
    end = await tx.lock_head(tenant_id)
    known = await tx.known(tenant_id, [record.record_id for record in records])
    # Of two with one id in the same batch, the first is kept.
    first = {record.record_id: record for record in reversed(records)}
    new = [record for record in records if record.record_id not in known and first[record.record_id] is record]
    if new:
        await tx.append(tenant_id, [replace(record, sequence=end + place) for place, record in enumerate(new, 1)])
    return len(new)
