"""What all statements share: how they run, and the forms between rows and nouns."""

import hashlib
from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from psycopg.rows import tuple_row

from services.kit.postgres import Row, Transaction
from services.queue.heads import Place
from services.queue.job import (
    STATES,
    EndedJob,
    Held,
    Job,
    Lease,
    NewJob,
    Outcome,
    PlacedJob,
)

LineKey = tuple[UUID, str]


class QuickTransaction(Transaction):
    """A transaction that can also read many rows fast."""

    async def tuples(self, name: str, **params: object) -> list[tuple[Any, ...]]:
        """Run a named query and return its rows as tuples, read in the database's binary form."""
        async with self._connection.cursor(row_factory=tuple_row, binary=True) as cursor:
            return await (await cursor.execute(self._queries[name], params)).fetchall()


class Rows:
    """Statements on the queue's tables, within one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    @property
    def _quick(self) -> QuickTransaction:
        if not isinstance(self._tx, QuickTransaction):
            raise TypeError("this belongs to a busy loop, which has a line of its own")
        return self._tx


def lock_number(tenant_id: UUID, key: str) -> int:
    """The number of the advisory lock of a line."""
    digest = hashlib.blake2b(key.encode(), key=tenant_id.bytes, digest_size=8, person=b"queue-line").digest()
    return int.from_bytes(digest, signed=True)


def places_of(rows: Iterable[Row]) -> list[Place]:
    """Where jobs wait that have become ready."""
    return [(row["kind"], row["priority"], row["vt"]) for row in rows]


def placed_of(asked: NewJob, row: Row) -> PlacedJob:
    """The job that was put in."""
    job = Job(
        tenant_id=asked.tenant_id,
        id=asked.id,
        kind=asked.kind,
        key=asked.key,
        state=STATES[row["state"]],
        priority=asked.priority,
        attempt=0,
        max_attempts=asked.max_attempts,
        payload=asked.payload,
        idempotency_key=asked.idempotency_key,
        run_time=row["run_time"],
        create_time=row["create_time"],
        trace_parent=asked.trace_parent,
        deadline=asked.deadline,
        depends_on=asked.depends_on,
        vt=row["vt"],
    )
    return PlacedJob(job, row["position"])


def job_of(row: Row) -> Job:
    """The job of a row."""
    return Job(
        tenant_id=row["tenant_id"],
        id=row["id"],
        kind=row["kind"],
        key=row["key"],
        state=STATES[row["state"]],
        priority=row["priority"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        payload=row["payload"],
        idempotency_key=row["idempotency_key"],
        run_time=row["run_time"],
        create_time=row["create_time"],
        trace_parent=row["trace_parent"],
        last_error=row["last_error"],
        end_time=row.get("end_time"),
        deadline=row["deadline"],
        depends_on=tuple(row["depends_on"] or ()),
        vt=row.get("vt", 0),
    )


def lease_of(row: Row) -> Lease:
    """The lease of a row."""
    return Lease(
        tenant_id=row["tenant_id"],
        id=row["id"],
        key=row["key"],
        token=row["token"],
        session_id=row["session_id"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        cancelled=row.get("cancelled", False),
        overdue=row.get("overdue", False),
    )


def array_text(values: Iterable[UUID | str | int]) -> str:
    """An array as text, of values that need no quotes: in large ones this saves a third of the way in."""
    return "{" + ",".join(map(str, values)) + "}"


def ended_of(row: Row) -> EndedJob:
    """The ended job of a row."""
    return EndedJob(row["tenant_id"], row["id"], STATES[row["state"]], row["needed"])


def id_columns(jobs: Collection[tuple[UUID, UUID]]) -> dict[str, list[UUID]]:
    """Jobs by tenant and id, as parameters."""
    return {"tenant_ids": [tenant_id for tenant_id, _ in jobs], "ids": [job_id for _, job_id in jobs]}


def lease_columns(leases: Collection[Held]) -> dict[str, Any]:
    """Leases, as parameters."""
    return {
        "tenant_ids": [str(lease.tenant_id) for lease in leases],
        "ids": [str(lease.id) for lease in leases],
        "tokens": [lease.token for lease in leases],
    }


def ending_columns(endings: Collection[tuple[Lease, Outcome]]) -> dict[str, list[Any]]:
    """Leases and what becomes of them, as parameters."""
    return {
        **lease_columns([lease for lease, _ in endings]),
        "states": [outcome.state.value for _, outcome in endings],
        "errors": [outcome.error for _, outcome in endings],
        "settled": [outcome.settled for _, outcome in endings],
    }
