"""Seals what a database of the earlier version holds, before anything is appended: in batches, each with its mark.

A batch is one transaction; a process that is killed goes on where the last one ended. The rows keep their numbers. The
earlier table is dropped when every one of its rows is sealed.

Who owns the tables runs it after the migrations: `OIAB_DATABASE_URL=... python -m services.audit.resealing`.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from services.audit.record import Record
from services.audit.seal import GENESIS, Sealed, Skeleton, seal
from services.kit import telemetry

BATCH = 2_000
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('audit resealing', 0))"
_WAITING = "SELECT tenant_id, sequence FROM head WHERE hash IS NULL ORDER BY tenant_id"
_LAST = "SELECT sequence, hash FROM record WHERE tenant_id = %s ORDER BY sequence DESC LIMIT 1"
_READ = """SELECT tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel, ip_address,
    user_agent, duration, payload, create_time, append_time
FROM unsealed_record WHERE tenant_id = %s AND sequence > %s ORDER BY sequence LIMIT %s"""
_MARK = "UPDATE head SET hash = %s WHERE tenant_id = %s"
_BODY = "COPY body (tenant_id, sequence, salt, ip_address, user_agent, payload) FROM STDIN"
_RECORD = """COPY record (tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel,
    duration_us, create_time, append_time, commitment, hash) FROM STDIN"""

Connection = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True)
class _Old:
    record: Record
    append_time: datetime


def reseal(url: str, schema: str) -> int:
    """Seal what waits to be sealed, and tell how many records that were.

    Args:
        url: The address of the database, for the one who owns its tables.
        schema: The schema of Audit.
    """
    count = 0
    with psycopg.connect(
        url, options=f"-c search_path={schema} -c oiab.owner=works", row_factory=dict_row
    ) as connection:
        if not _exists(connection):
            return 0
        while done := _reseal_some(connection):
            count += done
            telemetry.log().info("sealing the records of an earlier version", sealed=count)
        with connection.transaction():
            connection.execute(_LOCK)
            if _exists(connection) and not connection.execute(_WAITING).fetchone():
                connection.execute("DROP TABLE unsealed_record")
    return count


def _exists(connection: Connection) -> bool:
    row = connection.execute("SELECT to_regclass('unsealed_record') AS found").fetchone()
    return bool(row and row["found"])


def _reseal_some(connection: Connection) -> int:
    """Seal a batch of the first tenant that waits. 0 when none does."""
    with connection.transaction():
        connection.execute(_LOCK)
        if not _exists(connection) or not (head := connection.execute(_WAITING).fetchone()):
            return 0
        tenant_id = UUID(str(head["tenant_id"]))
        last = connection.execute(_LAST, (tenant_id,)).fetchone() or {"sequence": 0, "hash": GENESIS}
        before = bytes(last["hash"])
        rows = connection.execute(_READ, (tenant_id, last["sequence"], BATCH)).fetchall()
        if not rows:
            connection.execute(_MARK, (before, tenant_id))
            return 1
        _write(connection, _sealed([_old(row) for row in rows], before))
        return len(rows)


def _old(row: dict[str, Any]) -> _Old:
    append_time = row.pop("append_time")
    return _Old(Record(**row), append_time)


def _sealed(old: list[_Old], before: bytes) -> list[Sealed]:
    """Each with the time at which it was appended then."""
    found = list[Sealed]()
    for one in old:
        (sealed,) = seal([one.record], one.record.sequence - 1, before, one.append_time)
        before = sealed.hash
        found.append(sealed)
    return found


def _write(connection: Connection, sealed: list[Sealed]) -> None:
    with connection.cursor() as cursor:
        with cursor.copy(_BODY) as copy:
            for one in sealed:
                body = one.body
                copy.write_row((*_place(one.skeleton), body.salt, body.ip_address, body.user_agent, body.payload))
        with cursor.copy(_RECORD) as copy:
            for one in sealed:
                found = one.skeleton
                copy.write_row(
                    (
                        *_place(found),
                        found.record_id,
                        found.user_id,
                        found.actor,
                        found.action,
                        found.target,
                        found.session_id,
                        found.channel,
                        found.duration_us,
                        found.create_time,
                        found.append_time,
                        found.commitment,
                        one.hash,
                    )
                )


def _place(skeleton: Skeleton) -> tuple[UUID, int]:
    return skeleton.tenant_id, skeleton.sequence


if __name__ == "__main__":
    reseal(os.environ["OIAB_DATABASE_URL"], "audit")
